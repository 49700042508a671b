import { type DescEnum, type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { isWrapperDesc } from "@bufbuild/protobuf/wkt";

const LEAF_TYPES = new Set(
  ["Any", "Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue"].map(
    (name) => `google.protobuf.${name}`,
  ),
);

/** Whether proto3 JSON gives a message a form of its own, so that its fields are not seen. */
export function isWellKnown(message: DescMessage): boolean {
  return LEAF_TYPES.has(message.typeName) || isWrapperDesc(message);
}

/** Whether the message is `google.api.HttpBody`, whose bytes are the HTTP body. */
export function isHttpBody(message: DescMessage | undefined): boolean {
  return message?.typeName === "google.api.HttpBody";
}

/** Whether one value of the field is a leaf of the JSON tree rather than a message with fields. */
export function isLeaf(field: DescField): boolean {
  return field.message === undefined || isWellKnown(field.message);
}

/** The enum of a field's values, unless it is the one that JSON writes as null. */
export function enumOf(field: DescField): DescEnum | undefined {
  return field.enum?.typeName === "google.protobuf.NullValue" ? undefined : field.enum;
}

/** The scalar type of one value of the field; for a wrapper, that of what it wraps. */
export function scalarOf(field: DescField): ScalarType | undefined {
  if (field.message && isWrapperDesc(field.message)) return field.message.fields[0]?.scalar;
  return field.scalar;
}

const SCALARS: Record<ScalarType, string> = {
  [ScalarType.BOOL]: "true or false",
  [ScalarType.STRING]: "a string",
  [ScalarType.BYTES]: "a base64 string",
  [ScalarType.DOUBLE]: "a number",
  [ScalarType.FLOAT]: "a number of 32 bits",
  [ScalarType.INT32]: "an integer of 32 bits",
  [ScalarType.SINT32]: "an integer of 32 bits",
  [ScalarType.SFIXED32]: "an integer of 32 bits",
  [ScalarType.UINT32]: "an unsigned integer of 32 bits",
  [ScalarType.FIXED32]: "an unsigned integer of 32 bits",
  [ScalarType.INT64]: "an integer of 64 bits",
  [ScalarType.SINT64]: "an integer of 64 bits",
  [ScalarType.SFIXED64]: "an integer of 64 bits",
  [ScalarType.UINT64]: "an unsigned integer of 64 bits",
  [ScalarType.FIXED64]: "an unsigned integer of 64 bits",
};

const MESSAGES: Record<string, string> = {
  "google.protobuf.Timestamp": "an RFC 3339 time, such as 2026-01-31T12:00:00Z",
  "google.protobuf.Duration": "a duration in seconds, such as 3.5s",
  "google.protobuf.FieldMask": "field paths separated by commas",
  "google.protobuf.Struct": "a JSON object",
  "google.protobuf.ListValue": "a JSON array",
  "google.protobuf.Value": "a JSON value",
  "google.protobuf.Any": 'an object with a known "@type"',
};

/** Says what one value of the field must be, as the end of "must be …". */
export function expected(field: DescField, enumNames: (of: DescEnum) => readonly string[]): string {
  if (field.enum) {
    const names = enumNames(field.enum);
    const shown = names.slice(0, 20).join(", ");
    return `one of ${shown}${names.length > 20 ? ", …" : ""}`;
  }
  const scalar = scalarOf(field);
  if (scalar !== undefined) return SCALARS[scalar];
  return MESSAGES[field.message?.typeName ?? ""] ?? "an object";
}
