import { Ajv2020 } from "ajv/dist/2020.js";
import { expect } from "vitest";

// biome-ignore lint/suspicious/noExplicitAny: documents are read as the JSON they are
type Json = any;

/** One operation of an OpenAPI document. */
export interface Operation {
  readonly path: string;
  /** Upper case. */
  readonly method: string;
  readonly json: Json;
}

/** An OpenAPI document to hold answers against. */
export interface OpenApi {
  readonly json: Json;
  readonly operations: readonly Operation[];
  /** The operation that a request is for; the test fails if there is none. */
  operationOf(method: string, path: string): Operation;
  /** Fails the test unless the value is of the schema at this place of the document. */
  check(pointer: readonly string[], value: unknown): void;
  /** Fails the test unless the operation documents this answer. */
  checkAnswer(operation: Operation, answer: { status: number; type: string; body: unknown }): void;
}

const isDateTime = (text: string) => /^\d{4}-\d\d-\d\dT/.test(text) && !Number.isNaN(Date.parse(text));

/** Reads a document so that objects may hold nothing but what it names, unless it says otherwise. */
export function readOpenApi(document: Json): OpenApi {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  ajv.addFormat("date-time", isDateTime);
  for (const format of ["int32", "int64", "float", "double"]) ajv.addFormat(format, true);
  ajv.addSchema(closed(document), "openapi");

  const operations = Object.entries<Json>(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, json]) => ({ path, method: method.toUpperCase(), json })),
  );
  const check: OpenApi["check"] = (pointer, value) => {
    const place = pointer.map((part) => part.replaceAll("~", "~0").replaceAll("/", "~1"));
    const fragment = place.map(encodeURIComponent).join("/");
    const validate = ajv.getSchema(`openapi#/${fragment}`);
    if (!validate) throw new Error(`nothing is at ${pointer.join(" ")}`);
    const errors = validate(value) ? [] : validate.errors;
    expect({ at: pointer.join(" "), errors, value }).toEqual({ at: pointer.join(" "), errors: [], value });
  };
  return {
    json: document,
    operations,
    check,
    operationOf(method, path) {
      const candidates = operations.filter((each) => each.method === method && matches(each.path, path));
      // What is literal goes before what is variable.
      const [first] = candidates.sort((a, b) => a.path.split("{").length - b.path.split("{").length);
      if (!first) throw new Error(`${method} ${path} is not documented`);
      return first;
    },
    checkAnswer({ path, method, json }, { status, type, body }) {
      const documented = json.responses[status];
      expect(
        documented,
        `${method} ${path} does not document ${status}: ${JSON.stringify(body)}`,
      ).toBeDefined();
      if (!documented.content) {
        expect(body).toBeUndefined();
        return;
      }
      expect(Object.keys(documented.content)).toContain(type);
      const place = ["paths", path, method.toLowerCase(), "responses", String(status), "content", type];
      check([...place, "schema"], body);
    },
  };
}

function matches(template: string, path: string): boolean {
  const parts = template.split("/");
  const actual = path.split("?", 1)[0]?.split("/") ?? [];
  return (
    parts.length === actual.length && parts.every((part, i) => part === actual[i] || part.startsWith("{"))
  );
}

/** A copy in which schemas of objects allow no other properties; error details are open by their nature. */
function closed(json: Json): Json {
  if (Array.isArray(json)) return json.map(closed);
  if (typeof json !== "object" || json === null) return json;
  const copy = Object.fromEntries(Object.entries(json).map(([key, value]) => [key, closed(value)]));
  const isOpen = "additionalProperties" in json || json.properties?.violations !== undefined;
  const isSchema = json.type === "object" && json.properties !== undefined;
  return isSchema && !isOpen ? { ...copy, additionalProperties: false } : copy;
}
