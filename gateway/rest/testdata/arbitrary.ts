import {
  create,
  type DescField,
  type DescMessage,
  type DescMethod,
  type Message,
  type MessageInitShape,
  ScalarType,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import fc, { type Arbitrary } from "fast-check";
import type { HttpRuleSchema } from "#gen/google/api/http_pb.js";
import { isLeaf } from "../fields.ts";

const KEY = fc.string({ unit: "grapheme" }).filter((key) => key !== "__proto__");

const SCALARS: Record<ScalarType, Arbitrary<unknown>> = {
  [ScalarType.BOOL]: fc.boolean(),
  [ScalarType.STRING]: fc.oneof(fc.string({ unit: "grapheme" }), fc.webPath(), fc.constant("a%2Fb:c/é ")),
  [ScalarType.BYTES]: fc.uint8Array(),
  // JSON.stringify has no negative zero, and NaN equals nothing.
  [ScalarType.DOUBLE]: fc.double({ noNaN: true }).map((n) => n + 0),
  [ScalarType.FLOAT]: fc.float({ noNaN: true }).map((n) => n + 0),
  [ScalarType.INT32]: fc.integer(),
  [ScalarType.SINT32]: fc.integer(),
  [ScalarType.SFIXED32]: fc.integer(),
  [ScalarType.UINT32]: fc.nat(),
  [ScalarType.FIXED32]: fc.nat(),
  [ScalarType.INT64]: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  [ScalarType.SINT64]: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  [ScalarType.SFIXED64]: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  [ScalarType.UINT64]: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  [ScalarType.FIXED64]: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
};

const seconds = fc.integer({ min: -1_000_000_000, max: 4_000_000_000 }).map(BigInt);
const WELL_KNOWN: Record<string, Arbitrary<Record<string, unknown>>> = {
  Timestamp: fc.record({ seconds, nanos: fc.nat(999_999_999) }),
  Duration: fc.record({ seconds: fc.nat().map(BigInt), nanos: fc.nat(999_999_999) }),
  FieldMask: fc.record({ paths: fc.array(fc.constantFrom("id", "display_name", "place.dock")) }),
};

/** Messages of any type without recursion into `google.protobuf.Any` and its like. */
export function messages(desc: DescMessage, depth = 2): Arbitrary<Message> {
  const name = desc.typeName.replace("google.protobuf.", "");
  const known = WELL_KNOWN[name];
  if (known) return known.map((init) => create(desc, init));
  const fields = desc.fields.filter((field) => depth > 0 || !field.message || isLeaf(field));
  const values = Object.fromEntries(
    fields.flatMap((field) => {
      const one = valuesOf(field, depth);
      return one ? [[field.name, one] as const] : [];
    }),
  );
  return fc.record(values, { requiredKeys: [] }).map((record) => {
    const message = reflect(desc);
    for (const field of desc.fields) {
      const value = record[field.name];
      if (value === undefined) continue;
      if (field.fieldKind === "list") {
        for (const each of value as unknown[]) message.get(field).add(each as never);
      } else if (field.fieldKind === "map") {
        for (const [key, each] of value as [never, never][]) message.get(field).set(key, each);
      } else message.set(field, value as never);
    }
    return message.message;
  });
}

const UNSUPPORTED = /^google\.protobuf\.(Any|Struct|Value|ListValue)$/;

function valuesOf(field: DescField, depth: number): Arbitrary<unknown> | undefined {
  if (field.message && UNSUPPORTED.test(field.message.typeName)) return undefined;
  const one = oneOf(field, depth);
  if (field.fieldKind === "list") return fc.array(one, { maxLength: 3 });
  if (field.fieldKind !== "map") return one;
  const key =
    field.mapKey === ScalarType.STRING ? KEY : (SCALARS[field.mapKey] as Arbitrary<string | number>);
  return fc.uniqueArray(fc.tuple(key, one), { maxLength: 2, selector: ([k]) => k });
}

function oneOf(field: DescField, depth: number): Arbitrary<unknown> {
  const { message } = field;
  if (message) return messages(message, depth - 1).map((each) => reflect(message, each));
  if (field.enum) return fc.constantFrom(...field.enum.values.map((value) => value.number), 99);
  return SCALARS[field.scalar as ScalarType];
}

/** Rules that bind a method in any way it can be bound. */
export function rules(method: DescMethod): Arbitrary<MessageInitShape<typeof HttpRuleSchema>> {
  const { input } = method;
  const paths = leafPaths(input, "", 3);
  const bodies = ["", "*", ...input.fields.filter((f) => !f.oneof).map((f) => f.name)];
  const literal = fc.constantFrom("v1", "a%20b", "x.y", "z~");
  const pattern = fc.constantFrom("", "=*", "=a/*", "=*/b/*", "=v1");
  return fc
    .record({
      variables: fc.uniqueArray(fc.tuple(fc.constantFrom(...paths), pattern), {
        maxLength: 3,
        selector: ([path]) => path,
      }),
      literals: fc.array(literal, { minLength: 1, maxLength: 2 }),
      last: fc.constantFrom("", "**", "{=**}"),
      verb: fc.constantFrom("", ":go", ":a:b"),
      kind: fc.constantFrom("get", "put", "post", "patch", "delete"),
      body: fc.constantFrom(...bodies),
    })
    .map(({ variables, literals, last, verb, kind, body }) => {
      const parts = [...literals, ...variables.map(([path, shape]) => `{${path}${shape}}`)];
      const taken = new Set(variables.map(([path]) => path));
      const open = paths.find((path) => !taken.has(path));
      if (last === "**") parts.push(last);
      else if (last !== "" && open) parts.push(`{${open}=**}`);
      return { pattern: { case: kind as "get", value: `/${parts.join("/")}${verb}` }, body };
    });
}

function leafPaths(desc: DescMessage, prefix: string, depth: number): string[] {
  return desc.fields.flatMap((field) => {
    if (field.fieldKind === "list" || field.fieldKind === "map") return [];
    if (field.fieldKind === "message" && !isLeaf(field)) {
      return depth > 0 ? leafPaths(field.message, `${prefix}${field.name}.`, depth - 1) : [];
    }
    return field.message ? [] : [prefix + field.name];
  });
}
