import { fromJson, type JsonObject, type JsonValue, ScalarType } from "@bufbuild/protobuf";
import type { Violation } from "./explain.ts";
import { expected, isLeaf, scalarOf } from "./fields.ts";
import { type Field, isObject, maskText, type Plan, type Spelling } from "./spelling.ts";

/** A decoded query parameter. */
export type Parameter = readonly [name: string, value: string];

/** Parses a raw query string, without its question mark. Throws `URIError` on a malformed escape. */
export function parseQuery(query: string): Parameter[] {
  const parameters: Parameter[] = [];
  for (const pair of query.split("&")) {
    if (pair === "") continue;
    const equals = pair.indexOf("=");
    parameters.push(
      equals < 0 ? [decode(pair), ""] : [decode(pair.slice(0, equals)), decode(pair.slice(equals + 1))],
    );
  }
  return parameters;
}

function decode(text: string): string {
  const spaced = text.includes("+") ? text.replaceAll("+", " ") : text;
  return spaced.includes("%") ? decodeURIComponent(spaced) : spaced;
}

/** A parameter's place in the request message. */
interface Place {
  /** Outermost first; the last one holds the value. */
  readonly fields: readonly Field[];
  /** The key, for a parameter `map[key]`. */
  readonly mapKey: string | undefined;
}

/** The outcome of binding query parameters. */
export interface BoundQuery {
  /** As proto3 JSON. */
  readonly json: JsonObject;
  readonly violations: readonly Violation[];
}

/** Binds query parameters to a message as JSON, leaving out those below a field that is bound otherwise. */
export function bindQuery(
  spelling: Spelling,
  plan: Plan,
  parameters: readonly Parameter[],
  boundOtherwise: (path: string) => boolean,
): BoundQuery {
  const json: JsonObject = {};
  const violations: Violation[] = [];
  const folded: Place[] = [];
  for (const [name, text] of parameters) {
    const place = findPlace(plan, name);
    if (!place) {
      violations.push({ field: name, description: "is not a parameter of this method", unknown: true });
      continue;
    }
    const field = place.fields.at(-1) as Field;
    const problem = unbindable(field, place);
    if (problem) {
      violations.push({ field: name, description: problem });
      continue;
    }
    if (boundOtherwise(place.fields.map((f) => f.desc.name).join("."))) continue;
    const value = leafJson(field, text);
    if (!fits(spelling, place, plan, value)) {
      const description = `must be ${expected(field.desc, () => field.enum?.names ?? [])}`;
      violations.push({ field: name, description });
    } else if (!put(json, place, value)) {
      violations.push({ field: name, description: "is given more than once" });
    }
    if (field.folds && place.mapKey !== undefined) folded.push(place);
  }
  for (const place of folded) unfold(json, place);
  return { json, violations };
}

/** Whether a parameter of this name can be bound. */
export function isParameter(plan: Plan, name: string): boolean {
  return findPlace(plan, name) !== undefined;
}

function findPlace(plan: Plan, name: string): Place | undefined {
  const bracket = name.endsWith("]") ? name.indexOf("[") : -1;
  const path = bracket < 0 ? name : name.slice(0, bracket);
  const mapKey = bracket < 0 ? undefined : name.slice(bracket + 1, -1);
  const fields: Field[] = [];
  let message: Plan | undefined = plan;
  for (const segment of path.split(".")) {
    const field: Field | undefined = message?.fields.get(segment);
    if (!field) return undefined;
    fields.push(field);
    message = field.desc.fieldKind === "message" ? field.child : undefined;
  }
  const last = fields.at(-1);
  const takesKey = last?.desc.fieldKind === "map" || last?.folds === true;
  return mapKey !== undefined && !takesKey ? undefined : { fields, mapKey };
}

function unbindable(field: Field, { mapKey }: Place): string | undefined {
  if (!isLeaf(field.desc)) {
    return field.desc.fieldKind === "message"
      ? "is a message: give its fields, with a dot between"
      : "holds messages and cannot be a query parameter";
  }
  if (field.desc.fieldKind === "map" && mapKey === undefined) return "is a map: give a key in brackets";
  return undefined;
}

const INTEGER = /^-?\d+$/;
const NUMBER = /^(?:-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|-?Infinity|NaN)$/;
const WRONG: JsonValue = {};

/** The JSON of a value that came as text; text that cannot be one gives JSON that will be refused. */
export function leafJson(field: Field, text: string): JsonValue {
  if (field.enum) return field.enum.read(text);
  switch (scalarOf(field.desc)) {
    case undefined:
      return messageJson(field, text);
    case ScalarType.STRING:
      return text;
    case ScalarType.BOOL:
      return text === "true" ? true : text === "false" ? false : WRONG;
    case ScalarType.BYTES:
      // A plus sign of base64 that was not escaped has become a space.
      return text.replaceAll(" ", "+");
    case ScalarType.FLOAT:
    case ScalarType.DOUBLE:
      return NUMBER.test(text) ? text : WRONG;
    default:
      return INTEGER.test(text) ? text : WRONG;
  }
}

function messageJson(field: Field, text: string): JsonValue {
  switch (field.desc.message?.typeName) {
    case "google.protobuf.Struct":
    case "google.protobuf.ListValue":
    case "google.protobuf.Any":
      return parsed(text) ?? WRONG;
    case "google.protobuf.Value": {
      const json = parsed(text);
      return json === undefined ? text : json;
    }
    case "google.protobuf.FieldMask":
      return maskText(text);
    case undefined:
      return text === "null" || text === "NULL_VALUE" ? null : WRONG;
    default:
      return text;
  }
}

function parsed(text: string): JsonValue | undefined {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    return undefined;
  }
}

function fits(spelling: Spelling, place: Place, plan: Plan, value: JsonValue): boolean {
  const field = place.fields.at(-1) as Field;
  const owner = (place.fields.at(-2)?.child ?? plan).message;
  try {
    fromJson(owner, { [field.key]: wrap(place, value) }, spelling.jsonOptions);
    return true;
  } catch {
    return false;
  }
}

function wrap({ fields, mapKey }: Place, value: JsonValue): JsonValue {
  switch (fields.at(-1)?.desc.fieldKind) {
    case "list":
      return [value];
    case "map":
      return Object.fromEntries([[mapKey ?? "", value]]);
    default:
      return value;
  }
}

/** Puts a value in its place; false if the place is taken. */
function put(root: JsonObject, place: Place, value: JsonValue): boolean {
  const field = place.fields.at(-1) as Field;
  if (field.folds && place.mapKey !== undefined) return fold(root, place, value);
  const object = objectAt(root, place.fields.slice(0, -1));
  const there = object[field.key];
  if (field.desc.fieldKind === "list" && Array.isArray(there)) {
    there.push(value);
    return true;
  }
  if (field.desc.fieldKind === "map" && isObject(there)) {
    if (Object.hasOwn(there, place.mapKey ?? "")) return false;
    Object.assign(there, wrap(place, value));
    return true;
  }
  if (there !== undefined) return false;
  object[field.key] = wrap(place, value);
  return true;
}

/** Gathers `field[a][b]=c` as `{a: {b: c}}`; false if the place is taken. */
function fold(root: JsonObject, { fields, mapKey = "" }: Place, value: JsonValue): boolean {
  const keys = [(fields.at(-1) as Field).key, ...mapKey.split("][")];
  const leaf = keys.pop() as string;
  let object = objectAt(root, fields.slice(0, -1));
  for (const key of keys) {
    if (!Object.hasOwn(object, key)) define(object, key, {});
    const next = object[key];
    if (!isObject(next)) return false;
    object = next;
  }
  if (Object.hasOwn(object, leaf)) return false;
  define(object, leaf, value);
  return true;
}

/** Makes what was gathered the text of its field. */
function unfold(root: JsonObject, { fields }: Place): void {
  const object = objectAt(root, fields.slice(0, -1));
  const { key } = fields.at(-1) as Field;
  if (isObject(object[key])) object[key] = JSON.stringify(object[key]);
}

/** Sets a key that a client chose, which assignment would not do for "__proto__". */
function define(object: JsonObject, key: string, value: JsonValue): void {
  Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true });
}

/** The object that fields lead to, made if it is not there. */
export function objectAt(root: JsonObject, fields: readonly Field[]): JsonObject {
  let object = root;
  for (const { key } of fields) {
    let next = object[key];
    if (!isObject(next)) {
      next = {};
      object[key] = next;
    }
    object = next;
  }
  return object;
}
