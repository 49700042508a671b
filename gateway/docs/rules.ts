import { type DescField, getOption, hasOption, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import {
  type FieldRules,
  field as fieldRules,
  Ignore,
  type StringRules,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

/** The buf.validate rules of a field, if it has any. */
export function rulesOfField(field: DescField): FieldRules | undefined {
  return hasOption(field, fieldRules) ? getOption(field, fieldRules) : undefined;
}

/**
 * The JSON Schema keywords of rules for one value. Rules that JSON Schema cannot say (CEL, bounds of
 * durations and of 64-bit numbers, which are strings in JSON) are left to the comments.
 */
export function keywordsOf(rules: FieldRules | undefined): JsonObject {
  const { type } = rules ?? {};
  switch (type?.case) {
    case "string":
      return stringKeywords(type.value, rules?.ignore === Ignore.IF_ZERO_VALUE);
    case "int32":
    case "sint32":
    case "sfixed32":
    case "uint32":
    case "fixed32":
    case "float":
    case "double":
      return numberKeywords(type.value);
    case "repeated":
      return defined({
        minItems: size(type.value.minItems),
        maxItems: size(type.value.maxItems),
        uniqueItems: type.value.unique || undefined,
      });
    case "map":
      return defined({
        minProperties: size(type.value.minPairs),
        maxProperties: size(type.value.maxPairs),
      });
    case "bool":
      return defined({ const: has(type.value, "const") ? type.value.const : undefined });
    default:
      return {};
  }
}

/** The rules of the items of a list or the values of a map. */
export function elementRules(rules: FieldRules | undefined): FieldRules | undefined {
  const { type } = rules ?? {};
  if (type?.case === "repeated") return type.value.items;
  return type?.case === "map" ? type.value.values : undefined;
}

/** The numbers that rules leave of an enum, or undefined if they leave all. */
export function enumNumbers(rules: FieldRules | undefined): readonly number[] | undefined {
  if (rules?.type.case !== "enum") return undefined;
  const { value } = rules.type;
  if (has(value, "const")) return [value.const];
  return value.in.length > 0 ? value.in : undefined;
}

/** The first example that the rules give for one value, if it has a JSON form without further ado. */
export function exampleOf(rules: FieldRules | undefined): JsonValue | undefined {
  const value = rules?.type.value;
  const first = value && "example" in value ? value.example[0] : undefined;
  if (typeof first === "bigint") return String(first);
  return typeof first === "object" ? undefined : first;
}

function stringKeywords(rules: StringRules, orEmpty: boolean): JsonObject {
  const length = has(rules, "len") ? rules.len : undefined;
  const fixed = has(rules, "const") ? [rules.const] : rules.in;
  const { pattern } = rules;
  return defined({
    minLength: orEmpty ? undefined : size(length ?? rules.minLen),
    maxLength: size(length ?? rules.maxLen),
    pattern: pattern === "" ? undefined : orEmpty ? `^$|${pattern}` : pattern,
    enum: fixed.length === 0 ? undefined : [...(orEmpty ? [""] : []), ...fixed],
    format: orEmpty ? undefined : FORMATS[rules.wellKnown.case ?? ""],
  });
}

const FORMATS: Record<string, string> = {
  email: "email",
  hostname: "hostname",
  ipv4: "ipv4",
  ipv6: "ipv6",
  uri: "uri",
  uriRef: "uri-reference",
  uuid: "uuid",
};

interface NumberRules {
  readonly const: number;
  readonly in: number[];
  readonly greaterThan: { case?: "gt" | "gte" | undefined; value?: number };
  readonly lessThan: { case?: "lt" | "lte" | undefined; value?: number };
}

function numberKeywords(rules: NumberRules): JsonObject {
  const { greaterThan: above, lessThan: below } = rules;
  // An upper bound below the lower one means what is outside of both.
  const isRange = above.value === undefined || below.value === undefined || above.value <= below.value;
  const bound = (is: boolean, value: number | undefined) => (is && isRange ? value : undefined);
  return defined({
    const: has(rules, "const") ? rules.const : undefined,
    enum: rules.in.length > 0 ? rules.in : undefined,
    minimum: bound(above.case === "gte", above.value),
    exclusiveMinimum: bound(above.case === "gt", above.value),
    maximum: bound(below.case === "lte", below.value),
    exclusiveMaximum: bound(below.case === "lt", below.value),
  });
}

/** Proto2 fields with presence: those that are not set stand on the prototype. */
const has = (rules: object, name: string) => Object.hasOwn(rules, name);
const size = (value: bigint) => (value > 0n ? Number(value) : undefined);

/** Leaves out what is undefined. */
export function defined(keywords: Record<string, JsonValue | undefined>): JsonObject {
  return Object.fromEntries(
    Object.entries(keywords).filter(([, value]) => value !== undefined),
  ) as JsonObject;
}
