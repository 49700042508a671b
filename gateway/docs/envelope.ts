import { create, type DescMethod, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import type { Dialect } from "../rest/index.ts";
import { inferSchema, isObject } from "./infer.ts";

/** Stands for the body in what an envelope makes of it. */
const HOLE = "\0body";

/** Makes the schema of a body, with the properties that an envelope puts beside the body's own. */
type BodySchema = (extra?: Record<string, JsonObject>) => JsonObject;

/** The schema of a method's responses, found by what the envelope of a dialect makes of a hole. */
export function envelopeSchema(dialect: Dialect, method: DescMethod, body: BodySchema): JsonObject {
  const probe = dialect.envelope?.({ [HOLE]: true }, create(method.output), method);
  return probe === undefined ? body() : filled(probe, body);
}

function filled(probe: JsonValue, body: BodySchema): JsonObject {
  if (!isObject(probe)) return inferSchema([probe]);
  const others = Object.entries(probe).filter(([name]) => name !== HOLE);
  if (HOLE in probe) {
    return body(Object.fromEntries(others.map(([name, value]) => [name, inferSchema([value])])));
  }
  return {
    type: "object",
    properties: Object.fromEntries(others.map(([name, value]) => [name, filled(value, body)])),
    required: others.map(([name]) => name),
  };
}
