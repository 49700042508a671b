import {
  type DescEnum,
  type DescField,
  type DescMessage,
  fromJson,
  getOption,
  hasOption,
  type JsonValue,
  ScalarType,
} from "@bufbuild/protobuf";
import { TimestampSchema, timestampMs } from "@bufbuild/protobuf/wkt";
import { listable } from "#gen/portolan/options/v1/list_pb.js";
import { aliases, spellings } from "#gen/portolan/options/v1/policy_pb.js";

/** A value as it stands in a column: times in Unix milliseconds, booleans as 0 and 1, enums by number. */
export type ColumnValue = string | number;

/** A field that a list can be filtered or sorted by, as its contract declares it. */
export interface ListField {
  /** The field's name in the contract. */
  readonly path: string;
  readonly desc: DescField;
  readonly filter: boolean;
  readonly sort: boolean;
  readonly search: boolean;
}

/** What is wrong with a value: the end of "must be …". */
export class WrongValue extends Error {}

/** The listable fields of a resource, by the contract's name. */
export function listFieldsOf(message: DescMessage): Map<string, ListField> {
  const fields = new Map<string, ListField>();
  for (const desc of message.fields) {
    if (!hasOption(desc, listable)) continue;
    const { filter, sort, search } = getOption(desc, listable);
    fields.set(desc.name, { path: desc.name, desc, filter, sort, search });
  }
  return fields;
}

/** The names that a client may give a field: the contract's, the JSON form and further names. */
export const namesOf = (field: DescField): readonly string[] => [
  field.name,
  field.jsonName,
  ...getOption(field, aliases),
];

/**
 * A text as a column holds it: PostgreSQL refuses NUL, which a Protobuf string may hold, so that it
 * stands there as U+FFFD.
 */
export const textColumn = (text: string): string => text.replaceAll("\0", "\ufffd");

/** Whether texts are compared, so that `prefix` makes sense. */
export const isText = ({ desc }: ListField): boolean => desc.scalar === ScalarType.STRING;

/**
 * The column value of what a client wrote in a filter. Values may come as text, since a query has
 * nothing else.
 * @throws WrongValue if it is not of the field's type
 */
export function readValue({ desc }: ListField, json: JsonValue): ColumnValue {
  if (desc.enum) return readEnum(desc.enum, json);
  if (desc.message?.typeName === TimestampSchema.typeName) return readTime(json);
  switch (desc.scalar) {
    case ScalarType.STRING:
      // PostgreSQL cannot compare with a NUL, and no text has one.
      if (typeof json === "string" && !json.includes("\0")) return json;
      throw new WrongValue("a string");
    case ScalarType.BOOL:
      if (json === true || json === "true") return 1;
      if (json === false || json === "false") return 0;
      throw new WrongValue("true or false");
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return readNumber(json, "a number");
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return readInteger(json, -(2 ** 31), 2 ** 31 - 1, "an integer of 32 bits");
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return readInteger(json, 0, 2 ** 32 - 1, "an unsigned integer of 32 bits");
    default:
      return readInteger(json, -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, "an integer of 53 bits");
  }
}

function readNumber(json: JsonValue, what: string): number {
  const isNumber =
    typeof json === "number" || (typeof json === "string" && /^-?[\d.]+(e[+-]?\d+)?$/i.test(json));
  const value = isNumber ? Number(json) : Number.NaN;
  if (!Number.isFinite(value)) throw new WrongValue(what);
  return value;
}

function readInteger(json: JsonValue, least: number, most: number, what: string): number {
  const value = readNumber(json, what);
  if (!Number.isInteger(value) || value < least || value > most) throw new WrongValue(what);
  return value;
}

function readTime(json: JsonValue): number {
  const what = "an RFC 3339 time, such as 2026-01-31T12:00:00Z";
  if (typeof json !== "string") throw new WrongValue(what);
  try {
    return timestampMs(fromJson(TimestampSchema, json));
  } catch {
    throw new WrongValue(what);
  }
}

/** Every spelling is read, as in bodies: canonical, short, in any case, and further ones. */
function readEnum(desc: DescEnum, json: JsonValue): number {
  const text = typeof json === "string" ? json.toUpperCase() : json;
  for (const value of desc.values) {
    const names = [value.name, value.localName, ...getOption(value, spellings)];
    if (value.number === json || String(value.number) === text) return value.number;
    if (names.some((name) => name.toUpperCase() === text)) return value.number;
  }
  const known = desc.values.filter(({ number }) => number !== 0).map(({ localName }) => localName);
  throw new WrongValue(`one of ${known.join(", ")}`);
}
