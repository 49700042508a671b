import {
  create,
  type DescField,
  type DescMessage,
  fromJson,
  type Message,
  ScalarType,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { isWrapperDesc } from "@bufbuild/protobuf/wkt";
import type { FieldRules } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { isWellKnown } from "../fields.ts";
import { countOf, hintsOf, rulesOfField, rulesWithin } from "./hints.ts";
import { exampleBool, exampleNumber, exampleText, NOW_SECONDS, type Setting } from "./words.ts";

const LIST_LENGTH = 2;

/**
 * Makes up a message: every field is set by its type, its name and its `buf.validate` rules, the first
 * member of each oneof, lists of two; what would recurse is left out. The same each time; `index` tells
 * messages of one stream apart.
 */
export function exampleOf(message: DescMessage, index = 0): Message {
  return fill(message, index, []);
}

/**
 * An example of a response that agrees with its request: what the request says of the resource, by a
 * message of its type or by fields of the same name, is what the response says.
 */
export function exampleResponse(
  request: Message,
  input: DescMessage,
  output: DescMessage,
  index = 0,
): Message {
  const response = exampleOf(output, index);
  const target = reflect(output, response);
  const resources = output.fields.filter((f) => f.fieldKind === "message" && !isWellKnown(f.message));
  const resource = resources.length === 1 ? resources[0] : undefined;
  agree(reflect(input, request), target);
  if (resource?.fieldKind === "message") agree(reflect(input, request), target.get(resource));
  return response;
}

function agree(request: ReflectMessage, target: ReflectMessage): void {
  const own = target.desc.name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toLowerCase();
  for (const field of request.fields) {
    if (!request.isSet(field) || field.fieldKind === "list" || field.fieldKind === "map") continue;
    if (field.fieldKind === "message") {
      if (field.message.typeName === target.desc.typeName) copyAll(request.get(field), target);
      continue;
    }
    const name =
      field.name === `${own}_id` && !target.desc.fields.some((f) => f.name === field.name)
        ? "id"
        : field.name;
    const same = target.fields.find((f) => f.name === name && f.fieldKind === field.fieldKind);
    if (same && !same.oneof && same.scalar === field.scalar && same.enum === field.enum) {
      target.set(same, request.get(field));
    }
  }
}

function copyAll(from: ReflectMessage, to: ReflectMessage): void {
  for (const field of from.fields) if (from.isSet(field)) to.set(field, from.get(field) as never);
}

function fill(desc: DescMessage, index: number, above: readonly DescMessage[]): Message {
  const known = wellKnown(desc, index);
  if (known) return known;
  const message = reflect(desc);
  const path = [...above, desc];
  for (const field of desc.fields) {
    if (field.oneof && field.oneof.fields[0] !== field) continue;
    if (field.message && (path.includes(field.message) || OPEN.test(field.message.typeName))) continue;
    put(message, field, index, path);
  }
  return message.message;
}

/** Messages that can hold anything, so that nothing is a good example. */
const OPEN = /^google\.protobuf\.(Any|Empty)$/;

function put(message: ReflectMessage, field: DescField, index: number, path: readonly DescMessage[]): void {
  const rules = rulesOfField(field);
  const setting = (at: number): Setting => ({ name: field.name, owner: message.desc.name, index: at });
  const { min, max } = countOf(rules);
  const count = Math.max(min, Math.min(LIST_LENGTH, max));
  if (field.fieldKind === "list") {
    const list = message.get(field);
    const within = rulesWithin(rules, "items");
    for (let i = 0; i < count; i++) list.add(one(field, setting(i), within, path) as never);
  } else if (field.fieldKind === "map") {
    const map = message.get(field);
    for (let i = 0; i < Math.max(min, Math.min(1, max)); i++) {
      const key = { name: "key", owner: message.desc.name, index: i };
      const keyRules = rulesWithin(rules, "keys");
      map.set(
        mapKey(field.mapKey, key, keyRules) as never,
        one(field, setting(i), rulesWithin(rules, "values"), path) as never,
      );
    }
  } else message.set(field, one(field, setting(index), rules, path) as never);
}

function mapKey(type: ScalarType, setting: Setting, rules: FieldRules | undefined): unknown {
  const hints = hintsOf(rules);
  if (hints.values.length > 0) return hints.values[setting.index % hints.values.length];
  return type === ScalarType.STRING
    ? exampleText({ ...setting, name: `key${setting.index + 1}` }, hints)
    : scalar(type, setting, rules);
}

/** One value of a field. */
function one(
  field: DescField,
  setting: Setting,
  rules: FieldRules | undefined,
  path: readonly DescMessage[],
): unknown {
  const { message } = field;
  if (message && isWrapperDesc(message)) {
    const inner = reflect(message);
    const [value] = message.fields;
    if (value?.fieldKind === "scalar") inner.set(value, scalar(value.scalar, setting, rules) as never);
    return inner;
  }
  if (message?.typeName === "google.protobuf.Timestamp") return reflect(message, timestamp(message, setting));
  if (message) return reflect(message, fill(message, setting.index, path));
  if (field.enum) {
    const { values, notIn } = hintsOf(rules);
    if (values.length > 0) return values[setting.index % values.length];
    const named = field.enum.values.filter((value) => value.number !== 0 && !notIn.includes(value.number));
    return named[setting.index % Math.max(1, named.length)]?.number ?? 0;
  }
  return scalar(field.scalar as ScalarType, setting, rules);
}

const LONG = new Set([
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.SINT64,
  ScalarType.FIXED64,
  ScalarType.SFIXED64,
]);

function scalar(type: ScalarType, setting: Setting, rules: FieldRules | undefined): unknown {
  const hints = hintsOf(rules);
  if (hints.values.length > 0) return hints.values[setting.index % hints.values.length];
  switch (type) {
    case ScalarType.STRING:
      return exampleText(setting, hints);
    case ScalarType.BOOL:
      return exampleBool(setting);
    case ScalarType.BYTES:
      return new TextEncoder().encode("example");
    default: {
      const number = exampleNumber(setting, hints, type);
      return LONG.has(type) ? BigInt(number) : number;
    }
  }
}

/** Beginnings are before endings, and what expires does so later. */
function timestamp(desc: DescMessage, { name, index }: Setting): Message {
  const minutes = /expire|valid_until|deadline/.test(name)
    ? 1440
    : /end|finish|complete|update|last/.test(name)
      ? 30
      : 0;
  return create(desc, { seconds: NOW_SECONDS + BigInt(minutes * 60 + index), nanos: 0 });
}

const WELL_KNOWN: Record<string, (index: number) => Record<string, unknown>> = {
  "google.protobuf.Timestamp": (index) => ({ seconds: NOW_SECONDS + BigInt(index), nanos: 0 }),
  "google.protobuf.Duration": () => ({ seconds: 90n, nanos: 0 }),
  "google.api.HttpBody": () => ({
    contentType: "text/plain",
    data: new TextEncoder().encode("An example\n"),
  }),
};

function wellKnown(desc: DescMessage, index: number): Message | undefined {
  const init = WELL_KNOWN[desc.typeName];
  if (init) return create(desc, init(index));
  switch (desc.typeName) {
    case "google.protobuf.Struct":
      return fromJson(desc, { example: "value" });
    case "google.protobuf.Value":
      return fromJson(desc, "example");
    case "google.protobuf.ListValue":
      return fromJson(desc, ["example"]);
    case "google.protobuf.FieldMask":
      return create(desc, { paths: ["name"] });
    default:
      return undefined;
  }
}
