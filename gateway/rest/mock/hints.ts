import { type DescField, getOption, hasOption, type Message } from "@bufbuild/protobuf";
import {
  type FieldRules,
  field as fieldRules,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

/** What `buf.validate` rules say of one value of a field, as far as it helps to make one up. */
export interface Hints {
  /** Values that are known to do, best first. */
  readonly values: readonly unknown[];
  readonly notIn: readonly unknown[];
  /** The format of a string by its name in `buf.validate`, such as `uuid`. */
  readonly format: string | undefined;
  /** The least and the greatest number; a step inside where the limit itself is excluded. */
  readonly min: number | undefined;
  readonly max: number | undefined;
  readonly minLength: number;
  readonly maxLength: number;
  readonly pattern: RegExp | undefined;
  readonly prefix: string;
}

/** How many entries a list or map can have. */
export interface Count {
  readonly min: number;
  readonly max: number;
}

/** The rules of a field; undefined if it has none. */
export function rulesOfField(field: DescField): FieldRules | undefined {
  return hasOption(field, fieldRules) ? getOption(field, fieldRules) : undefined;
}

/** The number of entries that rules ask for. */
export function countOf(rules: FieldRules | undefined): Count {
  const { type } = rules ?? {};
  const min =
    type?.case === "repeated" ? type.value.minItems : type?.case === "map" ? type.value.minPairs : 0n;
  const max =
    type?.case === "repeated" ? type.value.maxItems : type?.case === "map" ? type.value.maxPairs : 0n;
  return { min: Number(min), max: max === 0n ? Number.POSITIVE_INFINITY : Number(max) };
}

/** The rules of what is in a list, of the keys of a map, or of its values. */
export function rulesWithin(
  rules: FieldRules | undefined,
  what: "items" | "keys" | "values",
): FieldRules | undefined {
  const { type } = rules ?? {};
  if (type?.case === "repeated") return what === "items" ? type.value.items : undefined;
  return type?.case === "map" && what !== "items" ? type.value[what] : undefined;
}

/** What the rules of all scalar types have, each where it applies. */
interface AnyRules {
  const?: unknown;
  in?: unknown[];
  notIn?: unknown[];
  example?: unknown[];
  greaterThan?: { case?: string; value?: unknown };
  lessThan?: { case?: string; value?: unknown };
  wellKnown?: { case?: string; value?: unknown };
  len?: bigint;
  minLen?: bigint;
  maxLen?: bigint;
  pattern?: string;
  prefix?: string;
}

/** The hints of rules for one value. */
export function hintsOf(rules: FieldRules | undefined): Hints {
  const { value } = rules?.type ?? {};
  const of = (value ?? {}) as unknown as AnyRules;
  const isSet = (name: string) => value !== undefined && Object.hasOwn(value as Message, name);
  const { greaterThan, lessThan, wellKnown } = of;
  return {
    values: [...(isSet("const") ? [of.const] : []), ...(of.example ?? []), ...(of.in ?? [])],
    notIn: of.notIn ?? [],
    format: wellKnown?.value === true ? wellKnown.case : undefined,
    min: limit(greaterThan, "gt", 1),
    max: limit(lessThan, "lt", -1),
    minLength: Number((isSet("len") ? of.len : isSet("minLen") ? of.minLen : 0n) ?? 0n),
    maxLength: Number((isSet("len") ? of.len : isSet("maxLen") ? of.maxLen : 1_000_000n) ?? 1_000_000n),
    pattern: isSet("pattern") ? patternOf(of.pattern) : undefined,
    prefix: isSet("prefix") ? (of.prefix ?? "") : "",
  };
}

function limit(
  { case: kind, value }: { case?: string; value?: unknown } = {},
  exclusive: string,
  step: number,
): number | undefined {
  if (typeof value !== "number" && typeof value !== "bigint") return undefined;
  return Number(value) + (kind === exclusive ? step : 0);
}

/** RE2 has a few things that JavaScript writes otherwise; such a pattern is no hint. */
function patternOf(pattern: string | undefined): RegExp | undefined {
  try {
    return new RegExp(pattern ?? "", "u");
  } catch {
    return undefined;
  }
}
