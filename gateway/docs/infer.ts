import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** The day of all times in examples. */
const exampleDay = "2026-01-31";
const exampleTime = `${exampleDay}T12:00:00.000Z`;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

/**
 * The value with the present time, which error bodies and envelopes write, replaced by that of the
 * examples: documents must not change from one generation to the next.
 */
export function frozen(json: JsonValue): JsonValue {
  if (typeof json === "string") return TIME.test(json) && !json.startsWith(exampleDay) ? exampleTime : json;
  if (Array.isArray(json)) return json.map(frozen);
  if (typeof json !== "object" || json === null) return json;
  return Object.fromEntries(Object.entries(json).map(([name, value]) => [name, frozen(value)]));
}

/**
 * The JSON Schema that a function's results have, found from samples of them: what is in every sample
 * is required, and a boolean that never differs is constant. Objects may hold more. `known` gives the
 * schemas of values that stand for something else.
 */
export function inferSchema(
  samples: readonly JsonValue[],
  known: (value: JsonValue) => JsonObject | undefined = () => undefined,
): JsonObject {
  const [first] = samples;
  const schema = first === undefined ? undefined : known(first);
  if (schema) return schema;
  if (samples.every(isObject)) {
    const names = [...new Set(samples.flatMap((sample) => Object.keys(sample)))];
    const required = names.filter((name) => samples.every((sample) => name in sample));
    const properties = names.map((name) => {
      const values = samples.filter((sample) => name in sample).map((sample) => sample[name] as JsonValue);
      return [name, inferSchema(values, known)] as const;
    });
    return {
      type: "object",
      properties: Object.fromEntries(properties),
      ...(required.length > 0 && { required }),
    };
  }
  if (samples.every((sample) => Array.isArray(sample))) {
    const items = samples.flat();
    return { type: "array", items: items.length > 0 ? inferSchema(items, known) : {} };
  }
  if (samples.every((sample) => typeof sample === "string")) {
    return samples.every((sample) => TIME.test(sample))
      ? { type: "string", format: "date-time" }
      : { type: "string" };
  }
  if (samples.every((sample) => Number.isInteger(sample))) return { type: "integer" };
  if (samples.every((sample) => typeof sample === "number")) return { type: "number" };
  if (samples.every((sample) => typeof sample === "boolean"))
    return samples.every((sample) => sample === first)
      ? { type: "boolean", const: first as boolean }
      : { type: "boolean" };
  return {};
}

export function isObject(json: JsonValue): json is JsonObject {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}
