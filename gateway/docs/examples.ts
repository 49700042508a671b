import {
  type DescField,
  type DescMessage,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Message,
  ScalarType,
} from "@bufbuild/protobuf";
import { enumOf, isWellKnown } from "../rest/index.ts";
import { elementRules, enumNumbers, exampleOf, keywordsOf, rulesOfField } from "./rules.ts";
import type { Schemas } from "./schemas.ts";
import type { DocumentedSurface } from "./surface.ts";

/**
 * What fields of these names hold in examples, in proto3 JSON, where the contract gives no example of
 * its own. Times, messages and other fields with presence that have no entry are left out of examples.
 */
const samples: Readonly<Record<string, JsonValue>> = {
  access_token: "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJrZXktYWRtaW4ifQ.c2lnbmF0dXJl",
  battery_percent: 81.5,
  client_id: "key-admin",
  client_secret: "sk_q1mV8eKx0aT3",
  coordinates: [14.50561, 46.0427, 292],
  count: 1,
  created_at: "2026-01-31T12:00:00Z",
  description: "Weekly survey of the roof",
  device_count: 2,
  device_group_id: "sandbox-dock-1",
  device_id: "sandbox-drone-1",
  dispatch_id: "dispatch-01a2008e-34bc-74d8-b18c-55a4846fbaa2",
  dock_state: "DOCK_STATE_TASK_INPROGRESS",
  drone_state: "DRONE_STATE_WAYPOINT",
  etag: "1",
  expires_at: "2026-01-31T13:00:00Z",
  expires_in: 3600,
  grant_type: "client_credentials",
  ground_speed: 8.2,
  heading: 92.5,
  humidity: 64,
  id: "key_01a2008e34bc74d8b18c55a4846fbaa3",
  job_id: "job-01a2008e-34bc-74d8-b18c-55a4846fbaa1",
  job_state: "JOB_STATE_INPROGRESS",
  kind: "TRACK_KIND_STATE",
  last_seen_at: "2026-01-31T12:00:00Z",
  last_used_at: "2026-01-31T12:00:00Z",
  max_duration: "7200s",
  mission_id: "survey-1",
  name: "First flight",
  online: true,
  permissions: ["view"],
  pitch: -2.5,
  prefix: "sk_q1mV",
  priority: 5,
  progress: 42,
  rain: false,
  queue_timeout: "3600s",
  received_at: "2026-01-31T12:00:00Z",
  remote_address: "198.51.100.7",
  resource_id: "sandbox-dock-1",
  role: "ROLE_PILOT",
  roll: 0.5,
  scope: "jobs:read jobs:write resources:read",
  secret: "sk_q1mV8eKx0aT3",
  sequence: "1769860800000000",
  session_id: "session-01a2008e-34bc-74d8-b18c-55a4846fbaa4",
  share_code: "share-01a2008e34bc74d8b18c55a4846fbaa5",
  share_url: "http://127.0.0.1:8080/v3/shares/share-01a2008e34bc74d8b18c55a4846fbaa5/status/ws",
  subject: "job-01a2008e-34bc-74d8-b18c-55a4846fbaa1",
  temperature: 12.5,
  tenant_id: "default",
  timestamp: "2026-01-31T12:00:00Z",
  token_type: "Bearer",
  type: "Point",
  updated_at: "2026-01-31T12:00:00Z",
  user_agent: "curl/8.14.1",
  vertical_speed: -0.4,
  wind_direction: 270,
  wind_speed: 4.1,
  yaw: 15,
  "ApiKey.name": "Partner",
  "Device.name": "Drone",
  "Job.progress": 0,
  "JsonWebKey.alg": "RS256",
  "JsonWebKey.e": "AQAB",
  "JsonWebKey.kty": "RSA",
  "JsonWebKey.kid": "2026-01",
  "JsonWebKey.n": "u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0",
  "JsonWebKey.use": "sig",
  "DeleteJobResponse.message": "Job deleted successfully",
  "DeleteResourceResponse.message": "Resource deleted successfully",
  "GetApiKeyUsageResponse.call_count": "1234",
  "JobLinks.self": "/v3/jobs/job-01a2008e-34bc-74d8-b18c-55a4846fbaa1",
  "JobLinks.status": "/v3/jobs/job-01a2008e-34bc-74d8-b18c-55a4846fbaa1/status/ws",
  "JobLinks.status_mqtt": "job-01a2008e-34bc-74d8-b18c-55a4846fbaa1/JOB/STATUS",
  "ListShareResourcesResponse.resources": ["sandbox-dock-1"],
  "Resource.description": "On the roof of the depot",
  "Resource.name": "Ljubljana",
  "RevokeShareResponse.message": "Share revoked successfully",
  "RevokeShareSessionResponse.message": "Session ended",
  "ShareSession.started_at": "2026-01-31T12:00:00Z",
};

const sampleOf = (field: DescField): JsonValue | undefined =>
  samples[`${field.parent.name}.${field.name}`] ?? samples[field.name];

/**
 * The example of a request, as a surface spells it: what cannot be left out, and what the contract gives
 * an example of by buf.validate.
 */
export function requestExample(
  desc: DescMessage,
  schemas: Schemas,
  surface: DocumentedSurface,
  omit: readonly string[] = [],
): JsonObject {
  const json: JsonObject = {};
  const required = schemas.required(desc);
  for (const field of desc.fields) {
    if (omit.includes(field.name)) continue;
    const given = givenExample(field);
    if (given === undefined && !required.has(field.name)) continue;
    const one = given ?? inputValue(field, schemas, surface);
    const spelled = spellEnum(field, one, surface);
    json[surface.spelling.outputName(field)] =
      field.fieldKind === "list" && !Array.isArray(spelled) ? [spelled] : spelled;
  }
  return json;
}

/** The example of a parameter, as a surface spells it. */
export function parameterExample(field: DescField, surface: DocumentedSurface): JsonValue {
  const one = spellEnum(field, givenExample(field) ?? leafValue(field), surface);
  return field.fieldKind === "list" && !Array.isArray(one) ? [one] : one;
}

/** The example of a response. */
export function responseExample(desc: DescMessage): Message {
  return fromJson(desc, outputJson(desc, []));
}

function givenExample(field: DescField): JsonValue | undefined {
  const rules = rulesOfField(field);
  return exampleOf(elementRules(rules)) ?? exampleOf(rules);
}

function inputValue(field: DescField, schemas: Schemas, surface: DocumentedSurface): JsonValue {
  const isMessage = field.message && !isWellKnown(field.message);
  return isMessage ? requestExample(field.message, schemas, surface) : leafValue(field);
}

function leafValue(field: DescField): JsonValue {
  const rules = rulesOfField(field);
  const allowed = enumNumbers(rules)?.find((number) => number !== 0);
  if (allowed !== undefined) return allowed;
  const keywords = keywordsOf(rules);
  const candidates = [sampleOf(field), ...listed(keywords.enum), texts[String(keywords.format)], "example"];
  const found = field.scalar === ScalarType.STRING && candidates.find((text) => fits(text, keywords));
  return found || sampleOf(field) || plainValue(field);
}

/** Texts of the formats that rules may ask for. */
const texts: Readonly<Record<string, string>> = {
  email: "someone@example.com",
  hostname: "example.com",
  ipv4: "198.51.100.7",
  ipv6: "2001:db8::7",
  uri: "https://example.com/hook",
  "uri-reference": "/hook",
  uuid: "01a2008e-34bc-74d8-b18c-55a4846fbaa1",
};

const listed = (values: JsonValue | undefined): readonly JsonValue[] => (Array.isArray(values) ? values : []);

/** Whether a text keeps rules that are known as JSON Schema keywords; one of another format never does. */
function fits(text: JsonValue | undefined, { enum: among, format, pattern }: JsonObject): boolean {
  if (typeof text !== "string" || text === "") return false;
  if (Array.isArray(among) && !among.includes(text)) return false;
  if (typeof format === "string" && texts[format] !== text) return false;
  return typeof pattern !== "string" || new RegExp(pattern).test(text);
}

/** Spells an enum value that is given by its number or its canonical name. */
function spellEnum(field: DescField, value: JsonValue, { spelling }: DocumentedSurface): JsonValue {
  const desc = enumOf(field)?.values.find(({ name, number }) => name === value || number === value);
  if (!desc) return value;
  return spelling.plan(field.parent).fields.get(field.name)?.enum?.write(desc.jsonName) ?? desc.name;
}

function outputJson(desc: DescMessage, above: readonly DescMessage[]): JsonObject {
  const json: JsonObject = {};
  for (const field of desc.fields) {
    const value = outputField(field, above);
    if (value !== undefined) json[field.jsonName] = value;
  }
  return json;
}

function outputField(field: DescField, above: readonly DescMessage[]): JsonValue | undefined {
  const sample = sampleOf(field);
  const { message } = field;
  if (message && !isWellKnown(message)) {
    if (field.fieldKind === "map" || above.includes(message)) return undefined;
    const one = outputJson(message, [...above, field.parent]);
    return field.fieldKind === "list" ? [one] : one;
  }
  if (field.enum && field.fieldKind === "enum") {
    const fits = field.enum.values.some((value) => value.name === sample);
    return fits ? sample : field.enum.values[1]?.name;
  }
  return fitsKind(field, sample) ? sample : undefined;
}

/** Whether a sample, found by the field's name alone, can be a value of the field. */
function fitsKind(field: DescField, sample: JsonValue | undefined): boolean {
  if (sample === undefined) return false;
  try {
    fromJson(field.parent, { [field.jsonName]: sample });
    return true;
  } catch {
    return false;
  }
}

function plainValue(field: DescField): JsonValue {
  if (field.enum) return field.enum.values[1]?.name ?? 0;
  switch (field.scalar) {
    case undefined:
    case ScalarType.STRING:
      return "example";
    case ScalarType.BYTES:
      return "AAEC";
    case ScalarType.BOOL:
      return true;
    default:
      return 1;
  }
}
