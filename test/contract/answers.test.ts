import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { adminKey, startTestServer, type TestServer } from "#test/support/gateway.ts";
import { type OpenApi, readOpenApi } from "#test/support/openapi.ts";

// What the server answers is held against what its OpenAPI document says it answers.

let server: TestServer;
let openApi: OpenApi;
let device: string;

beforeAll(async () => {
  server = await startTestServer();
  openApi = readOpenApi(await (await fetch(`${server.url}/openapi.json`)).json());
  device = await server.createKey(Role.DEVICE);
});
afterAll(() => server.stop());

/** What a change of something that somebody else has changed since is answered with. */
const staleStatus = 412;

interface Asked {
  readonly key?: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
}

/** Calls, holds the answer against the document, and gives it. */
async function call(method: string, path: string, expected: number, asked: Asked = {}) {
  const { key = adminKey, body, headers = {} } = asked;
  const operation = openApi.operationOf(method, path);
  const answer = await fetch(server.url + path, {
    method,
    headers: {
      ...(key && { "x-api-key": key }),
      ...(body !== undefined && { "content-type": "application/json" }),
      ...headers,
    },
    ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  const type = answer.headers.get("content-type") ?? "";
  const json = text === "" ? undefined : type === "application/json" ? JSON.parse(text) : text;
  expect(`${answer.status} ${text}`).toMatch(new RegExp(`^${expected} `));
  if (type === "application/json" || type === "") {
    openApi.checkAnswer(operation, { status: answer.status, type, body: json });
  }
  // biome-ignore lint/suspicious/noExplicitAny: tests read what they sent
  return json as any;
}

const group = (deviceGroupId: string) =>
  call("POST", "/v3/resources", 201, {
    body: { deviceGroupId, name: "Dock", devices: [{ deviceId: `${deviceGroupId}-drone`, type: "DRONE" }] },
  });

it("takes the example of every request", async () => {
  await group("sandbox-dock-1");
  const { job } = await call("POST", "/v3/jobs/create", 201, {
    body: { name: "x", deviceGroupId: "sandbox-dock-1" },
  });
  const ids: Record<string, string> = {
    "{jobId}": job.jobId,
    "{deviceGroupId}": "sandbox-dock-1",
    "{dispatchId}": "dispatch-none",
  };
  const examples = openApi.operations.flatMap(({ method, path, json }) => {
    const example = json.requestBody?.content["application/json"]?.example;
    return example === undefined ? [] : [{ method, path, example }];
  });
  expect(examples.length).toBeGreaterThan(8);
  for (const { method, path, example } of examples) {
    const real = path.replaceAll(/\{\w+\}/g, (variable) => ids[variable] ?? "some-id");
    const answer = await fetch(server.url + real, {
      method,
      headers: { "content-type": "application/json", "x-api-key": adminKey },
      body: JSON.stringify(example),
    });
    // An example may name what is not there; its form must be right.
    const outcome = `${path} ${answer.status} ${await answer.text()}`;
    expect(outcome).not.toMatch(/^\S+ 5|VALIDATION_ERROR|MALFORMED_REQUEST|UNKNOWN_FIELD|invalid_request/);
  }
});

it("answers of jobs are as documented", async () => {
  await group("jobs-dock");
  const body = {
    name: "Survey",
    deviceGroupId: "jobs-dock",
    missionId: "m",
    scheduledAt: "2030-01-01T00:00:00Z",
    desiredLocation: { type: "Point", coordinates: [14.5, 46.04] },
    metadata: { any: ["thing", 1, null] },
  };
  const { job } = await call("POST", "/v3/jobs/create", 201, { body, headers: { "idempotency-key": "k" } });
  await call("POST", "/v3/jobs/create", 201, { body, headers: { "idempotency-key": "k" } });
  await call("POST", "/v3/jobs/create", 409, {
    body: { ...body, name: "Other" },
    headers: { "idempotency-key": "k" },
  });
  await call("GET", "/v3/jobs?limit=1&status=PENDING", 200);
  await call("GET", `/v3/jobs/${job.jobId}`, 200);
  await call("PATCH", `/v3/jobs/${job.jobId}`, 200, { body: { priority: 9 } });
  await call("PATCH", `/v3/jobs/${job.jobId}`, staleStatus, { body: { priority: 9, etag: "old" } });
  await call("PATCH", `/v3/jobs/${job.jobId}`, 412, {
    body: { priority: 9 },
    headers: { "if-match": '"old"' },
  });
  await call("POST", `/v3/jobs/${job.jobId}/cancel`, 200, { body: { reason: "Weather" } });
  await call("POST", `/v3/jobs/${job.jobId}/cancel`, 400, { body: {} });
  await call("DELETE", `/v3/jobs/${job.jobId}`, 200);
  await call("GET", `/v3/jobs/${job.jobId}`, 404);
  await call("GET", `/v3/jobs/${job.jobId}/status/ws`, 404);
  await call("POST", "/v3/jobs/create", 404, { body: { ...body, deviceGroupId: "none" } });
  await call("POST", "/v3/jobs/create", 503, { body: { ...body, requireOnline: true } });
});

it("an answer that the client has already is not sent again, as documented", async () => {
  const { headers } = await fetch(`${server.url}/v3/resources`, { headers: { "x-api-key": adminKey } });
  await call("GET", "/v3/resources", 304, { headers: { "if-none-match": headers.get("etag") ?? "" } });
});

it("answers of resources and telemetry are as documented", async () => {
  await group("streams-dock");
  await call("POST", "/v3/resources", 409, { body: { deviceGroupId: "streams-dock", name: "Again" } });
  await call("GET", "/v3/resources", 200);
  await call("GET", "/v3/resources/streams-dock", 200);
  await call("GET", "/v3/resources/none", 404);
  await call("PATCH", "/v3/resources/streams-dock", 200, { body: { name: "New" } });
  const sample = {
    droneState: "HOVER",
    navigation: { position: { coordinates: [14.5, 46.04, 300] }, orientation: { heading: 10 } },
    sensorPayload: { camera: { orientation: { pitch: -45, yaw: 0, roll: 0 } } },
    weather: { windSpeed: 3.5, rain: false },
  };
  await call("POST", "/v3/devices/streams-dock/telemetry", 202, { key: device, body: sample });
  await call("POST", "/v3/devices/none/telemetry", 404, { key: device, body: sample });
  await call("GET", "/v3/devices/streams-dock/telemetry", 200);
  await call("GET", "/v3/devices/none/telemetry", 404);
  await call("GET", "/v3/devices/none/status/ws", 404);
  await call("GET", "/prod?resourceId=none", 404);
  await call("DELETE", "/v3/resources/streams-dock", 200);
});

it("answers of shares are as documented", async () => {
  await group("shares-dock");
  const body = { resourceId: "shares-dock", permissions: ["view"], expiresIn: 60, pin: "1234" };
  const { share } = await call("POST", "/v3/streams/share", 201, { body });
  const at = `/v3/shares/${share.shareCode}`;
  await call("POST", "/v3/streams/share", 404, { body: { ...body, resourceId: "none" } });
  await call("GET", "/v3/shares", 200);
  await call("GET", at, 200);
  await call("GET", `${at}/resources`, 200, { key: "" });
  await call("GET", `${at}/sessions`, 200);
  await call("DELETE", `${at}/sessions/none`, 404);
  await call("GET", `${at}/status/ws`, 401, { key: "" });
  await call("GET", `${at}/status/ws?pin=9999`, 403, { key: "" });
  await call("DELETE", at, 200);
  await call("GET", at, 404);
});

it("answers of keys and tokens are as documented, each in its own dialect", async () => {
  const { apiKey, secret } = await call("POST", "/api/v1/api-keys", 201, {
    body: { name: "Partner", role: "pilot" },
  });
  await call("GET", "/api/v1/api-keys", 200);
  await call("GET", `/api/v1/api-keys/${apiKey.id}/usage`, 200);
  await call("GET", "/api/v1/api-keys/none/usage", 404);
  await call("POST", "/api/v1/api-keys", 400, { body: { name: "" } });
  const body = { grant_type: "client_credentials", client_id: apiKey.id, client_secret: secret };
  await call("POST", "/v3/auth/token", 200, { body, key: secret });
  await call("POST", "/v3/auth/token", 400, { body: { ...body, grant_type: "password" } });
  await call("POST", "/v3/auth/token", 401, { body: { ...body, client_secret: "wrong" } });
  await call("POST", "/v3/auth/token", 403, { body, key: "" });
  await call("GET", "/.well-known/jwks.json", 200, { key: "" });
  await call("DELETE", `/api/v1/api-keys/${apiKey.id}`, 204);
  await call("DELETE", "/api/v1/api-keys/none", 404);
});

it("what the gate and the transcoder refuse is as documented", async () => {
  await call("GET", "/v3/jobs", 401, { key: "" });
  await call("GET", "/v3/jobs", 401, { key: "sk_wrong" });
  await call("POST", "/v3/jobs/create", 403, { key: device, body: { name: "x", deviceGroupId: "x" } });
  await call("POST", "/v3/jobs/create", 400, { body: { name: "x", deviceGroupId: "" } });
  await call("POST", "/v3/jobs/create", 400, { body: { name: "x", deviceGroupId: "x", prio: 1 } });
  await call("POST", "/v3/jobs/create", 400, { body: "{" });
  await call("POST", "/v3/jobs/create", 415, { body: "x", headers: { "content-type": "text/plain" } });
  await call("POST", "/v3/jobs/create", 413, { body: { name: "x".repeat(5_000_000) } });
  await call("GET", "/v3/jobs?pageToken=x", 400);
  await call("GET", "/v3/jobs?nope=1", 400);
});

describe("a stream", () => {
  let path: string;
  let operation: string;

  beforeAll(async () => {
    await group("tracked-dock");
    const body = { name: "x", deviceGroupId: "tracked-dock", scheduledAt: "2030-01-01T00:00:00Z" };
    const { job } = await call("POST", "/v3/jobs/create", 201, { body });
    await call("POST", `/v3/jobs/${job.jobId}/cancel`, 200, { body: {} });
    path = `/v3/jobs/${job.jobId}/status/ws`;
    operation = openApi.operationOf("GET", path).path;
  });

  const follow = async (accept: string) => {
    const answer = await fetch(server.url + path, { headers: { accept, "x-api-key": adminKey } });
    const type = answer.headers.get("content-type") ?? "";
    const schema = ["paths", operation, "get", "responses", "200", "content", type, "schema"];
    return { type, text: await answer.text(), check: (value: unknown) => openApi.check(schema, value) };
  };

  it("of lines has the documented message on each", async () => {
    const { type, text, check } = await follow("application/x-ndjson");
    expect(type).toBe("application/x-ndjson");
    const lines = text.trim().split("\n");
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) check(JSON.parse(line));
  });

  it("of events has the documented message in each, up to the event that ends it", async () => {
    const { type, text, check } = await follow("text/event-stream");
    expect(type).toBe("text/event-stream");
    expect(text).toMatch(/event: end\ndata: \{\}\n\n$/);
    const data = [...text.matchAll(/^id: .*\ndata: (.*)$/gm)].map(([, json = ""]) => json);
    expect(data.length).toBeGreaterThan(0);
    for (const json of data) check(JSON.parse(json));
  });

  it("as one array is the documented array", async () => {
    const { type, text, check } = await follow("application/json");
    expect(type).toBe("application/json");
    expect(JSON.parse(text).length).toBeGreaterThan(0);
    check(JSON.parse(text));
  });
});
