import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { JobState, TrackKind, type TrackUpdate } from "#gen/portolan/common/v1/track_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { type Device, startDevice } from "../support/device.ts";
import { startTestServer, type TestServer, withKey } from "../support/gateway.ts";

const dock = "web-dock";
const interceptors = [withKey("sk_test_administrator")];

const clients: Record<string, (baseUrl: string) => Transport> = {
  "gRPC-Web": (baseUrl) => createGrpcWebTransport({ baseUrl, interceptors }),
  "gRPC-Web with JSON": (baseUrl) =>
    createGrpcWebTransport({ baseUrl, interceptors, useBinaryFormat: false }),
  "Connect JSON": (baseUrl) => createConnectTransport({ baseUrl, interceptors }),
  "Connect binary with GET": (baseUrl) =>
    createConnectTransport({ baseUrl, interceptors, useBinaryFormat: true, useHttpGet: true }),
};

describe.each(Object.entries(clients))("a browser's client, %s over fetch", (_, transport) => {
  let server: TestServer;
  let device: Device;

  beforeAll(async () => {
    server = await startTestServer();
    device = await startDevice(server.grpc(), dock);
  });

  afterAll(async () => {
    await device?.stop();
    await server?.stop();
  });

  it("creates, reads and lists jobs", async () => {
    const jobs = createClient(JobService, transport(server.url));
    const { job } = await jobs.createJob({ name: "Survey", deviceGroupId: dock, priority: 3 });
    const read = await jobs.getJob({ jobId: job?.jobId ?? "" });
    expect(read.job).toMatchObject({ jobId: job?.jobId, name: "Survey", priority: 3 });
    expect((await jobs.listJobs({})).jobs.map(({ jobId }) => jobId)).toContain(job?.jobId);
  });

  it("reads the reason of an error", async () => {
    const jobs = createClient(JobService, transport(server.url));
    const error = await jobs
      .getJob({ jobId: "job-none" })
      .then(() => expect.unreachable(), ConnectError.from);
    expect(error.code).toBe(Code.NotFound);
    expect(error.rawMessage).toBe("Job not found");
    const [info] = error.findDetails(ErrorInfoSchema);
    expect(info).toMatchObject({ reason: "JOB_NOT_FOUND", domain: "portolan" });
  });

  it("follows a job to its final message and a clean end", async () => {
    const jobs = createClient(JobService, transport(server.url));
    const { job } = await jobs.createJob({ name: "Survey", deviceGroupId: dock, priority: 10 });
    const jobId = job?.jobId ?? "";
    const updates: TrackUpdate[] = [];
    for await (const update of jobs.trackJob({ jobId })) {
      updates.push(update);
      if (updates.length === 2) await jobs.cancelJob({ jobId });
    }
    expect(updates.length).toBeGreaterThanOrEqual(3);
    expect(updates.at(-1)).toMatchObject({ kind: TrackKind.FINAL, jobState: JobState.CANCELLED, jobId });
  });

  it("ends a stream when its signal aborts", async () => {
    const jobs = createClient(JobService, transport(server.url));
    const request = { name: "Later", deviceGroupId: dock, scheduledAt: { seconds: 4_000_000_000n } };
    const { job } = await jobs.createJob(request);
    const ending = new AbortController();
    const stream = jobs.trackJob({ jobId: job?.jobId ?? "" }, { signal: ending.signal });
    const failure = (async () => {
      for await (const _ of stream) ending.abort();
    })();
    await expect(failure).rejects.toMatchObject({ code: Code.Canceled });
  });
});
