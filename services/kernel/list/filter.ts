import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { FilterLimits } from "#gen/portolan/options/v1/list_pb.js";
import { fail } from "../errors.ts";
import { type ColumnValue, isText, type ListField, namesOf, readValue, WrongValue } from "./field.ts";

/** What a comparison does. */
export type Operator = "eq" | "ne" | "gt" | "gte" | "lt" | "lte" | "prefix" | "contains";

/** A filter, whichever way it was written. */
export type Filter =
  | { readonly kind: "and" | "or"; readonly terms: readonly Filter[] }
  | { readonly kind: "not"; readonly term: Filter }
  | {
      readonly kind: "compare";
      readonly field: string;
      readonly op: Operator;
      readonly value: ColumnValue;
    }
  | { readonly kind: "in"; readonly field: string; readonly values: readonly ColumnValue[] }
  | { readonly kind: "set"; readonly field: string; readonly set: boolean };

/** The limits of a filter, from the contract. */
export type Limits = Pick<FilterLimits, "maxTerms" | "maxDepth">;

const comparisons: ReadonlySet<string> = new Set([
  "eq",
  "ne",
  "gt",
  "gte",
  "lt",
  "lte",
  "prefix",
  "contains",
]);
const operators = [...comparisons, "in", "exists"].join(", ");

const isObject = (json: JsonValue): json is JsonObject =>
  typeof json === "object" && json !== null && !Array.isArray(json);

/**
 * Parses a JSON filter expression.
 * @returns undefined if there is nothing to filter by
 * @throws INVALID_FILTER naming the place that is at fault, for example `filter.or[1].priority.gte`
 */
export function parseFilter(
  text: string,
  fields: ReadonlyMap<string, ListField>,
  limits: Limits,
): Filter | undefined {
  if (text === "") return undefined;
  let json: JsonValue;
  try {
    json = JSON.parse(text) as JsonValue;
  } catch {
    throw invalid("filter", "is not valid JSON", "NOT_JSON");
  }
  return new Parser(fields, limits).object(json, "filter", 0);
}

/** The error of a filter at one place. */
function invalid(field: string, description: string, reason: string) {
  return fail("INVALID_FILTER", {
    message: `${field}: ${description}`,
    violations: [{ field, description, reason }],
  });
}

class Parser {
  readonly #fields: ReadonlyMap<string, ListField>;
  readonly #byName = new Map<string, ListField>();
  readonly #limits: Limits;
  #terms = 0;

  constructor(fields: ReadonlyMap<string, ListField>, limits: Limits) {
    this.#fields = fields;
    this.#limits = limits;
    for (const field of fields.values()) {
      for (const name of namesOf(field.desc)) this.#byName.set(name, field);
    }
  }

  /** The conjunction of an object's entries; undefined if it has none. */
  object(json: JsonValue, path: string, depth: number): Filter | undefined {
    if (!isObject(json)) throw invalid(path, "must be an object", "WRONG_TYPE");
    const terms = Object.entries(json).flatMap(([key, value]) => {
      const at = `${path}.${key}`;
      if (key === "and" || key === "or") return [this.#list(key, value, at, depth + 1)];
      if (key === "not") return [this.#not(value, at, depth + 1)];
      return this.#field(this.#named(key, at), value, at);
    });
    return terms.length > 1 ? { kind: "and", terms } : terms[0];
  }

  #list(kind: "and" | "or", json: JsonValue, path: string, depth: number): Filter {
    this.#demandDepth(depth, path);
    if (!Array.isArray(json) || json.length === 0) {
      throw invalid(path, "must be a list of at least one expression", "WRONG_TYPE");
    }
    const terms = json.map((each, index) => this.#filled(each, `${path}[${index}]`, depth));
    return { kind, terms };
  }

  #not(json: JsonValue, path: string, depth: number): Filter {
    this.#demandDepth(depth, path);
    return { kind: "not", term: this.#filled(json, path, depth) };
  }

  #filled(json: JsonValue, path: string, depth: number): Filter {
    const filter = this.object(json, path, depth);
    if (!filter) throw invalid(path, "must not be empty", "WRONG_TYPE");
    return filter;
  }

  #named(name: string, path: string): ListField {
    const field = this.#byName.get(name);
    if (field?.filter) return field;
    const known = [...this.#fields.values()].filter(({ filter }) => filter);
    const names = known.map(({ desc }) => desc.jsonName).join(", ");
    throw invalid(path, `cannot be filtered by; these can: ${names}`, "UNKNOWN_FIELD");
  }

  #field(field: ListField, json: JsonValue, path: string): Filter[] {
    if (json === null) return [this.#set(field, false, path)];
    if (Array.isArray(json)) return [this.#in(field, json, path)];
    if (!isObject(json)) return [this.#compare(field, "eq", json, path)];
    const conditions = Object.entries(json);
    if (conditions.length === 0) throw invalid(path, "must not be empty", "WRONG_TYPE");
    return conditions.map(([op, value]) => this.#condition(field, op, value, `${path}.${op}`));
  }

  #condition(field: ListField, op: string, json: JsonValue, path: string): Filter {
    if (op === "exists") {
      if (!/^(true|false)$/.test(String(json))) throw invalid(path, "must be true or false", "WRONG_TYPE");
      return this.#set(field, String(json) === "true", path);
    }
    // A query has no lists: there the values stand in one text, with commas between them.
    if (op === "in") return this.#in(field, typeof json === "string" ? json.split(",") : json, path);
    if (!comparisons.has(op)) {
      throw invalid(path, `is no operator; these are: ${operators}`, "UNKNOWN_OPERATOR");
    }
    if (json === null && (op === "eq" || op === "ne")) return this.#set(field, op === "ne", path);
    return this.#compare(field, op as Operator, json, path);
  }

  #compare(field: ListField, op: Operator, json: JsonValue, path: string): Filter {
    this.#count(1, path);
    if (op === "contains" && !field.search) throw invalid(path, "cannot be searched in", "UNKNOWN_OPERATOR");
    if (op === "prefix" && !isText(field)) throw invalid(path, "is for texts only", "UNKNOWN_OPERATOR");
    return { kind: "compare", field: field.path, op, value: this.#value(field, json, path) };
  }

  #in(field: ListField, json: JsonValue, path: string): Filter {
    if (!Array.isArray(json) || json.length === 0) {
      throw invalid(path, "must be a list of at least one value", "WRONG_TYPE");
    }
    this.#count(json.length, path);
    const values = json.map((each, index) => this.#value(field, each, `${path}[${index}]`));
    return { kind: "in", field: field.path, values };
  }

  #set(field: ListField, set: boolean, path: string): Filter {
    this.#count(1, path);
    return { kind: "set", field: field.path, set };
  }

  #value(field: ListField, json: JsonValue, path: string): ColumnValue {
    try {
      return readValue(field, json);
    } catch (error) {
      if (error instanceof WrongValue) throw invalid(path, `must be ${error.message}`, "WRONG_TYPE");
      throw error;
    }
  }

  #count(terms: number, path: string): void {
    this.#terms += terms;
    const { maxTerms } = this.#limits;
    if (this.#terms > maxTerms) throw invalid(path, `more than ${maxTerms} comparisons`, "TOO_MANY_TERMS");
  }

  #demandDepth(depth: number, path: string): void {
    const { maxDepth } = this.#limits;
    if (depth > maxDepth) throw invalid(path, `nested deeper than ${maxDepth} levels`, "TOO_DEEP");
  }
}
