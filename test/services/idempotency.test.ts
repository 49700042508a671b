import { toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, expect, it } from "vitest";
import { CreateJobResponseSchema, JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason, startTestServer, type TestServer } from "#test/support/server.ts";

onEachEngine((database) => {
  let server: TestServer;
  let deviceGroupId: string;
  let keys = 0;
  const newKey = () => `order-${keys++}`;
  const jobs = (key?: string) =>
    server.client(JobService, server.admin, key === undefined ? {} : { "Idempotency-Key": key });
  const count = async () => (await jobs().listJobs({ deviceGroupId, limit: 100 })).count;

  beforeAll(async () => {
    server = await startTestServer(database());
    deviceGroupId = await server.newGroup();
  });
  afterAll(() => server.stop());

  it("answers a repetition with the first answer, byte for byte, and does nothing again", async () => {
    const client = jobs(newKey());
    const before = await count();
    const request = { name: "a", deviceGroupId, metadata: { note: "é" } };
    const first = await client.createJob(request);
    await client.updateJob({ jobId: first.job?.jobId ?? "", name: "changed since" });
    let replayed: string | null = null;
    const onHeader = (header: Headers) => {
      replayed = header.get("Idempotency-Replayed");
    };
    const second = await client.createJob(request, { onHeader });
    expect(toBinary(CreateJobResponseSchema, second)).toEqual(toBinary(CreateJobResponseSchema, first));
    expect([replayed, await count()]).toEqual(["true", before + 1]);
  });

  it("answers a repetition over REST byte for byte, whatever protocol came first", async () => {
    const headers = { "Idempotency-Key": newKey() };
    const body = { name: "rest", deviceGroupId };
    const first = await server.rest("POST", "/v3/jobs/create", { headers, body });
    const second = await server.rest("POST", "/v3/jobs/create", { headers, body });
    expect([first.status, second.status, second.text]).toEqual([201, 201, first.text]);
    expect([first, second].map((each) => each.headers.get("Idempotency-Replayed"))).toEqual([null, "true"]);
    const overRpc = await jobs(headers["Idempotency-Key"]).createJob(body);
    expect(overRpc.job?.jobId).toBe(first.json.job.jobId);
  });

  it("refuses the key with another request", async () => {
    const headers = { "Idempotency-Key": newKey() };
    await jobs(headers["Idempotency-Key"]).createJob({ name: "one", deviceGroupId });
    await expectReason(
      jobs(headers["Idempotency-Key"]).createJob({ name: "two", deviceGroupId }),
      "IDEMPOTENCY_CONFLICT",
    );
    const rest = await server.rest("POST", "/v3/jobs/create", {
      headers,
      body: { name: "two", deviceGroupId },
    });
    expect([rest.status, rest.json.success]).toEqual([409, false]);
  });

  it("lets repetitions that arrive together have one effect and one answer", async () => {
    const client = jobs(newKey());
    const before = await count();
    const answers = await Promise.all(
      Array.from({ length: 10 }, () => client.createJob({ name: "together", deviceGroupId })),
    );
    expect(new Set(answers.map(({ job }) => job?.jobId)).size).toBe(1);
    expect(await count()).toBe(before + 1);
  });

  it("takes the key from the body where there are no headers, and from the header where there are both", async () => {
    const requestId = newKey();
    const request = { name: "body", deviceGroupId, requestId };
    const first = await jobs().createJob(request);
    expect((await jobs().createJob(request)).job?.jobId).toBe(first.job?.jobId);
    expect((await jobs(newKey()).createJob(request)).job?.jobId).not.toBe(first.job?.jobId);
  });

  it("keeps the key free when the call fails", async () => {
    const key = newKey();
    const id = `late-${key}`;
    await expectReason(jobs(key).createJob({ name: "x", deviceGroupId: id }), "DEVICE_GROUP_NOT_FOUND");
    await server.client(ResourceService, server.admin).registerResource({ deviceGroupId: id, name: "Late" });
    expect((await jobs(key).createJob({ name: "x", deviceGroupId: id })).job?.deviceGroupId).toBe(id);
  });

  it("tells keys of other methods and tenants apart", async () => {
    const key = newKey();
    const first = await jobs(key).createJob({ name: "mine", deviceGroupId });
    const shares = server.client(ShareService, server.admin, { "Idempotency-Key": key });
    expect((await shares.createShare({ deviceGroupId, timeout: 5 })).share?.shareCode).toMatch(/^share-/);
    const { secret } = await server.newKey(Role.ADMIN, { tenantId: "other" });
    await server.client(ResourceService, secret).registerResource({ deviceGroupId, name: "Same id" });
    const theirs = server.client(JobService, secret, { "Idempotency-Key": key });
    expect((await theirs.createJob({ name: "mine", deviceGroupId })).job?.jobId).not.toBe(first.job?.jobId);
  });

  it("refuses a key that is too long", async () => {
    await expectReason(jobs("k".repeat(129)).createJob({ name: "a", deviceGroupId }), "VALIDATION_ERROR");
  });
});
