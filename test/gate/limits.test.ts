import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Load } from "#gateway/gate/admission/load.ts";
import { httpStatusOf } from "#gateway/rest/index.ts";
import { Health } from "#gen/grpc/health/v1/health_pb.js";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { TokenService } from "#gen/portolan/identity/v1/token_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { fail, type Reason } from "#kernel/errors.ts";
import { adminKey, get, startTestServer, type TestServer, until } from "../support/gateway.ts";
import { openWire, type Wire, type WireAnswer, type WireCall } from "../support/wire.ts";

/** Plans whose windows are so long that nothing comes back while a test runs. */
const plans = {
  three: { requests: 3, per: "day" },
  burst: { requests: 1000, per: "day", burst: 2 },
  two: { requests: 1000, per: "day", concurrency: 2 },
  wide: { requests: 100_000, per: "day" },
  anonymous: { requests: 100_000, per: "day" },
};

const group = "limits-dock";
const list = { method: JobService.method.listJobs, request: {} };
const track = { method: ResourceService.method.trackResource, request: { device_group_id: group } };

let folder: string;
let server: TestServer;
let wire: Wire;
let overloaded = false;
const load: Load = { overloaded: () => overloaded, enter() {}, leave() {} };

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "portolan-plans-"));
  writeFileSync(join(folder, "plans.json"), JSON.stringify(plans));
  server = await startTestServer({ PORTOLAN_PLANS: join(folder, "plans.json") }, load);
  wire = openWire(server.url);
  await createClient(ResourceService, server.grpc()).registerResource({ deviceGroupId: group, name: "Dock" });
});

afterAll(async () => {
  wire?.close();
  await server?.stop();
  rmSync(folder, { recursive: true });
});

async function newKey(plan: string, role = Role.MANAGER): Promise<Record<string, string>> {
  const made = await createClient(ApiKeyService, server.grpc()).createApiKey({ name: plan, role, plan });
  return { "x-api-key": made.secret };
}

const told = ({ headers }: WireAnswer) =>
  ["limit", "remaining", "window"].map((name) => Number(headers[`x-ratelimit-${name}`]));

/** Expects the refusal of a lane, with the time to wait. */
function expectRefusal(lane: string, answer: WireAnswer, reason: Reason, code: string): void {
  expect(answer.reason).toBe(reason);
  if (lane === "REST") expect(answer.httpStatus).toBe(httpStatusOf(fail(reason)));
  else expect(answer.code).toBe(code);
  expect(Number(answer.headers["retry-after"])).toBeGreaterThan(0);
}

const lanes = ["gRPC", "gRPC-Web", "Connect", "REST"] as const;

describe.each(lanes)("over %s", (lane) => {
  const call = (what: WireCall) => wire.lanes[lane](what);

  it("tells limit, remaining, reset and window on every answer, and refuses the next", async () => {
    const headers = await newKey("three");
    const began = Math.floor(Date.now() / 1000);
    const first = await call({ ...list, headers });
    expect(told(first)).toEqual([3, 2, 86_400]);
    const third = 86_400 / 3;
    const reset = Number(first.headers["x-ratelimit-reset"]);
    expect(reset).toBeGreaterThanOrEqual(began + third);
    expect(reset).toBeLessThanOrEqual(Math.ceil(Date.now() / 1000) + third);

    // An error and a stream count and tell as well.
    const missing = { method: JobService.method.getJob, request: { job_id: "none" }, headers };
    const failed = await call(missing);
    expect([failed.reason, ...told(failed)]).toEqual(["JOB_NOT_FOUND", 3, 1, 86_400]);
    expect(told(await call({ ...track, headers }))).toEqual([3, 0, 86_400]);

    const refused = await call({ ...list, headers });
    expectRefusal(lane, refused, "RATE_LIMITED", "RESOURCE_EXHAUSTED");
    expect(told(refused)).toEqual([3, 0, 86_400]);
    expect(Number(refused.headers["retry-after"])).toBeLessThanOrEqual(third);
    expectRefusal(lane, await call({ ...track, headers }), "RATE_LIMITED", "RESOURCE_EXHAUSTED");
  });

  it("counts a token and its key together, and what the caller may not do as well", async () => {
    const made = await createClient(ApiKeyService, server.grpc()).createApiKey({
      name: "token",
      role: Role.VIEWER,
      plan: "three",
    });
    const key = { "x-api-key": made.secret };
    const tokens = createClient(
      TokenService,
      createConnectTransport({
        baseUrl: server.url,
        httpVersion: "1.1",
        interceptors: [
          (next) => (request) => {
            request.header.set("x-api-key", made.secret);
            return next(request);
          },
        ],
      }),
    );
    const { accessToken } = await tokens.issueToken({
      grantType: "client_credentials",
      clientId: made.apiKey?.id ?? "",
      clientSecret: made.secret,
    });
    const token = { authorization: `Bearer ${accessToken}` };
    expect(told(await call({ ...list, headers: token }))[1]).toBe(2);
    expect(told(await call({ ...list, headers: key }))[1]).toBe(1);
    const create = { method: JobService.method.createJob, request: {} };
    const denied = await call({ ...create, headers: token });
    expect([denied.reason, told(denied)[1]]).toEqual(["INSUFFICIENT_PERMISSIONS", 0]);
    expect((await call({ ...create, headers: key })).reason).toBe("RATE_LIMITED");
  });

  it("keeps to the burst, below the requests of the window", async () => {
    const headers = await newKey("burst");
    expect(told(await call({ ...list, headers }))).toEqual([1000, 1, 86_400]);
    await call({ ...list, headers });
    expect((await call({ ...list, headers })).reason).toBe("RATE_LIMITED");
  });

  it("shows the tightest of plan and method, and lets neither be exceeded", async () => {
    const headers = await newKey("wide");
    const share = { method: ShareService.method.createShare, request: {}, headers };
    expect(told(await call(share))).toEqual([30, 29, 60]);
    let admitted = 1;
    const refused = await until(async () => {
      const answer = await call(share);
      if (answer.reason === "RATE_LIMITED") return answer;
      admitted++;
      return undefined;
    });
    expect(admitted).toBeGreaterThanOrEqual(30);
    expect(told(refused)).toEqual([30, 0, 60]);
    expect(told(await call({ ...list, headers }))[0]).toBe(100_000);
  });

  it("holds the administrator to nothing", async () => {
    const headers = { "x-api-key": adminKey };
    const create = { method: JobService.method.createJob, request: {}, headers };
    for (let i = 0; i < 80; i++) expect((await call(create)).reason).toBe("VALIDATION_ERROR");
    expect(told(await call(create))[0]).toBe(1_000_000_000);
  });

  it("tells the limit of the address to callers without a key", async () => {
    const share = { method: ShareService.method.listShareResources, request: { share_code: "none" } };
    expect(told(await call(share))[0]).toBe(120);
    expect(told(await call(list))[0]).toBe(100_000);
    const unreadable = await call({ ...list, headers: { "x-api-key": "sk_unknown" } });
    expect([unreadable.reason, told(unreadable)[0]]).toEqual(["INVALID_TOKEN", 100_000]);
  });

  it("opens no more streams than the plan allows, and a new one when one has ended", async () => {
    const headers = await newKey("two");
    const first = new AbortController();
    const second = new AbortController();
    for (const { signal } of [first, second]) {
      expect((await call({ ...track, headers, until: signal })).reason).toBe("");
    }
    const refused = await call({ ...track, headers });
    expectRefusal(lane, refused, "TOO_MANY_STREAMS", "RESOURCE_EXHAUSTED");
    expect((await call({ ...list, headers })).reason).toBe("");
    first.abort();
    const third = new AbortController();
    await until(async () => (await call({ ...track, headers, until: third.signal })).reason === "");
    // The end of one gave back one place, not two.
    expect((await call({ ...track, headers })).reason).toBe("TOO_MANY_STREAMS");
    second.abort();
    third.abort();
    await until(async () => (await call({ ...track, headers })).reason === "");
  });

  it("takes nothing new while overloaded, and lets streams and health live on", async () => {
    const headers = await newKey("three");
    const frames: unknown[] = [];
    const ending = new AbortController();
    const updates = createClient(ResourceService, server.grpc()).trackResource(
      { deviceGroupId: group },
      { signal: ending.signal },
    );
    const following = (async () => {
      for await (const update of updates) frames.push(update);
    })().catch(() => {});
    await until(() => frames.length > 0);
    overloaded = true;
    try {
      for (const what of [list, track]) {
        const refused = await call({ ...what, headers });
        expectRefusal(lane, refused, "OVERLOADED", "UNAVAILABLE");
        // It costs nothing.
        expect(told(refused)).toEqual([3, 3, 86_400]);
      }
      const seen = frames.length;
      await until(() => frames.length > seen);
      const health = await createClient(Health, server.grpc()).check({});
      expect([health.status, (await get(server, "/healthz")).status]).toEqual([1, 200]);
    } finally {
      overloaded = false;
      ending.abort();
    }
    await following;
    expect((await call({ ...list, headers })).reason).toBe("");
  });
});

it("admits a client stream once, however many messages it sends", async () => {
  const headers = await newKey("three", Role.DEVICE);
  const telemetry = createClient(TelemetryService, server.grpc(headers["x-api-key"]));
  const messages = async function* () {
    for (let i = 0; i < 10; i++) yield { deviceGroupId: group, sample: { batteryPercent: 50 } };
  };
  expect((await telemetry.publishTelemetry(messages())).accepted).toBe(10n);
  expect(told(await wire.lanes.REST({ ...list, headers }))).toEqual([3, 1, 86_400]);
});

it("limits the token endpoint by address: 100 at once, 50 in a second", async () => {
  const request: JsonObject = { grant_type: "password", client_id: "x", client_secret: "x" };
  const issue = { method: TokenService.method.issueToken, request };
  const answers = await Promise.all(Array.from({ length: 150 }, () => wire.lanes.gRPC(issue)));
  expect(answers.filter(({ reason }) => reason === "UNSUPPORTED_GRANT_TYPE").length).toBeGreaterThanOrEqual(
    100,
  );
  expect(told(answers[0] as WireAnswer).filter((_, i) => i !== 1)).toEqual([50, 1]);
});

it.each([
  ["an unknown path", "GET", "/v3/nothing", {}, 404],
  ["a method that the path does not take", "PUT", "/v3/jobs", {}, 405],
  ["a query that cannot be read", "GET", "/v3/jobs?a=%ff", {}, 400],
  ["a body that cannot be read", "POST", "/v3/jobs/create", { "content-type": "application/json" }, 400],
  [
    "an unknown RPC",
    "POST",
    "/portolan.jobs.v1.JobService/Nothing",
    { "content-type": "application/json" },
    404,
  ],
  [
    "an unknown RPC of gRPC",
    "POST",
    "/portolan.jobs.v1.JobService/Nothing",
    { "content-type": "application/grpc" },
    200,
  ],
  [
    "a content type of nobody",
    "POST",
    "/portolan.jobs.v1.JobService/GetJob",
    { "content-type": "text/plain" },
    415,
  ],
])("tells the limit on the answer to %s", async (_, method, path, headers, status) => {
  const answer = await fetch(server.url + path, {
    method,
    headers: { ...headers, "x-api-key": adminKey },
    ...(method === "POST" && { body: "{" }),
  });
  expect([answer.status, Number(answer.headers.get("x-ratelimit-limit"))]).toEqual([
    status,
    expect.any(Number),
  ]);
  for (const name of ["limit", "remaining", "reset", "window"]) {
    expect(answer.headers.get(`x-ratelimit-${name}`)).toMatch(/^\d+$/);
  }
});

it("gives keys that name no plan that of their role, and refuses a plan there is not", async () => {
  const keys = createClient(ApiKeyService, server.grpc());
  const planOf = async (role: Role) => (await keys.createApiKey({ name: "x", role })).apiKey?.plan;
  expect([await planOf(Role.VIEWER), await planOf(Role.DEVICE)]).toEqual(["default", "device"]);
  const create = {
    method: ApiKeyService.method.createApiKey,
    request: { name: "x", plan: "gold" },
    headers: { "x-api-key": adminKey },
  };
  for (const lane of lanes) expect((await wire.lanes[lane](create)).reason).toBe("UNKNOWN_PLAN");
});

it("lets administrators of other tenants give out no better plan than their own", async () => {
  const keys = createClient(ApiKeyService, server.grpc());
  const { secret } = await keys.createApiKey({
    name: "x",
    role: Role.ADMIN,
    tenantId: "other",
    plan: "wide",
  });
  const create = (plan: string) =>
    wire.lanes.gRPC({
      method: ApiKeyService.method.createApiKey,
      request: { name: "x", plan },
      headers: { "x-api-key": secret },
    });
  expect((await create("unlimited")).reason).toBe("INSUFFICIENT_PERMISSIONS");
  expect([(await create("wide")).reason, (await create("")).reason]).toEqual(["", ""]);
});
