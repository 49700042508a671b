import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** What an operation sends, before or after its references were replaced. */
export interface Template {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: JsonValue | undefined;
}

/** What an operation was answered with, as far as others can refer to it. */
export interface Answer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly json?: JsonValue | undefined;
}

/** A reference that leads nowhere. */
export class NoSuchReference extends Error {
  /** As it was written. */
  readonly reference: string;

  constructor(reference: string, why: string) {
    super(`${reference}: ${why}`);
    this.reference = reference;
  }
}

/** `{{id.status}}`, `{{id.headers.name}}`, `{{id.body.field.0}}`; anything else in braces is text. */
const reference = /\{\{\s*([A-Za-z0-9_-]{1,64})\.(status|headers|body)((?:\.[^\s{}.]+)*)\s*\}\}/;
const everyReference = new RegExp(reference, "g");
const oneReference = new RegExp(`^${reference.source}$`);

/** The ids of the operations that a template refers to. */
export function referencesIn({ path, headers, body }: Template): Set<string> {
  const found = new Set<string>();
  const look = (text: string) => {
    for (const [, id] of text.matchAll(everyReference)) found.add(id as string);
  };
  look(path);
  for (const value of Object.values(headers)) look(value);
  eachString(body, look);
  return found;
}

/**
 * Replaces the references of a template by what they lead to.
 * @throws NoSuchReference for one that leads nowhere, or to an object where only text can be
 */
export function resolve(template: Template, answers: ReadonlyMap<string, Answer>): Template {
  const ledTo = (written: string): JsonValue => {
    const [, id = "", part = "", steps = ""] = oneReference.exec(written) ?? [];
    const answer = answers.get(id);
    if (!answer) throw new NoSuchReference(written, `no earlier operation is called ${id}`);
    const root = part === "body" ? answer.json : part === "headers" ? answer.headers : answer.status;
    const names = steps.split(".").slice(1);
    if (part === "headers") names.splice(0, 1, (names[0] ?? "").toLowerCase());
    const value = follow(root as JsonValue | undefined, names);
    if (value === undefined) throw new NoSuchReference(written, "the answer has nothing there");
    return value;
  };
  const textOf = (written: string): string => {
    const value = ledTo(written);
    if (value === null || typeof value === "object") {
      throw new NoSuchReference(written, "what is there cannot be part of a text");
    }
    return String(value);
  };
  return {
    path: template.path.replace(everyReference, (written) => encodeURIComponent(textOf(written))),
    headers: Object.fromEntries(
      Object.entries(template.headers).map(([name, value]) => [name, value.replace(everyReference, textOf)]),
    ),
    body: mapStrings(template.body, (text) =>
      oneReference.test(text) ? ledTo(text) : text.replace(everyReference, textOf),
    ),
  };
}

function follow(root: JsonValue | undefined, names: readonly string[]): JsonValue | undefined {
  let value = root;
  for (const name of names) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
    if (Array.isArray(value) && !/^\d+$/.test(name)) return undefined;
    value = (value as JsonObject)[name];
  }
  return value;
}

function eachString(json: JsonValue | undefined, look: (text: string) => void): void {
  if (typeof json === "string") look(json);
  else if (typeof json === "object" && json !== null) {
    for (const value of Object.values(json)) eachString(value, look);
  }
}

function mapStrings(json: JsonValue | undefined, map: (text: string) => JsonValue): JsonValue | undefined {
  if (typeof json === "string") return json.includes("{{") ? map(json) : json;
  if (typeof json !== "object" || json === null) return json;
  if (Array.isArray(json)) return json.map((each) => mapStrings(each, map) as JsonValue);
  // Not by assignment, which would lose the key "__proto__".
  return Object.fromEntries(
    Object.entries(json).map(([name, value]) => [name, mapStrings(value, map) as JsonValue]),
  );
}
