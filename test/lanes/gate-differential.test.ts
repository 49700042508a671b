import { create, type DescMethod, toBinary, toJsonString } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { adminKey, startTestServer, type TestServer } from "../support/gateway.ts";
import {
  type Call,
  createWireClient,
  requestOf,
  type Wire,
  type WireAnswer,
  wires,
} from "../support/raw-wire.ts";

/** A call of a real method, with the gate before it. */
interface Case {
  readonly name: string;
  readonly method: DescMethod;
  readonly input: object;
  readonly key?: "admin" | "viewer" | "stranger" | "unknown";
  readonly headers?: Record<string, string>;
  /** The gRPC status that it must end with, on both. */
  readonly status: number;
}

const { getJob, createJob, listJobs, trackJob } = JobService.method;
const { listApiKeys } = ApiKeyService.method;
const { registerResource } = ResourceService.method;
const dock = "differential-dock";
const job = { name: "Survey", deviceGroupId: dock, scheduledAt: { seconds: 4_000_000_000n } };

const cases: readonly Case[] = [
  { name: "a job", method: getJob, input: { jobId: "{job}" }, status: 0 },
  {
    name: "a job for a page of another origin",
    method: getJob,
    input: { jobId: "{job}" },
    headers: { origin: "https://page.example" },
    status: 0,
  },
  { name: "jobs", method: listJobs, input: { limit: 1 }, status: 0 },
  {
    name: "no credentials",
    method: getJob,
    input: { jobId: "{job}" },
    key: "unknown",
    headers: {},
    status: 16,
  },
  { name: "a role that may not", method: listApiKeys, input: {}, key: "viewer", status: 7 },
  { name: "a job of another tenant", method: getJob, input: { jobId: "{job}" }, key: "stranger", status: 5 },
  { name: "a broken rule", method: createJob, input: { ...job, priority: 11 }, status: 3 },
  { name: "several broken rules", method: createJob, input: { name: "", priority: 99 }, status: 3 },
  {
    name: "a dock that does not exist",
    method: createJob,
    input: { ...job, deviceGroupId: "nowhere" },
    status: 5,
  },
  {
    name: "a repeated call with an idempotency key",
    method: createJob,
    input: job,
    headers: { "idempotency-key": "spent" },
    status: 0,
  },
  {
    name: "another call with the same idempotency key",
    method: createJob,
    input: { ...job, name: "Another" },
    headers: { "idempotency-key": "spent" },
    status: 6,
  },
  {
    name: "a key that is too long",
    method: createJob,
    input: job,
    headers: { "idempotency-key": "k".repeat(200) },
    status: 3,
  },
  { name: "a page token that was altered", method: listJobs, input: { pageToken: "altered" }, status: 3 },
  {
    name: "a dock that exists",
    method: registerResource,
    input: { deviceGroupId: dock, name: "" },
    status: 3,
  },
  {
    name: "the track of a job that does not exist",
    method: trackJob,
    input: { jobId: "job-none" },
    status: 5,
  },
  {
    name: "the track of a job of another tenant",
    method: trackJob,
    input: { jobId: "{job}" },
    key: "stranger",
    status: 5,
  },
];

let servers: { readonly express: TestServer; readonly reference: TestServer };
let clients: { express: ReturnType<typeof createWireClient>; reference: ReturnType<typeof createWireClient> };
const keys = { admin: adminKey, viewer: "", stranger: "", unknown: "" };
let jobId = "";

beforeAll(async () => {
  const origins = { PORTOLAN_CORS_ORIGINS: "https://page.example" };
  const express = await startTestServer(origins);
  // Both work on the same data.
  const reference = await startTestServer({
    PORTOLAN_DATA_DIR: express.dataDir,
    PORTOLAN_EXPRESS: "off",
    ...origins,
  });
  servers = { express, reference };
  clients = { express: createWireClient(express), reference: createWireClient(reference) };
  keys.viewer = await express.createKey(Role.VIEWER);
  keys.stranger = await express.createKey(Role.MANAGER, "elsewhere");
  const [grpc] = wires as [Wire];
  const made = async (method: DescMethod, input: object, headers = {}) =>
    clients.express.send(await requestOf(grpc, callOf({ name: "", method, input, headers, status: 0 })));
  await made(registerResource, { deviceGroupId: dock, name: "Dock" });
  const { body } = await made(createJob, job, { "idempotency-key": "spent" });
  jobId = /job-[0-9a-f-]{36}/.exec(body.toString("latin1"))?.[0] ?? "";
  expect(jobId).not.toBe("");
});

afterAll(async () => {
  clients?.express.close();
  clients?.reference.close();
  await servers?.reference.stop();
  await servers?.express.stop();
});

function callOf({ method, input, key = "admin", headers }: Case): Call {
  const filled = { ...input, ...("jobId" in input && input.jobId === "{job}" && { jobId }) };
  const message = create(method.input, filled as never);
  return {
    path: () => `/${method.parent.typeName}/${method.name}`,
    message: (_, binary) =>
      Buffer.from(binary ? toBinary(method.input, message) : toJsonString(method.input, message)),
    headers: { ...(keys[key] && { "x-api-key": keys[key] }), ...headers },
  };
}

/** What has to be the same of an answer. */
function essence({ status, headers, body, trailers }: WireAnswer) {
  const kept = Object.entries(headers).filter(
    ([name]) => !["date", "connection", "keep-alive", "transfer-encoding", "content-length"].includes(name),
  );
  // The time at which a limit is whole again may be another second.
  const told = kept.map(([name, value]) => [name, name === "x-ratelimit-reset" ? typeof value : value]);
  return { status, headers: Object.fromEntries(told), body: body.toString("latin1"), trailers };
}

const statusOf = ({ trailers, headers, body }: WireAnswer): number => {
  const told =
    trailers["grpc-status"] ?? headers["grpc-status"] ?? /grpc-status: (\d+)/.exec(body.toString())?.[1];
  return Number(told);
};

describe.each(wires.filter(({ get }) => !get))("$name", (wire) => {
  const isStream = ({ method }: Case) => method.methodKind === "server_streaming";
  const carried = cases.filter((one) => wire.kinds.includes(isStream(one) ? "Watch" : "Echo"));

  it.each(carried)("$name", async (one) => {
    const request = await requestOf(wire, callOf(one));
    const [theirs, ours] = [await clients.reference.send(request), await clients.express.send(request)];
    expect(essence(ours)).toEqual(essence(theirs));
    if (wire.type.startsWith("application/grpc")) expect(statusOf(ours)).toBe(one.status);
    else if (!isStream(one)) expect(ours.status === 200).toBe(one.status === 0);
  });
});
