import { fromJson, type JsonValue, ScalarType } from "@bufbuild/protobuf";
import { expected } from "./fields.ts";
import { type Field, isObject, type Plan, type Spelling } from "./spelling.ts";

/** What is wrong with one field of a request, by its path as the client wrote it. */
export interface Violation {
  readonly field: string;
  readonly description: string;
  /** Whether the field is not one of the message. */
  readonly unknown?: boolean;
}

const MOST = 20;

/**
 * Says what is wrong with JSON that could not be read as a message. It walks the JSON once more, trying
 * the leaves one by one, so it is only for JSON that was refused.
 */
export function explain(spelling: Spelling, plan: Plan, json: JsonValue, path: string): Violation[] {
  const found: Violation[] = [];
  explainMessage(spelling, plan, json, path, found);
  if (found.length === 0) {
    found.push({ field: path, description: `cannot be read as ${plan.message.name}` });
  }
  return found.slice(0, MOST);
}

/** As `explain`, for the value of one field. */
export function explainField(
  spelling: Spelling,
  plan: Plan,
  field: Field,
  json: JsonValue,
  path: string,
): Violation[] {
  const found: Violation[] = [];
  explainValue(spelling, plan, field, json, path, found);
  if (found.length === 0) found.push({ field: path, description: "cannot be read" });
  return found.slice(0, MOST);
}

function explainMessage(
  spelling: Spelling,
  plan: Plan,
  json: JsonValue,
  path: string,
  found: Violation[],
): void {
  if (plan.fields.size === 0 && plan.message.fields.length > 0) return;
  if (!isObject(json)) {
    found.push({ field: path, description: "must be an object" });
    return;
  }
  const names = new Map<unknown, string>();
  for (const name of Object.keys(json)) {
    if (found.length >= MOST) return;
    const at = path === "" ? name : `${path}.${name}`;
    const field = plan.fields.get(name);
    if (!field) {
      found.push({ field: at, description: `is not a field of ${plan.message.name}`, unknown: true });
      continue;
    }
    const value = json[name] as JsonValue;
    const twice = names.get(field);
    if (twice !== undefined) {
      found.push({ field: at, description: `is the same field as ${twice}` });
      continue;
    }
    names.set(field, name);
    const { oneof } = field.desc;
    if (oneof && value !== null) {
      const other = names.get(oneof);
      if (other !== undefined) found.push({ field: at, description: `cannot be set together with ${other}` });
      names.set(oneof, name);
    }
    explainValue(spelling, plan, field, value, at, found);
  }
}

function explainValue(
  spelling: Spelling,
  plan: Plan,
  field: Field,
  value: JsonValue,
  at: string,
  found: Violation[],
): void {
  if (field.desc.fieldKind === "list") {
    if (value === null) return;
    if (!Array.isArray(value)) {
      found.push({ field: at, description: "must be an array" });
      return;
    }
    for (const [i, each] of value.entries()) {
      if (found.length >= MOST) return;
      explainOne(spelling, plan, field, each, `${at}[${i}]`, found, (leaf) => [leaf]);
    }
  } else if (field.desc.fieldKind === "map") {
    if (value === null) return;
    if (!isObject(value)) {
      found.push({ field: at, description: "must be an object" });
      return;
    }
    for (const [key, each] of Object.entries(value)) {
      if (found.length >= MOST) return;
      const entry = `${at}[${JSON.stringify(key)}]`;
      if (!isMapKey(field.desc.mapKey, key)) {
        found.push({ field: entry, description: "has a key of the wrong type" });
      } else {
        explainOne(spelling, plan, field, each, entry, found, (leaf) => Object.fromEntries([[key, leaf]]));
      }
    }
  } else explainOne(spelling, plan, field, value, at, found, (leaf) => leaf);
}

function explainOne(
  spelling: Spelling,
  plan: Plan,
  field: Field,
  value: JsonValue,
  at: string,
  found: Violation[],
  wrap: (leaf: JsonValue) => JsonValue,
): void {
  if (field.child && value !== null) {
    explainMessage(spelling, field.child, value, at, found);
    return;
  }
  try {
    const json = spelling.readField(field, wrap(value));
    fromJson(plan.message, { [field.key]: json }, spelling.jsonOptions);
  } catch {
    const names = () => field.enum?.names ?? [];
    found.push({ field: at, description: `must be ${expected(field.desc, names)}` });
  }
}

function isMapKey(type: ScalarType, key: string): boolean {
  if (type === ScalarType.STRING) return true;
  return type === ScalarType.BOOL ? key === "true" || key === "false" : /^-?\d+$/.test(key);
}
