import { type DescField, type DescMessage, type DescMethod, getOption, hasOption } from "@bufbuild/protobuf";
import { http } from "#gen/google/api/annotations_pb.js";
import type { HttpRule } from "#gen/google/api/http_pb.js";
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

/** The bindings in the `google.api.http` annotation of a method, the additional ones after the first. */
export function rulesOf(method: DescMethod): Rule[] {
  if (!hasOption(method, http)) return [];
  const rule = getOption(method, http);
  return [rule, ...rule.additionalBindings].map((each) => {
    if (each !== rule && each.additionalBindings.length > 0) {
      throw new Error(`${nameOf(method)}: additional_bindings cannot be nested`);
    }
    return toRule(method, each);
  });
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
