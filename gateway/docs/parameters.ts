import type { DescField, DescMessage, JsonObject } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { isHttpBody, isLeaf, parseTemplate, type Rule, variableFields } from "../rest/index.ts";
import { parameterExample } from "./examples.ts";
import type { Schemas } from "./schemas.ts";
import type { DocumentedSurface } from "./surface.ts";

/** The variables of a rule's path. */
export const variablesOf = (rule: Rule) => parseTemplate(rule.template).variables;

/** The path as OpenAPI writes it: variables in the spelling of the surface, without their patterns. */
export function openApiPath(rule: Rule, surface: DocumentedSurface): string {
  const { segments, variables, verb } = parseTemplate(rule.template);
  const parts: string[] = [];
  for (let at = 0; at < segments.length; at++) {
    const variable = variables.find(({ start }) => start === at);
    const segment = segments[at];
    if (variable) {
      parts.push(`{${nameOf(variableFields(rule.method, variable.field), surface)}}`);
      at = variable.end - 1;
    } else parts.push(segment?.kind === "literal" ? encodeURIComponent(segment.text) : "*");
  }
  return `/${parts.join("/")}${verb && `:${verb}`}`;
}

/** The parameters of a rule: of its path, of its query, and the header that resumes a stream. */
export function parametersOf(rule: Rule, surface: DocumentedSurface, schemas: Schemas): JsonObject[] {
  const bound = variablesOf(rule).map(({ field }) => field);
  const path = bound.map((variable) => {
    const fields = variableFields(rule.method, variable);
    return parameter("path", fields, true, surface, schemas);
  });
  return [...path, ...queryOf(rule, bound, surface, schemas), ...resumeHeader(rule)];
}

function queryOf(
  rule: Rule,
  bound: readonly string[],
  surface: DocumentedSurface,
  schemas: Schemas,
): JsonObject[] {
  const { body, method } = rule;
  if (body === "*") return [];
  const found: JsonObject[] = [];
  const visit = (message: DescMessage, above: readonly DescField[], isRequired: boolean): void => {
    for (const field of message.fields) {
      const fields = [...above, field];
      const dotted = fields.map(({ name }) => name).join(".");
      if (bound.includes(dotted) || dotted === body?.name) continue;
      const required = isRequired && schemas.required(message).has(field.name);
      if (isLeaf(field)) found.push(parameter("query", fields, required, surface, schemas));
      else if (field.fieldKind === "message" && !isHttpBody(field.message)) {
        // A message within itself would go on for ever.
        const isInside = fields.some(({ parent }) => parent === field.message);
        if (!isInside) visit(field.message, fields, required);
      }
    }
  };
  visit(method.input, [], true);
  return found;
}

function parameter(
  place: "path" | "query",
  fields: readonly DescField[],
  required: boolean,
  surface: DocumentedSurface,
  schemas: Schemas,
): JsonObject {
  const field = fields.at(-1) as DescField;
  const description = schemas.describe(field);
  return {
    name: nameOf(fields, surface),
    in: place,
    ...(description && { description }),
    ...(required && { required }),
    ...(field.fieldKind === "map" && { style: "deepObject", explode: true }),
    schema: schemas.field(field, "input", surface),
    // The explorer fills examples in: one for what may be left out would be in the way.
    ...(required && { example: parameterExample(field, surface) }),
  };
}

/** Streams that can be resumed take the last sequence from the header that EventSource sends. */
function resumeHeader({ method }: Rule): JsonObject[] {
  const resumes = method.input.fields.some(
    (field) => field.name === "after_sequence" && field.scalar === ScalarType.UINT64,
  );
  if (!resumes || method.methodKind !== "server_streaming") return [];
  return [
    {
      name: "Last-Event-ID",
      in: "header",
      description: "The id of the last event seen, as an EventSource sends it when it reconnects.",
      schema: { type: "string", pattern: "^[0-9]{1,20}$" },
    },
  ];
}

const nameOf = (fields: readonly DescField[], { spelling }: DocumentedSurface): string =>
  fields.map((field) => spelling.outputName(field)).join(".");
