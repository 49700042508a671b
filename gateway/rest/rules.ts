import {
  create,
  type DescField,
  type DescMessage,
  type DescMethod,
  getOption,
  hasOption,
  type MessageInitShape,
} from "@bufbuild/protobuf";
import { http } from "#gen/google/api/annotations_pb.js";
import { type HttpRule, HttpSchema } from "#gen/google/api/http_pb.js";
import { isLeaf } from "./fields.ts";

/** One HTTP binding of a method, its fields looked up. */
export interface Rule {
  readonly method: DescMethod;
  /** Upper case; `*` stands for any. */
  readonly httpMethod: string;
  readonly template: string;
  /** The request field that the body holds, `*` for the whole request, undefined for no body. */
  readonly body: DescField | "*" | undefined;
  /** The response field that the body is, undefined for the whole response. */
  readonly responseBody: DescField | undefined;
}

/**
 * The bindings of a method, the additional ones after the first: those of its `google.api.http`
 * annotation, unless a rule is given. Throws if one is not valid.
 */
export function rulesOf(method: DescMethod, override?: HttpRule): Rule[] {
  if (!override && !hasOption(method, http)) return [];
  const rule = override ?? getOption(method, http);
  return [rule, ...rule.additionalBindings].map((each) => {
    if (each !== rule && each.additionalBindings.length > 0) {
      throw new Error(`${nameOf(method)}: additional_bindings cannot be nested`);
    }
    return toRule(method, each);
  });
}

/**
 * The rules of a service configuration, as `google.api.Http` has them. A selector is the full name of a
 * method, or its beginning with `.*`, or `*`; several are separated by commas. The last rule that selects
 * a method takes the place of its annotation.
 */
export class ServiceConfig {
  readonly #rules: readonly { rule: HttpRule; selectors: readonly string[] }[];

  constructor(config: MessageInitShape<typeof HttpSchema>) {
    this.#rules = create(HttpSchema, config).rules.map((rule) => ({
      rule,
      selectors: rule.selector.split(",").map((selector) => selector.trim()),
    }));
    for (const { selectors } of this.#rules) {
      const wrong = selectors.find((selector) => !SELECTOR.test(selector));
      if (wrong !== undefined) throw new Error(`"${wrong}" is not a selector of methods`);
    }
  }

  /** The rule of a method. */
  ruleFor(method: DescMethod): HttpRule | undefined {
    return this.#rules.findLast(({ selectors }) => selectors.some((s) => selects(s, method)))?.rule;
  }

  /** Throws if a selector selects none of the methods, which is a slip of the pen. */
  requireUse(methods: readonly DescMethod[]): void {
    for (const selector of this.#rules.flatMap(({ selectors }) => selectors)) {
      if (!methods.some((method) => selects(selector, method))) {
        throw new Error(`the selector "${selector}" selects no method`);
      }
    }
  }
}

const SELECTOR = /^(?:\*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\.\*)?)$/;

function selects(selector: string, method: DescMethod): boolean {
  const name = nameOf(method);
  return selector.endsWith("*") ? name.startsWith(selector.slice(0, -1)) : name === selector;
}

function toRule(method: DescMethod, rule: HttpRule): Rule {
  const { pattern } = rule;
  if (pattern.case === undefined) throw new Error(`${nameOf(method)}: an HTTP rule has no path`);
  const [kind, template] =
    pattern.case === "custom" ? [pattern.value.kind, pattern.value.path] : [pattern.case, pattern.value];
  if (!/^(\*|[A-Za-z][A-Za-z-]*)$/.test(kind)) {
    throw new Error(`${nameOf(method)}: "${kind}" is not an HTTP method`);
  }
  return {
    method,
    httpMethod: kind.toUpperCase(),
    template,
    body: rule.body === "*" ? "*" : topLevel(method, method.input, rule.body, "body"),
    responseBody: topLevel(method, method.output, rule.responseBody, "response_body"),
  };
}

function topLevel(method: DescMethod, message: DescMessage, name: string, what: string) {
  if (name === "") return undefined;
  const field = message.fields.find((f) => f.name === name);
  if (!field) throw new Error(`${nameOf(method)}: ${what} "${name}" is not a field of ${message.typeName}`);
  return field;
}

/** The fields that a template variable names, outermost first. Throws if it cannot be bound. */
export function variableFields(method: DescMethod, path: string): DescField[] {
  const fields: DescField[] = [];
  let message: DescMessage | undefined = method.input;
  for (const name of path.split(".")) {
    const field: DescField | undefined = message?.fields.find((f) => f.name === name);
    if (!field) throw new Error(`${nameOf(method)}: "${path}" is not a field of ${method.input.typeName}`);
    if (field.fieldKind === "list" || field.fieldKind === "map") {
      throw new Error(`${nameOf(method)}: "${path}" cannot be in a path: ${name} is repeated`);
    }
    fields.push(field);
    message = field.fieldKind === "message" && !isLeaf(field) ? field.message : undefined;
  }
  if (message) throw new Error(`${nameOf(method)}: "${path}" cannot be in a path: it is a message`);
  return fields;
}

/** The full name of a method, as error messages give it. */
export function nameOf(method: DescMethod): string {
  return `${method.parent.typeName}.${method.name}`;
}
