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
export interface Place {
  /** Outermost first; the last one holds the value. */
  readonly fields: readonly Field[];
  /** The key, for a parameter `map[key]`. */
  readonly mapKey: string | undefined;
}

/** The outcome of binding parameters. */
export interface Bound {
  /** As proto3 JSON. */
  readonly json: JsonObject;
  readonly violations: readonly Violation[];
}

/** A value to be put into the field that its name leads to. */
export interface Part {
  /** As the client wrote it. */
  readonly name: string;
  /** Why the place cannot hold it, as the end of a sentence; undefined if it can. */
  problem(place: Place): string | undefined;
  /** The JSON for one value of the field; what the field will refuse, if it cannot be one. */
  json(field: Field): JsonValue;
}

/** Binds query parameters to a message as JSON, leaving out those below a field that is bound otherwise. */
export function bindQuery(
  spelling: Spelling,
  plan: Plan,
  parameters: readonly Parameter[],
  boundOtherwise: (path: string) => boolean,
): Bound {
  return bindParts(spelling, plan, parameters.map(textPart), boundOtherwise);
}

/** As `bindQuery`, for values of any kind. */
export function bindParts(
  spelling: Spelling,
  plan: Plan,
  parts: readonly Part[],
  boundOtherwise: (path: string) => boolean,
): Bound {
  const json: JsonObject = {};
  const violations: Violation[] = [];
  const folded: Place[] = [];
  const members = new Map<unknown, { name: string; path: string }>();
  for (const part of parts) {
    const { name } = part;
    const place = findPlace(plan, name);
    if (!place) {
      violations.push({ field: name, description: "is not a parameter of this method", unknown: true });
      continue;
    }
    const field = place.fields.at(-1) as Field;
    const problem = part.problem(place);
    if (problem) {
      violations.push({ field: name, description: problem });
      continue;
    }
    const path = place.fields.map((f) => f.desc.name).join(".");
    if (boundOtherwise(path)) continue;
    const rival = rivalOf(place, path, name, members);
    const value = part.json(field);
    if (rival !== undefined) {
      violations.push({ field: name, description: `cannot be set together with ${rival}` });
    } else if (!fits(spelling, place, plan, value)) {
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

/** The name of another parameter that sets another member of a oneof on the way to this place. */
function rivalOf(
  { fields }: Place,
  path: string,
  name: string,
  members: Map<unknown, { name: string; path: string }>,
): string | undefined {
  const names = path.split(".");
  for (const [i, { desc }] of fields.entries()) {
    if (!desc.oneof) continue;
    const owner = names.slice(0, i).join(".");
    const key = `${owner} ${desc.oneof.name}`;
    const member = names.slice(0, i + 1).join(".");
    const there = members.get(key);
    if (there && there.path !== member) return there.name;
    members.set(key, { name, path: member });
  }
  return undefined;
}

function textPart([name, text]: Parameter): Part {
  return {
    name,
    problem: (place) => unbindable(place.fields.at(-1) as Field, place),
    json: (field) => leafJson(field, text),
  };
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
    case "google.protobuf.Timestamp":
      // As with base64: the plus sign of an offset that was not escaped.
      return text.replace(" ", "+");
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
    const key = place.mapKey ?? "";
    if (Object.hasOwn(there, key)) return false;
    // Not by assignment, which would lose the key "__proto__".
    object[field.key] = Object.fromEntries([...Object.entries(there), [key, value]]);
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
