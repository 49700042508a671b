import { createClient } from "@connectrpc/connect";
import { importJWK, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { identityStore } from "#services/identity/store.ts";
import { type Device, startDevice } from "../support/device.ts";
import { adminKey, startTestServer, type TestServer } from "../support/gateway.ts";
import { type Attempt, lanes } from "../support/lanes.ts";

const dock = "errors-dock";
const admin = { "x-api-key": adminKey };

/** What the cases need, made before they run. */
interface Scene {
  readonly openJob: string;
  readonly cancelledJob: string;
  readonly viewer: string;
  readonly stranger: string;
  readonly expiredKey: string;
  readonly expiredToken: string;
  readonly foreignToken: string;
}

interface Case {
  readonly name: string;
  readonly attempt: (scene: Scene) => Attempt;
  readonly code: string;
  readonly httpStatus: number;
  /** Connect gives each code a status of its own, which is not always that of REST. */
  readonly connectStatus?: number;
  readonly reason: string;
  readonly fields?: string[];
  readonly restFields?: string[];
  readonly metadata?: Record<string, string>;
  readonly message?: string;
}

const service = "portolan.jobs.v1.JobService";
const job = { name: "Survey", deviceGroupId: dock, scheduledAt: "2099-01-01T00:00:00Z" };

const create = (body: unknown, headers: Record<string, string> = admin): Attempt => ({
  method: `${service}/CreateJob`,
  rest: { verb: "POST", path: "/v3/jobs/create" },
  body,
  headers,
});
const read = (jobId: string, headers: Record<string, string> = admin): Attempt => ({
  method: `${service}/GetJob`,
  rest: { verb: "GET", path: "/v3/jobs/{jobId}" },
  body: { jobId },
  headers,
});

/** REST names the body as a whole by the empty path. */
const bodyItself = [""];

const cases: Case[] = [
  {
    name: "an unknown field",
    attempt: () => create({ ...job, colour: "red" }),
    code: "INVALID_ARGUMENT",
    httpStatus: 400,
    reason: "UNKNOWN_FIELD",
    fields: ["colour"],
  },
  {
    name: "a value of the wrong type",
    attempt: () => create({ ...job, priority: "urgent" }),
    code: "INVALID_ARGUMENT",
    httpStatus: 400,
    reason: "MALFORMED_REQUEST",
    fields: ["priority"],
  },
  {
    name: "JSON that does not parse",
    attempt: () => create('{"name": "Survey", '),
    code: "INVALID_ARGUMENT",
    httpStatus: 400,
    reason: "MALFORMED_REQUEST",
    restFields: bodyItself,
  },
  {
    name: "a body that is no object",
    attempt: () => create("[1, 2, 3]"),
    code: "INVALID_ARGUMENT",
    httpStatus: 400,
    reason: "MALFORMED_REQUEST",
    restFields: bodyItself,
  },
  {
    name: "a body above 4 MiB",
    attempt: () => create({ ...job, description: "x".repeat(4 * 1024 * 1024) }),
    code: "RESOURCE_EXHAUSTED",
    httpStatus: 413,
    connectStatus: 429,
    reason: "MESSAGE_TOO_LARGE",
    metadata: { limit_bytes: String(4 * 1024 * 1024) },
  },
  {
    name: "a broken rule of the contract",
    attempt: () => create({ ...job, priority: 11 }),
    code: "INVALID_ARGUMENT",
    httpStatus: 400,
    reason: "VALIDATION_ERROR",
    fields: ["priority"],
  },
  {
    name: "a broken rule in a nested field",
    attempt: () =>
      create({
        ...job,
        actionOnArrival: "ACTION_ON_ARRIVAL_HOVER",
        desiredLocation: { type: "Point", coordinates: [200, 46] },
      }),
    code: "INVALID_ARGUMENT",
    httpStatus: 400,
    reason: "VALIDATION_ERROR",
    fields: ["desired_location.coordinates"],
    restFields: ["desiredLocation.coordinates"],
  },
  {
    name: "missing credentials",
    attempt: ({ openJob }) => read(openJob, {}),
    code: "UNAUTHENTICATED",
    httpStatus: 401,
    reason: "MISSING_CREDENTIALS",
  },
  {
    name: "an unknown API key",
    attempt: ({ openJob }) => read(openJob, { "x-api-key": "sk_unknown" }),
    code: "UNAUTHENTICATED",
    httpStatus: 401,
    reason: "INVALID_TOKEN",
  },
  {
    name: "a token that is no token",
    attempt: ({ openJob }) => read(openJob, { authorization: "Bearer a.b.c" }),
    code: "UNAUTHENTICATED",
    httpStatus: 401,
    reason: "INVALID_TOKEN",
  },
  {
    name: "a token of another signer",
    attempt: ({ openJob, foreignToken }) => read(openJob, { authorization: `Bearer ${foreignToken}` }),
    code: "UNAUTHENTICATED",
    httpStatus: 401,
    reason: "INVALID_TOKEN",
  },
  {
    name: "an expired token",
    attempt: ({ openJob, expiredToken }) => read(openJob, { authorization: `Bearer ${expiredToken}` }),
    code: "UNAUTHENTICATED",
    httpStatus: 401,
    reason: "TOKEN_EXPIRED",
  },
  {
    name: "an expired API key",
    attempt: ({ openJob, expiredKey }) => read(openJob, { "x-api-key": expiredKey }),
    code: "UNAUTHENTICATED",
    httpStatus: 401,
    reason: "TOKEN_EXPIRED",
  },
  {
    name: "a role that may not",
    attempt: ({ viewer }) => create(job, { "x-api-key": viewer }),
    code: "PERMISSION_DENIED",
    httpStatus: 403,
    reason: "INSUFFICIENT_PERMISSIONS",
    metadata: { permission: "jobs:write" },
  },
  {
    name: "a job of another tenant, which does not exist for the caller",
    attempt: ({ openJob, stranger }) => read(openJob, { "x-api-key": stranger }),
    code: "NOT_FOUND",
    httpStatus: 404,
    reason: "JOB_NOT_FOUND",
    message: "Job not found",
  },
  {
    name: "a device group of another tenant",
    attempt: ({ stranger }) => create(job, { "x-api-key": stranger }),
    code: "NOT_FOUND",
    httpStatus: 404,
    reason: "DEVICE_GROUP_NOT_FOUND",
    message: "Device group not found",
  },
  {
    name: "the cancellation of a job that has ended",
    attempt: ({ cancelledJob }) => ({
      method: `${service}/CancelJob`,
      rest: { verb: "POST", path: "/v3/jobs/{jobId}/cancel" },
      body: { jobId: cancelledJob },
      headers: admin,
    }),
    code: "FAILED_PRECONDITION",
    httpStatus: 400,
    reason: "JOB_NOT_CANCELLABLE",
    metadata: { state: "CANCELLED" },
    message: "Cannot cancel job",
  },
  {
    name: "the change of a job that has ended",
    attempt: ({ cancelledJob }) => ({
      method: `${service}/UpdateJob`,
      rest: { verb: "PATCH", path: "/v3/jobs/{jobId}" },
      body: { jobId: cancelledJob, name: "New" },
      headers: admin,
    }),
    code: "FAILED_PRECONDITION",
    httpStatus: 400,
    reason: "ILLEGAL_JOB_STATE",
    metadata: { state: "CANCELLED" },
  },
  {
    name: "an altered page token",
    attempt: () => ({
      method: `${service}/ListJobs`,
      rest: { verb: "GET", path: "/v3/jobs?page_token={pageToken}" },
      body: { pageToken: "altered" },
      headers: admin,
    }),
    code: "INVALID_ARGUMENT",
    httpStatus: 400,
    reason: "INVALID_PAGE_TOKEN",
  },
  {
    name: "a filter by a field that is not listable",
    attempt: () => ({
      method: `${service}/ListJobs`,
      rest: { verb: "GET", path: "/v3/jobs?filter={filter}" },
      body: { filter: '{"or":[{"name":"a"},{"progress":1}]}' },
      headers: admin,
    }),
    code: "INVALID_ARGUMENT",
    httpStatus: 400,
    reason: "INVALID_FILTER",
    fields: ["filter.or[1].progress"],
  },
  {
    name: "an order that the list does not have",
    attempt: () => ({
      method: `${service}/ListJobs`,
      rest: { verb: "GET", path: "/v3/jobs?sort={sort}" },
      body: { sort: "-name,progress" },
      headers: admin,
    }),
    code: "INVALID_ARGUMENT",
    httpStatus: 400,
    reason: "INVALID_SORT",
    fields: ["sort"],
  },
  {
    name: "fields that the resource does not have",
    attempt: ({ openJob }) => ({
      method: `${service}/GetJob`,
      rest: { verb: "GET", path: "/v3/jobs/{jobId}?fields={fields}" },
      body: { jobId: openJob, fields: "name,colour" },
      headers: admin,
    }),
    code: "INVALID_ARGUMENT",
    httpStatus: 400,
    reason: "INVALID_FIELD_MASK",
    fields: ["fields"],
    metadata: { path: "colour" },
  },
  {
    name: "a change of what somebody else has changed",
    attempt: ({ openJob }) => ({
      method: `${service}/UpdateJob`,
      rest: { verb: "PATCH", path: "/v3/jobs/{jobId}" },
      body: { jobId: openJob, name: "New", etag: "0" },
      headers: admin,
    }),
    code: "ABORTED",
    httpStatus: 412,
    connectStatus: 409,
    reason: "ETAG_MISMATCH",
  },
];

let server: TestServer;
let device: Device;
let scene: Scene;

beforeAll(async () => {
  server = await startTestServer();
  device = await startDevice(server.grpc(), dock);
  const jobs = createClient(JobService, server.grpc());
  const keys = createClient(ApiKeyService, server.grpc());
  const later = { seconds: 4_000_000_000n };
  const newJob = async () => {
    const created = await jobs.createJob({ name: "Survey", deviceGroupId: dock, scheduledAt: later });
    return created.job?.jobId ?? "";
  };
  const cancelledJob = await newJob();
  await jobs.cancelJob({ jobId: cancelledJob });

  const expiresAtMs = Date.now() + 5_000;
  const expiresAt = { seconds: BigInt(Math.floor(expiresAtMs / 1000)), nanos: 0 };
  const { secret: expiredKey } = await keys.createApiKey({ name: "short", role: Role.VIEWER, expiresAt });
  const [signing] = await identityStore(server.kernel.database.read).signingKeys();
  const { kid, private_jwk } = signing as { kid: string; private_jwk: string };
  const sign = async (jwk: object, expiration: number) =>
    new SignJWT({})
      .setProtectedHeader({ alg: "RS256", kid })
      .setSubject("key-admin")
      .setIssuer("portolan")
      .setAudience("portolan")
      .setIssuedAt(expiration - 3600)
      .setExpirationTime(expiration)
      .sign(await importJWK(jwk, "RS256"));
  const now = Math.floor(Date.now() / 1000);
  const pair = await crypto.subtle.generateKey(
    {
      name: "RSASSA-PKCS1-v1_5",
      modulusLength: 2048,
      publicExponent: new Uint8Array([1, 0, 1]),
      hash: "SHA-256",
    },
    true,
    ["sign", "verify"],
  );
  scene = {
    openJob: await newJob(),
    cancelledJob,
    viewer: await server.createKey(Role.VIEWER),
    stranger: await server.createKey(Role.MANAGER, "elsewhere"),
    expiredKey,
    expiredToken: await sign(JSON.parse(private_jwk), now - 60),
    foreignToken: await sign(await crypto.subtle.exportKey("jwk", pair.privateKey), now + 3600),
  };
  while (Date.now() <= expiresAtMs) await new Promise((resolve) => setTimeout(resolve, 100));
});

afterAll(async () => {
  await device?.stop();
  await server?.stop();
});

describe.each(Object.entries(lanes))("over %s", (lane, call) => {
  it.each(cases)("$name is told with code, reason, fields and request id", async (expected) => {
    const requestId = `errors-${lane.replaceAll(" ", "-")}`;
    const attempt = expected.attempt(scene);
    const outcome = await call(server, {
      ...attempt,
      headers: { ...attempt.headers, "x-request-id": requestId },
    });
    const rest = lane === "REST";
    expect(outcome).toMatchObject({
      ...(!rest && { code: expected.code, domain: "portolan" }),
      reason: expected.reason,
      requestId,
      fields: (rest && expected.restFields) || (expected.fields ?? []),
      ...(expected.metadata && { metadata: expected.metadata }),
      ...(expected.message && { message: expected.message }),
    });
    expect(outcome.message).not.toBe("");
    if (rest) expect(outcome.httpStatus).toBe(expected.httpStatus);
    else if (lane === "Connect JSON")
      expect(outcome.httpStatus).toBe(expected.connectStatus ?? expected.httpStatus);
    else expect(outcome.httpStatus).toBe(200);
  });

  it("an Idempotency-Key that was used for another request is told as a conflict", async () => {
    const headers = { ...admin, "idempotency-key": `conflict-${lane}`, "x-request-id": "conflict-1" };
    expect((await call(server, create(job, headers))).reason).toBe("");
    const outcome = await call(server, create({ ...job, name: "Another" }, headers));
    expect(outcome).toMatchObject({
      ...(lane === "REST" ? { httpStatus: 409 } : { code: "ALREADY_EXISTS", domain: "portolan" }),
      reason: "IDEMPOTENCY_CONFLICT",
      requestId: "conflict-1",
    });
  });
});

describe.each(["gRPC", "gRPC-Web", "Connect JSON"] as const)("over %s", (lane) => {
  it.each([
    ["a method that the service does not have", `${service}/Nothing`],
    ["a service that does not exist", "portolan.nothing.v1.NothingService/Get"],
  ])("%s is unimplemented", async (_, method) => {
    const headers = { ...admin, "x-request-id": "unknown-1" };
    const outcome = await lanes[lane](server, { ...read("job-x", headers), method });
    expect(outcome).toMatchObject({
      code: "UNIMPLEMENTED",
      reason: "UNKNOWN_METHOD",
      domain: "portolan",
      requestId: "unknown-1",
      httpStatus: lane === "Connect JSON" ? 404 : 200,
    });
  });
});

describe.each([
  ["gRPC", "application/grpc+proto"],
  ["gRPC-Web", "application/grpc-web+proto"],
  ["Connect JSON", "application/proto"],
] as const)("over %s in its binary form", (lane, type) => {
  it("Protobuf that does not decode is told as the client's fault", async () => {
    const wireTypeThatDoesNotExist = "\u000f";
    const headers = { ...admin, "content-type": type, "x-request-id": "binary-1" };
    const outcome = await lanes[lane](server, create(wireTypeThatDoesNotExist, headers));
    expect(outcome).toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "MALFORMED_REQUEST",
      domain: "portolan",
      requestId: "binary-1",
      httpStatus: lane === "Connect JSON" ? 400 : 200,
    });
  });
});

describe("over REST", () => {
  it.each([
    ["an unknown path", "GET", "/v3/nothing", 404, "UNKNOWN_PATH"],
    ["a method that the path does not take", "PUT", "/v3/jobs/{jobId}", 405, "METHOD_NOT_ALLOWED"],
  ])("%s is told", async (_, verb, path, httpStatus, reason) => {
    const headers = { ...admin, "x-request-id": "unknown-2" };
    const outcome = await lanes.REST(server, { ...read("job-x", headers), rest: { verb, path } });
    expect(outcome).toMatchObject({ httpStatus, reason, requestId: "unknown-2" });
  });

  it("an unknown query parameter is told with its name", async () => {
    const outcome = await lanes.REST(server, {
      ...read("job-x"),
      rest: { verb: "GET", path: "/v3/jobs?colour=red" },
    });
    expect(outcome).toMatchObject({ httpStatus: 400, reason: "UNKNOWN_FIELD", fields: ["colour"] });
  });

  it("a content type that is not JSON is told", async () => {
    const attempt = create("<job/>", { ...admin, "content-type": "application/xml" });
    const outcome = await lanes.REST(server, attempt);
    expect(outcome).toMatchObject({ httpStatus: 415, reason: "UNSUPPORTED_MEDIA_TYPE" });
  });
});
