import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, ConnectError } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BadRequestSchema } from "#gen/google/rpc/error_details_pb.js";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { AuditLogService } from "#gen/portolan/identity/v1/audit_log_service_pb.js";
import { TenantStatus } from "#gen/portolan/identity/v1/tenant_pb.js";
import { TenantService } from "#gen/portolan/identity/v1/tenant_service_pb.js";
import { UserStatus } from "#gen/portolan/identity/v1/user_pb.js";
import { UserService } from "#gen/portolan/identity/v1/user_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { reasonOf } from "#kernel/errors.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason, startTestServer, type TestServer } from "#test/support/server.ts";

/** A time so late that no job starts. */
const later = { seconds: 4_000_000_000n };

onEachEngine((database) => {
  let server: TestServer;
  let jobs: Client<typeof JobService>;
  let apiKey: string;
  let dock: string;

  beforeAll(async () => {
    server = await startTestServer(database());
    ({ secret: apiKey } = await server.newKey(Role.ADMIN, { tenantId: "lists" }));
    jobs = server.client(JobService, apiKey);
    dock = await server.newGroup(apiKey, ["drone-1"]);
    for (const [name, priority] of [
      ["alpha", 1],
      ["beta", 9],
      ["Alpine", 9],
      ["gamma", 5],
    ] as const) {
      await jobs.createJob({ name, priority, deviceGroupId: dock, scheduledAt: later });
    }
    await jobs.createJob({ name: "soon", priority: 3, deviceGroupId: dock });
  });
  afterAll(() => server.stop());

  const get = (path: string) => server.rest("GET", path, { apiKey });
  /** Names of the jobs that a query of REST lists. */
  const names = async (query: string) => {
    const { json } = await get(`/v3/jobs?${query}`);
    return json.jobs?.map(({ name }: { name: string }) => name) ?? json.details;
  };

  describe("a filter", () => {
    it.each([
      ['filter={"priority":{"gte":5}}&sort=name', ["Alpine", "beta", "gamma"]],
      ["filter[priority][gte]=5&sort=name", ["Alpine", "beta", "gamma"]],
      ["filter[priority][gte]=5&filter[priority][lt]=9", ["gamma"]],
      ["filter[name][prefix]=al", ["alpha"]],
      ["filter[name][contains]=AL&sort=name", ["Alpine", "alpha"]],
      ["filter[scheduledAt][exists]=false", ["soon"]],
      [
        'filter={"or":[{"name":"soon"},{"not":{"priority":{"in":[1,5,3]}}}]}&sort=-priority,-name',
        ["beta", "Alpine", "soon"],
      ],
      ["filter[status]=pending&filter[name]=beta", ["beta"]],
      ["filter[status][ne]=PENDING&filter[name][in]=soon,beta", ["soon"]],
    ])("%s", async (query, expected) => {
      // The job that is due is queued by the dispatcher, at once but not within the call that made it.
      await expect.poll(() => names("filter[name]=soon&filter[status]=QUEUED")).toEqual(["soon"]);
      expect(await names(query.replaceAll(/[{}"]/g, encodeURIComponent))).toEqual(expected);
    });

    it("is the same over gRPC and Connect", async () => {
      const { jobs: found } = await jobs.listJobs({ filter: '{"priority":9}', sort: "name" });
      expect(found.map(({ name }) => name)).toEqual(["Alpine", "beta"]);
    });

    it("is refused with its reason and place over every protocol", async () => {
      const answer = await get("/v3/jobs?filter[priority][gte]=high");
      expect([answer.status, answer.json.error, answer.json.details.reason]).toEqual([
        400,
        "invalid_request",
        "INVALID_FILTER",
      ]);
      expect(answer.json.details.violations).toEqual([
        { field: "filter.priority.gte", message: "must be an integer of 32 bits", code: "WRONG_TYPE" },
      ]);
      const error = await expectReason(jobs.listJobs({ filter: '{"progress":1}' }), "INVALID_FILTER");
      expect(error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field).toBe("filter.progress");
      await expectReason(jobs.listJobs({ sort: "etag" }), "INVALID_SORT");
      const many = JSON.stringify({ priority: Array(101).fill(1) });
      await expectReason(jobs.listJobs({ filter: many }), "INVALID_FILTER");
      await expectReason(jobs.listJobs({ filter: `{"name":"${"x".repeat(4096)}"}` }), "VALIDATION_ERROR");
    });
  });

  describe("a page", () => {
    it("is told where it stands when it was asked for by number, by every name of its size", async () => {
      for (const size of ["limit", "page_size", "pageSize", "per_page"]) {
        const { json } = await get(`/v3/jobs?page=2&${size}=2&sort=priority`);
        expect([json.count, json.jobs.map(({ priority }: { priority: number }) => priority)]).toEqual([
          2,
          [5, 9],
        ]);
        expect(json.pageInfo).toEqual({
          page: 2,
          pageSize: 2,
          totalItems: 5,
          totalPages: 3,
          hasNext: true,
          hasPrevious: true,
        });
      }
      expect((await get("/v3/jobs?limit=2")).json).not.toHaveProperty("pageInfo");
      expect((await jobs.listJobs({ page: 9, limit: 2 })).pageInfo).toMatchObject({
        totalItems: 5,
        hasNext: false,
      });
    });

    it("has a token that goes on in the order asked for, and with no other", async () => {
      const first = await get("/v3/jobs?limit=3&sort=-name&filter[priority][gt]=1");
      const { nextPageToken: token } = first.json;
      const next = await names(
        `limit=3&sort=-name&filter={"priority":{"gt":1}}&pageToken=${token}`.replaceAll(
          /[{}"]/g,
          encodeURIComponent,
        ),
      );
      expect([first.json.jobs.map(({ name }: { name: string }) => name), next]).toEqual([
        ["soon", "gamma", "beta"],
        ["Alpine"],
      ]);
      const other = await get(`/v3/jobs?limit=3&sort=-name&pageToken=${token}`);
      expect(other.json.details.reason).toBe("INVALID_PAGE_TOKEN");
      await expectReason(
        server.client(JobService, server.admin).listJobs({ limit: 3, pageToken: token }),
        "INVALID_PAGE_TOKEN",
      );
    });
  });

  it("goes on after items of the longest names there can be", async () => {
    const { secret } = await server.newKey(Role.ADMIN, { tenantId: "long-names" });
    const mine = server.client(JobService, secret);
    const deviceGroupId = await server.newGroup(secret);
    for (const last of ["a", "b"]) {
      await mine.createJob({ name: "\u0001".repeat(199) + last, deviceGroupId, scheduledAt: later });
      await mine.createJob({ name: "\u{1f681}".repeat(199) + last, deviceGroupId, scheduledAt: later });
    }
    const found: string[] = [];
    for (let path = "/v3/jobs?sort=-name,deviceGroupId&limit=1"; path !== ""; ) {
      const { status, json } = await server.rest("GET", path, { apiKey: secret });
      expect([status, json.count]).toEqual([200, 1]);
      found.push(json.jobs[0].name.at(-1) + json.jobs[0].name.codePointAt(0).toString(16));
      path =
        json.nextPageToken && `/v3/jobs?sort=-name,deviceGroupId&limit=1&pageToken=${json.nextPageToken}`;
    }
    expect(found).toEqual(["b1f681", "a1f681", "b1", "a1"]);
  });

  describe("fields", () => {
    it("cuts items and resources down to what was asked for, over REST as over the others", async () => {
      const { json } = await get("/v3/jobs?fields=name,error_message,_links.self&sort=name&limit=1");
      expect(Object.keys(json).sort()).toEqual(["count", "jobs", "nextPageToken", "success"]);
      expect(json.jobs).toEqual([
        { name: "Alpine", errorMessage: "", _links: { self: expect.stringMatching(/^\/v3\/jobs\//) } },
      ]);
      const { jobs: found } = await jobs.listJobs({
        sort: "name",
        limit: 1,
        fields: { paths: ["name", "created_at"] },
      });
      expect(found[0]).toMatchObject({ name: "Alpine", jobId: "", etag: "", priority: 0 });
      expect(found[0]?.createdAt).toBeDefined();
      expect(found[0]?.links).toBeUndefined();

      const jobId = (await jobs.listJobs({ limit: 1 })).jobs[0]?.jobId;
      expect((await get(`/v3/jobs/${jobId}?fields=jobId`)).json).toEqual({ success: true, job: { jobId } });
      expect((await get(`/v3/jobs/${jobId}?readMask=jobId`)).json.job).toEqual({ jobId });
      expect(Object.keys((await get(`/v3/jobs/${jobId}?fields=*`)).json.job).length).toBeGreaterThan(10);
    });

    it("reaches into repeated messages and into bare lists", async () => {
      const { json } = await get(`/v3/resources/${dock}?fields=devices.deviceId,devices.status`);
      expect(json.resource).toEqual({ devices: [{ deviceId: "drone-1", status: "offline" }] });
      const keys = await get("/api/v1/api-keys?fields=role&filter[role]=admin&limit=1");
      expect(keys.json).toEqual([{ role: "admin" }]);
    });

    it("names what the resource does not have", async () => {
      const { status, json } = await get("/v3/jobs?fields=name,links.nothing");
      expect([status, json.details.reason, json.details.path]).toEqual([
        400,
        "INVALID_FIELD_MASK",
        "links.nothing",
      ]);
      await expectReason(jobs.listJobs({ fields: { paths: ["nothing"] } }), "INVALID_FIELD_MASK");
      await expectReason(jobs.listJobs({ fields: { paths: ["name.first"] } }), "INVALID_FIELD_MASK");
      await expectReason(jobs.listJobs({ fields: { paths: Array(65).fill("name") } }), "VALIDATION_ERROR");
    });
  });

  it("lists resources, keys, shares, sessions and samples by the same rules", async () => {
    const other = await server.newGroup(apiKey);
    const resources = server.client(ResourceService, apiKey);
    const by = async (request: object) =>
      (await resources.listResources(request)).resources.map((each) => each.deviceGroupId);
    expect(await by({ sort: "-created_at" })).toEqual([other, dock]);
    expect(await by({ filter: `{"deviceGroupId":"${dock}"}`, page: 1 })).toEqual([dock]);

    const keys = server.client(ApiKeyService, apiKey);
    const { apiKey: pilot } = await keys.createApiKey({ name: "pilot", role: Role.PILOT });
    const { apiKeys, pageInfo } = await keys.listApiKeys({
      filter: '{"role":"PILOT","revokedAt":null}',
      page: 1,
    });
    expect([apiKeys.map(({ id }) => id), pageInfo?.totalItems]).toEqual([[pilot?.id], 1]);

    const shares = server.client(ShareService, apiKey);
    for (const [resourceId, timeout] of [
      [dock, 5],
      [other, 9],
      [dock, 7],
    ] as const)
      await shares.createShare({ resourceId, timeout });
    const found = await shares.listShares({ filter: `{"resource_id":"${dock}"}`, sort: "-expires_at" });
    expect(found.shares.map(({ resourceId }) => resourceId)).toEqual([dock, dock]);
    expect(Number(found.shares[0]?.expiresAt?.seconds)).toBeGreaterThan(
      Number(found.shares[1]?.expiresAt?.seconds),
    );
    const { shareCode = "" } = found.shares[0] ?? {};
    expect(
      (await shares.listShareSessions({ shareCode, filter: '{"endedAt":null}', page: 1 })).pageInfo,
    ).toMatchObject({ totalItems: 0, totalPages: 0 });

    const telemetry = server.client(TelemetryService, apiKey);
    const sequences: bigint[] = [];
    for (const batteryPercent of [1, 2, 3]) {
      sequences.push(
        (await telemetry.publishSample({ deviceGroupId: dock, sample: { batteryPercent } })).sequence,
      );
    }
    const newest = await telemetry.listSamples({
      deviceGroupId: dock,
      sort: "-sequence",
      limit: 2,
      fields: { paths: ["sequence"] },
    });
    expect(newest.samples.map(({ sequence }) => sequence)).toEqual(sequences.slice(1).reverse());
    expect(newest.samples[0]?.sample).toBeUndefined();
    const after = await telemetry.listSamples({
      deviceGroupId: dock,
      filter: `{"sequence":{"gt":${sequences[0]}}}`,
    });
    expect(after.count).toBe(2);
  });

  it("tells over REST of the next page and of the total in headers, also of a bare array", async () => {
    const { secret } = await server.newKey(Role.ADMIN, { tenantId: "linked" });
    const keys = server.client(ApiKeyService, secret);
    for (const name of ["a & b", "c", "d", "e"]) await keys.createApiKey({ name, role: Role.PILOT });
    const first =
      "/api/v1/api-keys?page=1&per_page=2&sort=name&filter[role]=pilot&filter[name][ne]=d&fields=name";
    const read = async (path: string) => {
      const { status, json, headers } = await server.rest("GET", path, { apiKey: secret });
      expect(status).toBe(200);
      const [, next = ""] = /^<(.*)>; rel="next"$/.exec(headers.get("link") ?? "") ?? [];
      return { json, next, total: headers.get("x-total-count"), link: headers.get("link") };
    };
    const one = await read(first);
    expect([one.json, one.total]).toEqual([[{ name: "a & b" }, { name: "c" }], "3"]);
    const two = await read(one.next);
    expect([two.json, two.total, two.link]).toEqual([[{ name: "e" }], null, null]);
    expect((await read("/api/v1/api-keys?page=7")).total).toBe("5");
    const listed = await read("/api/v1/audit-logs?page=1&limit=2");
    expect([listed.total, new URLSearchParams(listed.next.split("?")[1]).get("page_token")]).toEqual([
      String(listed.json.pageInfo.totalItems),
      listed.json.nextPageToken,
    ]);
    expect((await read("/api/v1/tenants/linked")).link).toBeNull();
  });

  it("lists the audit log by the same rules, beside its plain fields", async () => {
    const { secret } = await server.newKey(Role.ADMIN, { tenantId: "audit-lists" });
    const users = server.client(UserService, secret);
    const logs = server.client(AuditLogService, secret);
    const { user } = await users.createUser({ email: "a@example.com", name: "A" });
    const { id: resourceId = "" } = user ?? {};
    await users.updateUser({ id: resourceId, name: "B" });
    await expectReason(users.createUser({ email: "a@example.com", name: "C" }), "USER_EXISTS");
    await users.deleteUser({ id: resourceId });
    const actions = async (request: object) =>
      (await logs.listAuditLogs(request)).auditLogs.map(({ action }) => action);
    expect(await actions({})).toEqual(["DeleteUser", "CreateUser", "UpdateUser", "CreateUser"]);
    expect(await actions({ sort: "action" })).toEqual([
      "CreateUser",
      "CreateUser",
      "DeleteUser",
      "UpdateUser",
    ]);
    expect(await actions({ filter: '{"action":{"prefix":"Create"},"reason":{"ne":""}}' })).toEqual([
      "CreateUser",
    ]);
    const start = timestampFromMs(0);
    const end = timestampFromMs(Date.now() + 60_000);
    expect(await actions({ resourceId, startTime: start, endTime: end, sort: "sequence" })).toEqual([
      "CreateUser",
      "UpdateUser",
      "DeleteUser",
    ]);
    expect(await actions({ resourceId, endTime: start })).toEqual([]);

    const path = "/api/v1/audit-logs";
    const read = async (query: string) =>
      (await server.rest("GET", `${path}?${query}`, { apiKey: secret })).json;
    const page = await read(
      `outcome=SUCCEEDED&filter[resourceId]=${resourceId}&page=2&limit=2&fields=action`,
    );
    expect(page.auditLogs).toEqual([{ action: "CreateUser" }]);
    expect(page.pageInfo).toMatchObject({ page: 2, totalItems: 3, totalPages: 2, hasNext: false });
    // By token, in an order of its own and in that of the times, through all rows.
    for (const query of ["sort=-action,occurredAt&", "startTime=2020-01-01T00:00:00Z&"]) {
      const sequences: string[] = [];
      for (let token: string | undefined = ""; token !== undefined; ) {
        const { auditLogs, nextPageToken } = await read(`${query}limit=1&pageToken=${token}`);
        sequences.push(...auditLogs.map(({ sequence }: { sequence: string }) => sequence));
        token = nextPageToken || undefined;
      }
      expect(sequences).toEqual(query.startsWith("sort") ? ["2", "4", "1", "3"] : ["4", "3", "2", "1"]);
    }
    const { nextPageToken: pageToken } = await logs.listAuditLogs({ pageSize: 1, action: "CreateUser" });
    await expectReason(logs.listAuditLogs({ pageSize: 1, pageToken }), "INVALID_PAGE_TOKEN");
    await expectReason(logs.listAuditLogs({ filter: '{"hash":""}' }), "INVALID_FILTER");
    await expectReason(logs.listAuditLogs({ sort: "digestBefore" }), "INVALID_SORT");
    expect((await logs.verifyAuditLogs({})).valid).toBe(true);
  });

  it("lists tenants by the same rules, to others than the first only their own", async () => {
    const tenants = server.client(TenantService, server.admin);
    for (const [id, name] of [
      ["list-a", "Zebra survey"],
      ["list-b", "Yak Survey"],
      ["list-c", "Other"],
    ] as const)
      await tenants.createTenant({ id, name });
    await tenants.suspendTenant({ id: "list-b", reason: "unpaid" });
    const ids = async (request: object) => (await tenants.listTenants(request)).tenants.map(({ id }) => id);
    const surveys = '{"name":{"contains":"survey"}}';
    expect(await ids({ filter: surveys })).toEqual(["list-a", "list-b"]);
    expect(await ids({ filter: surveys, sort: "name" })).toEqual(["list-b", "list-a"]);
    expect(await ids({ filter: surveys, status: TenantStatus.ACTIVE })).toEqual(["list-a"]);
    expect(await ids({ filter: '{"id":{"prefix":"list-"},"suspendedAt":null}', sort: "-id" })).toEqual([
      "list-c",
      "list-a",
    ]);
    const {
      pageInfo,
      nextPageToken,
      tenants: some,
    } = await tenants.listTenants({
      filter: surveys,
      sort: "-suspended_at",
      page: 1,
      pageSize: 1,
      fields: { paths: ["id"] },
    });
    expect([pageInfo?.totalItems, some.map(({ id, name }) => id + name)]).toEqual([2, ["list-b"]]);
    const next = { filter: surveys, sort: "-suspended_at", pageToken: nextPageToken };
    expect(await ids(next)).toEqual(["list-a"]);
    const mine = server.client(TenantService, apiKey);
    expect((await mine.listTenants({ page: 1 })).pageInfo?.totalItems).toBe(1);
    await expectReason(mine.listTenants(next), "INVALID_PAGE_TOKEN");
  });

  it("lists users by the same rules", async () => {
    const { secret } = await server.newKey(Role.ADMIN, { tenantId: "user-lists" });
    const users = server.client(UserService, secret);
    const made: string[] = [];
    for (const [email, name] of [
      ["c@example.com", "ann"],
      ["B@example.com", "Bob"],
      ["a@example.org", "cleo"],
    ] as const)
      made.push((await users.createUser({ email, name })).user?.id ?? "");
    await users.updateUser({ id: made[1] ?? "", name: "zoe", status: UserStatus.DISABLED });
    const names = async (request: object) => (await users.listUsers(request)).users.map(({ name }) => name);
    expect(await names({})).toEqual(["cleo", "zoe", "ann"]);
    expect(await names({ sort: "email" })).toEqual(["cleo", "zoe", "ann"]);
    expect(await names({ sort: "-name", filter: '{"email":{"contains":"EXAMPLE.COM"}}' })).toEqual([
      "zoe",
      "ann",
    ]);
    expect(await names({ filter: '{"status":"DISABLED"}' })).toEqual(["zoe"]);
    expect(await names({ status: UserStatus.ACTIVE, sort: "name" })).toEqual(["ann", "cleo"]);
    expect((await names({ sort: "-updatedAt,-status", pageSize: 1 }))[0]).toBe("zoe");
    const { json } = await server.rest("GET", "/api/v1/users?fields=name&sort=name&page=2&limit=2", {
      apiKey: secret,
    });
    expect([json.users, json.pageInfo.totalItems]).toEqual([[{ name: "zoe" }], 3]);
    await expectReason(users.listUsers({ sort: "roles" }), "INVALID_SORT");
  });

  describe("an etag", () => {
    const newJob = async () => {
      const { job } = await jobs.createJob({ name: "mine", deviceGroupId: dock, scheduledAt: later });
      if (!job) throw new Error("no job");
      return job;
    };
    /** How many of these attempts succeeded; the others must have failed for the etag. */
    async function winners(attempts: Promise<unknown>[]): Promise<number> {
      const outcomes = await Promise.allSettled(attempts);
      for (const outcome of outcomes) {
        if (outcome.status === "rejected")
          expect(reasonOf(ConnectError.from(outcome.reason))).toBe("ETAG_MISMATCH");
      }
      return outcomes.filter(({ status }) => status === "fulfilled").length;
    }

    it("lets one of many who read the same win, over gRPC or Connect and over REST", async () => {
      const { jobId, etag } = await newJob();
      const rename = (name: string, at: string) => jobs.updateJob({ jobId, name, etag: at });
      expect(await winners(Array.from({ length: 8 }, (_, n) => rename(`name ${n}`, etag)))).toBe(1);

      const present = (await jobs.getJob({ jobId })).job?.etag;
      const answers = await Promise.all(
        Array.from({ length: 8 }, (_, n) =>
          server.rest("PATCH", `/v3/jobs/${jobId}`, { apiKey, body: { name: `other ${n}`, etag: present } }),
        ),
      );
      expect(answers.map(({ status }) => status).sort()).toEqual([200, ...Array(7).fill(412)]);
      const lost = answers.find(({ status }) => status === 412)?.json;
      expect(lost).toMatchObject({
        success: false,
        error: "ETAG_MISMATCH",
        code: 412,
        details: { etag: "3" },
      });
    });

    it("guards deletion and cancellation, in the query and in the body", async () => {
      const { jobId, etag } = await newJob();
      await jobs.updateJob({ jobId, priority: 2 });
      expect((await server.rest("DELETE", `/v3/jobs/${jobId}?etag=${etag}`, { apiKey })).status).toBe(412);
      expect((await server.rest("POST", `/v3/jobs/${jobId}/cancel`, { apiKey, body: { etag } })).status).toBe(
        412,
      );
      await expectReason(jobs.deleteJob({ jobId, etag }), "ETAG_MISMATCH");
      await expectReason(jobs.cancelJob({ jobId, etag }), "ETAG_MISMATCH");
      const read = (await jobs.getJob({ jobId })).job?.etag ?? "";
      expect((await jobs.cancelJob({ jobId, etag: read })).job?.etag).not.toBe(read);
      await jobs.deleteJob({ jobId, etag: '"1", "3"' });
    });

    it("guards device groups, keys and shares", async () => {
      const resources = server.client(ResourceService, apiKey);
      const deviceGroupId = await server.newGroup(apiKey);
      const { etag = "" } = (await resources.getResource({ deviceGroupId })).resource ?? {};
      expect(etag).not.toBe("");
      const rename = (name: string) => resources.updateResource({ deviceGroupId, name, etag });
      expect(await winners([rename("a"), rename("b"), rename("c")])).toBe(1);
      await expectReason(resources.deleteResource({ deviceGroupId, etag }), "ETAG_MISMATCH");
      await resources.deleteResource({ deviceGroupId, etag: "*" });

      const keys = server.client(ApiKeyService, apiKey);
      const { apiKey: key } = await keys.createApiKey({ name: "short" });
      const { id = "", etag: made = "" } = key ?? {};
      await keys.revokeApiKey({ id, etag: made });
      await expectReason(keys.revokeApiKey({ id, etag: made }), "ETAG_MISMATCH");
      await keys.revokeApiKey({ id });

      const shares = server.client(ShareService, apiKey);
      const { share } = await shares.createShare({ resourceId: dock, timeout: 5 });
      const { shareCode = "", etag: shared = "" } = share ?? {};
      expect((await shares.getShare({ shareCode })).share?.etag).toBe(shared);
      await expectReason(shares.revokeShare({ shareCode, etag: 'W/"1"' }), "ETAG_MISMATCH");
      await shares.revokeShare({ shareCode, etag: shared });
    });
  });

  it("spells device status and the fields of broken rules as REST clients do", async () => {
    const { json } = await get("/v3/resources");
    const statuses = json.resources.flatMap(({ devices }: { devices: { status: string }[] }) =>
      devices.map(({ status }) => status),
    );
    expect(statuses).toEqual(["offline"]);
    const body = { name: "x", deviceGroupId: "", desiredLocation: { type: "Point", coordinates: [1] } };
    const refused = await server.rest("POST", "/v3/jobs/create", { apiKey, body });
    const { violations } = refused.json.details;
    expect(violations.map(({ field }: { field: string }) => field)).toEqual([
      "deviceGroupId",
      "desiredLocation.coordinates",
    ]);
    expect(refused.json.message).toMatch(/^deviceGroupId: /);
    const error = await expectReason(jobs.createJob({ name: "x" }), "VALIDATION_ERROR");
    expect(error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field).toBe("device_group_id");
  });
});
