import {
  create,
  type DescField,
  type DescMessage,
  type JsonObject,
  type JsonValue,
  type Message,
} from "@bufbuild/protobuf";
import type { Dialect, Rule } from "../rest/index.ts";
import { inferSchema, isObject } from "./infer.ts";

/** The request id of examples. */
export const exampleRequestId = "3f1a2c4e-8b7d-4f60-9a51-0c2e7d9b6a14";

/** Is in a body, and so in what an envelope makes of the body by putting its own beside. */
const SPREAD = "\0body";

/** Makes the schemas of what envelopes wrap. */
export interface Wrapped {
  /** That of the body, with the properties that an envelope puts beside the body's own. */
  body(extra?: Record<string, JsonObject>): JsonObject;
  /** That of one field of the body. */
  field(field: DescField): JsonObject;
  /** The name of a field in the body. */
  nameOf(field: DescField): string;
}

/**
 * The schema of a binding's responses: what the dialect's envelope makes of a body of marked parts is
 * read like any JSON, and the parts have the schemas that they stand for. What it makes of an empty
 * response as well as of the example must be there.
 */
export function envelopeSchema(dialect: Dialect, rule: Rule, example: Message, of: Wrapped): JsonObject {
  const { envelope } = dialect;
  const { method, responseBody } = rule;
  if (!envelope) return of.body();
  const marks = new Map<JsonValue, () => JsonObject>();
  const probe = probeOf(responseBody, method.output, marks, of);
  marks.set(probe, () => of.body());
  const schemaOf = (value: JsonValue): JsonObject | undefined => {
    const marked = marks.get(value)?.();
    if (marked || !isObject(value) || !(SPREAD in value)) return marked;
    const own = Object.entries(value).filter(([name]) => !(name in (probe as JsonObject)));
    return of.body(Object.fromEntries(own.map(([name, each]) => [name, inferSchema([each], schemaOf)])));
  };
  const responses = [example, create(method.output)];
  return inferSchema(
    responses.map((response) =>
      envelope.call(dialect, probe, response, method, { requestId: exampleRequestId }),
    ),
    schemaOf,
  );
}

/** A body whose messages, lists and maps can be told again. */
function probeOf(
  responseBody: DescField | undefined,
  output: DescMessage,
  marks: Map<JsonValue, () => JsonObject>,
  { field: schemaOf, nameOf }: Wrapped,
): JsonValue {
  if (responseBody?.fieldKind === "list") return [];
  const parts = (responseBody?.message ?? output).fields.map((field) => {
    const part: JsonValue = field.fieldKind === "list" ? [] : {};
    marks.set(part, () => schemaOf(field));
    return [nameOf(field), part] as const;
  });
  return { [SPREAD]: true, ...Object.fromEntries(parts) };
}
