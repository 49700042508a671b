import { type DescMethod, getOption } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { type AuditLog, AuditOutcome, CredentialKind } from "#gen/portolan/identity/v1/audit_log_pb.js";
import { AuditLogService } from "#gen/portolan/identity/v1/audit_log_service_pb.js";
import { TenantService } from "#gen/portolan/identity/v1/tenant_service_pb.js";
import { TokenService } from "#gen/portolan/identity/v1/token_service_pb.js";
import { UserService } from "#gen/portolan/identity/v1/user_service_pb.js";
import { DispatchService } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { policy, Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { digestOf, fingerprint } from "#kernel/audit.ts";
import { allMethods } from "#test/support/contract.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason, reader, startTestServer, type TestServer } from "#test/support/server.ts";

/** One successful call of an audited RPC, and which digests its row must have. */
interface Scenario {
  readonly digests: "made" | "changed" | "gone";
  run(s: Scene): Promise<unknown>;
}

interface Scene {
  readonly server: TestServer;
  readonly requestId: string;
  /** A client whose calls carry the request id. */
  as: TestServer["client"];
  admin: <S extends Parameters<TestServer["client"]>[0]>(service: S) => Client<S>;
  /** A client for what has to be there before. */
  before: <S extends Parameters<TestServer["client"]>[0]>(service: S) => Client<S>;
  job(): Promise<{ jobId: string; deviceGroupId: string }>;
  tenant(): Promise<string>;
}

let fresh = 0;
const made = (run: Scenario["run"]): Scenario => ({ digests: "made", run });
const changed = (run: Scenario["run"]): Scenario => ({ digests: "changed", run });
const gone = (run: Scenario["run"]): Scenario => ({ digests: "gone", run });

/** A call of every audited RPC: an RPC that is not here fails the test, so none is forgotten. */
const scenarios: Record<string, Scenario> = {
  "ApiKeyService.CreateApiKey": made((s) => s.admin(ApiKeyService).createApiKey({ name: "k" })),
  "ApiKeyService.RevokeApiKey": changed(async (s) =>
    s.admin(ApiKeyService).revokeApiKey({ id: (await s.server.newKey(Role.VIEWER)).id }),
  ),
  "TenantService.CreateTenant": made((s) =>
    s.admin(TenantService).createTenant({ id: `t-${fresh++}`, name: "T" }),
  ),
  "TenantService.UpdateTenant": changed(async (s) =>
    s.admin(TenantService).updateTenant({ id: await s.tenant(), name: "New" }),
  ),
  "TenantService.SuspendTenant": changed(async (s) =>
    s.admin(TenantService).suspendTenant({ id: await s.tenant() }),
  ),
  "TenantService.ResumeTenant": changed(async (s) => {
    const id = await s.tenant();
    await s.before(TenantService).suspendTenant({ id });
    await s.admin(TenantService).resumeTenant({ id });
  }),
  "TenantService.DeleteTenant": gone(async (s) => {
    const id = await s.tenant();
    await s.before(TenantService).suspendTenant({ id });
    await s.admin(TenantService).deleteTenant({ id });
  }),
  "UserService.CreateUser": made((s) =>
    s.admin(UserService).createUser({ email: `u${fresh++}@example.com`, name: "U" }),
  ),
  "UserService.UpdateUser": changed(async (s) =>
    s.admin(UserService).updateUser({ id: await newUser(s), name: "New" }),
  ),
  "UserService.DeleteUser": gone(async (s) => s.admin(UserService).deleteUser({ id: await newUser(s) })),
  "JobService.CreateJob": made(async (s) =>
    s.admin(JobService).createJob({ name: "j", deviceGroupId: await s.server.newGroup() }),
  ),
  "JobService.UpdateJob": changed(async (s) =>
    s.admin(JobService).updateJob({ jobId: (await s.job()).jobId, name: "New" }),
  ),
  "JobService.DeleteJob": gone(async (s) => s.admin(JobService).deleteJob(await s.job())),
  "JobService.CancelJob": changed(async (s) => s.admin(JobService).cancelJob(await s.job())),
  "DispatchService.AcknowledgeDispatch": gone(async (s) => {
    const deviceGroupId = await s.server.newGroup();
    const dispatches = reader(s.before(DispatchService).watchDispatches({ deviceGroupId }));
    await s.before(JobService).createJob({ name: "j", deviceGroupId });
    const { dispatch } = await dispatches.until((message) => message.dispatch !== undefined);
    await dispatches.stop();
    const { dispatchId = "" } = dispatch ?? {};
    await s.admin(DispatchService).acknowledgeDispatch({ deviceGroupId, dispatchId });
  }),
  "DispatchService.ReportJob": changed(async (s) =>
    s.admin(DispatchService).reportJob({ jobId: (await s.job()).jobId, state: JobState.INPROGRESS }),
  ),
  "ShareService.CreateShare": made(async (s) =>
    s.admin(ShareService).createShare({ deviceGroupId: await s.server.newGroup(), timeout: 5 }),
  ),
  "ShareService.RevokeShare": gone(async (s) =>
    s.admin(ShareService).revokeShare({ shareCode: await newShare(s) }),
  ),
  "ShareService.RevokeShareSession": changed(async (s) => {
    const shareCode = await newShare(s);
    const viewer = reader(s.before(ShareService).trackShare({ shareCode }));
    await viewer.next();
    const { sessions } = await s.before(ShareService).listShareSessions({ shareCode });
    const { sessionId = "" } = sessions[0] ?? {};
    await s.admin(ShareService).revokeShareSession({ shareCode, sessionId });
    await viewer.rest();
  }),
  "ResourceService.RegisterResource": made((s) =>
    s.admin(ResourceService).registerResource({ name: "Dock", deviceGroupId: `audited-${fresh++}` }),
  ),
  "ResourceService.UpdateResource": changed(async (s) =>
    s.admin(ResourceService).updateResource({ deviceGroupId: await s.server.newGroup(), name: "New" }),
  ),
  "ResourceService.DeleteResource": gone(async (s) =>
    s.admin(ResourceService).deleteResource({ deviceGroupId: await s.server.newGroup() }),
  ),
};

async function newUser(s: Scene): Promise<string> {
  const { user } = await s.before(UserService).createUser({ email: `u${fresh++}@example.com`, name: "U" });
  return user?.id ?? "";
}

async function newShare(s: Scene): Promise<string> {
  const deviceGroupId = await s.server.newGroup();
  const { share } = await s.before(ShareService).createShare({ deviceGroupId, timeout: 5 });
  return share?.shareCode ?? "";
}

const audited = (await allMethods())
  .filter((method) => getOption(method, policy).audited)
  .map((method): [string, DescMethod] => [`${method.parent.name}.${method.name}`, method]);

onEachEngine((database) => {
  let server: TestServer;
  let logs: Client<typeof AuditLogService>;
  let requests = 0;

  beforeAll(async () => {
    server = await startTestServer(database());
    logs = server.client(AuditLogService, server.admin);
  });
  afterAll(() => server.stop());

  function scene(): Scene {
    const requestId = `audit-${requests++}`;
    const headers = { "x-request-id": requestId };
    const before: Scene["before"] = (service) => server.client(service, server.admin);
    return {
      server,
      requestId,
      before,
      as: (service, key, more = {}) => server.client(service, key, { ...headers, ...more }),
      admin: (service) => server.client(service, server.admin, headers),
      async job() {
        const deviceGroupId = await server.newGroup();
        const { job } = await before(JobService).createJob({ name: "j", deviceGroupId });
        return { jobId: job?.jobId ?? "", deviceGroupId };
      },
      async tenant() {
        const id = `t-${fresh++}`;
        await before(TenantService).createTenant({ id, name: "T" });
        return id;
      },
    };
  }

  /** The rows of a scene's request. */
  const rowsOf = async (s: Scene): Promise<AuditLog[]> =>
    (await logs.listAuditLogs({ requestId: s.requestId })).auditLogs;

  describe.each(audited)("%s", (name, method) => {
    it("leaves one row that tells who did what to which resource, with digests", async () => {
      const s = scene();
      const scenario = scenarios[name];
      if (!scenario) throw new Error(`${name} is audited and has no scenario here: write one`);
      const from = Date.now();
      await scenario.run(s);
      const rows = await rowsOf(s);
      expect(rows.map(({ action }) => action)).toEqual([method.name]);
      const row = rows[0] as AuditLog;
      const [resourceType] = getOption(method, policy).permission.split(":");
      expect(row).toMatchObject({
        tenantId: "default",
        actor: "key-admin",
        role: Role.ADMIN,
        credential: CredentialKind.API_KEY,
        service: method.parent.typeName,
        resourceType,
        protocol: database().engine === "sqlite" ? "grpc" : "connect",
        outcome: AuditOutcome.SUCCEEDED,
        code: "",
        reason: "",
        replayed: false,
      });
      expect(row.resourceId).not.toBe("");
      expect(row.remoteAddress).toMatch(/127\.0\.0\.1|::1/);
      expect(Number(row.occurredAt?.seconds)).toBeGreaterThanOrEqual(Math.floor(from / 1000));
      const digest = (wanted: boolean) => (wanted ? /^[0-9a-f]{64}$/ : /^$/);
      expect(row.digestBefore).toMatch(digest(scenario.digests !== "made"));
      expect(row.digestAfter).toMatch(digest(scenario.digests !== "gone"));
      if (scenario.digests === "changed") expect(row.digestAfter).not.toBe(row.digestBefore);
    });

    it("leaves a row of a call that is denied", async () => {
      const { secret, id } = await server.newKey(Role.VIEWER);
      const s = scene();
      const client = s.as(method.parent, secret) as unknown as Record<
        string,
        (input: unknown) => Promise<unknown>
      >;
      await expectReason(
        (client[method.localName] as (input: unknown) => Promise<unknown>)({}),
        "INSUFFICIENT_PERMISSIONS",
      );
      expect(await rowsOf(s)).toMatchObject([
        {
          actor: id,
          role: Role.VIEWER,
          action: method.name,
          outcome: AuditOutcome.FAILED,
          code: "PERMISSION_DENIED",
          reason: "INSUFFICIENT_PERMISSIONS",
          digestBefore: "",
          digestAfter: "",
        },
      ]);
    });
  });

  it("digests what the caller gets to see", async () => {
    const s = scene();
    const { job } = await s.admin(JobService).createJob({
      name: "j",
      deviceGroupId: await server.newGroup(),
      // Far in the future, so that the dispatcher leaves it as it is.
      scheduledAt: { seconds: 4_000_000_000n },
      metadata: { note: "é", list: [1, { b: 2, a: 1 }] },
    });
    expect((await rowsOf(s))[0]?.digestAfter).toBe(digestOf(JobSchema, job));
    const { jobId = "" } = job ?? {};
    const t = scene();
    await t.admin(JobService).deleteJob({ jobId });
    const [before, after] = [(await rowsOf(s))[0], (await rowsOf(t))[0]];
    expect([after?.resourceId, after?.digestAfter]).toEqual([jobId, ""]);
    expect(after?.digestBefore).toBe(before?.digestAfter);
  });

  it("leaves a row of a call that fails, with the resource that it named", async () => {
    const s = scene();
    await expectReason(s.admin(JobService).deleteJob({ jobId: "job-none" }), "JOB_NOT_FOUND");
    await expectReason(s.admin(JobService).updateJob({ jobId: "job-1", priority: 99 }), "VALIDATION_ERROR");
    const [invalid, missing] = await rowsOf(s);
    expect(missing).toMatchObject({ resourceId: "job-none", code: "NOT_FOUND", reason: "JOB_NOT_FOUND" });
    expect(invalid).toMatchObject({
      resourceId: "job-1",
      code: "INVALID_ARGUMENT",
      reason: "VALIDATION_ERROR",
    });
  });

  it("leaves no row of reads, of telemetry, and of callers that nobody knows", async () => {
    const s = scene();
    const { deviceGroupId } = await s.job();
    await s.admin(JobService).listJobs({});
    await s.admin(TelemetryService).publishSample({ deviceGroupId, sample: { batteryPercent: 1 } });
    await expectReason(s.as(JobService).deleteJob({ jobId: "job-1" }), "MISSING_CREDENTIALS");
    await expectReason(s.as(JobService, "sk_wrong").deleteJob({ jobId: "job-1" }), "INVALID_TOKEN");
    expect(await rowsOf(s)).toEqual([]);
  });

  it("leaves a row of a device's report only when the job's state changes", async () => {
    const { jobId } = await scene().job();
    const s = scene();
    const report = (state: JobState, progress: number) =>
      s.admin(DispatchService).reportJob({ jobId, state, progress });
    for (const progress of [0, 10, 20]) await report(JobState.INPROGRESS, progress);
    await report(JobState.COMPLETED, 100);
    expect((await rowsOf(s)).map(({ outcome }) => outcome)).toEqual([
      AuditOutcome.SUCCEEDED,
      AuditOutcome.SUCCEEDED,
    ]);
  });

  it("notes a replayed answer, with the resource of the first", async () => {
    const s = scene();
    const request = { name: "once", deviceGroupId: await server.newGroup(), requestId: s.requestId };
    const { job } = await s.admin(JobService).createJob(request);
    await s.admin(JobService).createJob(request);
    await expectReason(s.admin(JobService).createJob({ ...request, name: "other" }), "IDEMPOTENCY_CONFLICT");
    const [conflict, again, first] = await rowsOf(s);
    expect(first).toMatchObject({ replayed: false, resourceId: job?.jobId });
    expect(again).toMatchObject({ replayed: true, resourceId: job?.jobId, digestAfter: "" });
    expect(conflict).toMatchObject({ replayed: false, reason: "IDEMPOTENCY_CONFLICT" });
  });

  it("has the row exactly when it has the effect", async () => {
    const s = scene();
    const deviceGroupId = await server.newGroup();
    const calls = await Promise.allSettled(
      Array.from({ length: 30 }, (_, n) =>
        s.admin(JobService).createJob({ name: "j", deviceGroupId: n % 3 ? deviceGroupId : "none" }),
      ),
    );
    const jobs = calls.flatMap((call) => (call.status === "fulfilled" ? [call.value.job?.jobId ?? ""] : []));
    const done = (await rowsOf(s)).filter(({ outcome }) => outcome === AuditOutcome.SUCCEEDED);
    expect(done.map(({ resourceId }) => resourceId).sort()).toEqual(jobs.sort());
    expect(await rowsOf(s)).toHaveLength(30);
  });

  it("tells an access token from an API key", async () => {
    const { id, secret } = await server.newKey(Role.PILOT);
    const { accessToken } = await server
      .client(TokenService, secret)
      .issueToken({ grantType: "client_credentials", clientId: id, clientSecret: secret });
    const s = scene();
    const headers = { Authorization: `Bearer ${accessToken}` };
    await expectReason(s.as(JobService, "", headers).deleteJob({ jobId: "none" }), "JOB_NOT_FOUND");
    expect(await rowsOf(s)).toMatchObject([
      { actor: id, role: Role.PILOT, credential: CredentialKind.ACCESS_TOKEN },
    ]);
  });

  it("keeps no secret: no API key, no token, no PIN, no share code", async () => {
    const s = scene();
    const { apiKey, secret } = await s.admin(ApiKeyService).createApiKey({ name: "k", role: Role.ADMIN });
    const { accessToken } = await server
      .client(TokenService, secret)
      .issueToken({ grantType: "client_credentials", clientId: apiKey?.id ?? "", clientSecret: secret });
    const deviceGroupId = await server.newGroup();
    const bearer = s.as(ShareService, "", { Authorization: `Bearer ${accessToken}` });
    const pin = "908172";
    const { share } = await bearer.createShare({ deviceGroupId, timeout: 5, pin });
    const { shareCode = "" } = share ?? {};
    await bearer.revokeShare({ shareCode });
    await expectReason(bearer.revokeShare({ shareCode }), "SHARE_NOT_FOUND");
    const stored = await server.server.kernel.database.read.selectFrom("audit_logs").selectAll().execute();
    expect(JSON.stringify(stored)).toContain(fingerprint(shareCode));
    for (const hidden of [secret, server.admin, accessToken, shareCode]) {
      expect(JSON.stringify(stored)).not.toContain(hidden);
    }
    // Hashes, ids and times are digits too, and could hold those of a PIN by chance.
    const digits = /hash|digest|_at$|audit_id|resource_id/;
    const rest = JSON.stringify(stored, (name, value) => (digits.test(name) ? undefined : value));
    expect(rest).not.toContain(pin);
    // Who knows the code still finds what was done with it.
    const { auditLogs } = await logs.listAuditLogs({ resourceId: shareCode });
    expect(auditLogs.map(({ action, resourceId }) => [action, resourceId])).toEqual([
      ["RevokeShare", fingerprint(shareCode)],
      ["RevokeShare", fingerprint(shareCode)],
      ["CreateShare", fingerprint(shareCode)],
    ]);
  });

  it("shows a tenant its own rows only, and to administrators only", async () => {
    const { secret } = await server.newKey(Role.ADMIN, { tenantId: "audited" });
    const theirs = server.client(AuditLogService, secret);
    expect((await theirs.listAuditLogs({})).auditLogs).toEqual([]);
    await server.client(ApiKeyService, secret).createApiKey({ name: "own" });
    expect((await theirs.listAuditLogs({})).auditLogs).toMatchObject([
      { tenantId: "audited", action: "CreateApiKey", sequence: 1n },
    ]);
    expect(await theirs.verifyAuditLogs({})).toMatchObject({ valid: true, checked: 1n });
    const manager = await server.newKey(Role.MANAGER);
    await expectReason(
      server.client(AuditLogService, manager.secret).listAuditLogs({}),
      "INSUFFICIENT_PERMISSIONS",
    );
  });

  it("lists over REST, filtered and page by page, newest first", async () => {
    const s = scene();
    for (const id of ["a", "b", "c"]) {
      await expectReason(s.admin(JobService).deleteJob({ jobId: `job-${id}` }), "JOB_NOT_FOUND");
    }
    const path = `/api/v1/audit-logs?requestId=${s.requestId}&outcome=failed&pageSize=2`;
    const first = await server.rest("GET", path);
    expect(first.status).toBe(200);
    const next = await server.rest("GET", `${path}&pageToken=${first.json.nextPageToken}`);
    const ids = [...first.json.auditLogs, ...next.json.auditLogs].map((row) => row.resourceId);
    expect(ids).toEqual(["job-c", "job-b", "job-a"]);
    expect(first.json.auditLogs[0]).toMatchObject({
      action: "DeleteJob",
      outcome: "failed",
      role: "admin",
      credential: "api_key",
      reason: "JOB_NOT_FOUND",
    });
    const of = async (query: string) =>
      (await server.rest("GET", `/api/v1/audit-logs?requestId=${s.requestId}&${query}`)).json.auditLogs
        ?.length;
    expect(await of("actor=key-admin&action=DeleteJob&resourceType=jobs&resourceId=job-a")).toBe(1);
    expect((await of(`startTime=${new Date(Date.now() + 60_000).toISOString()}`)) ?? 0).toBe(0);
    expect(await of(`endTime=${new Date(Date.now() + 60_000).toISOString()}`)).toBe(3);
    const foreign = await server.rest("GET", `/api/v1/audit-logs?pageToken=${first.json.nextPageToken}`);
    expect([foreign.status, foreign.json.code]).toEqual([400, "INVALID_PAGE_TOKEN"]);
    const rest = scene();
    await server.rest("DELETE", "/v3/jobs/job-rest", { headers: { "x-request-id": rest.requestId } });
    expect(await rowsOf(rest)).toMatchObject([{ protocol: "rest", resourceId: "job-rest" }]);
    await expectReason(
      logs.listAuditLogs({ startTime: timestampFromMs(0), pageToken: first.json.nextPageToken }),
      "INVALID_PAGE_TOKEN",
    );
  });

  it("holds, after all of this", async () => {
    const answer = await server.rest("GET", "/api/v1/audit-logs/verification");
    expect(answer.json).toMatchObject({ valid: true });
    expect(Number(answer.json.checked)).toBeGreaterThan(50);
    const newest = (await logs.listAuditLogs({ pageSize: 1 })).auditLogs[0];
    expect(answer.json.lastHash).toBe(newest?.hash);
  });
});
