import { createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { TenantStatus } from "#gen/portolan/identity/v1/tenant_pb.js";
import { TenantService } from "#gen/portolan/identity/v1/tenant_service_pb.js";
import { TokenService } from "#gen/portolan/identity/v1/token_service_pb.js";
import { UserStatus } from "#gen/portolan/identity/v1/user_pb.js";
import { UserService } from "#gen/portolan/identity/v1/user_service_pb.js";
import { DispatchService } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { migrate } from "#kernel/migrate.ts";
import { migrations } from "#services/identity/index.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason, reader, startTestServer, type TestServer } from "#test/support/server.ts";

onEachEngine((database) => {
  let server: TestServer;
  let count = 0;
  const newId = () => `acme-${count++}`;
  const tenants = (key = server.admin) => server.client(TenantService, key);
  const users = (key = server.admin) => server.client(UserService, key);

  beforeAll(async () => {
    server = await startTestServer(database());
  });
  afterAll(() => server.stop());

  /** A tenant with an administrator. */
  async function newTenant(role = Role.ADMIN) {
    const id = newId();
    await tenants().createTenant({ id, name: "Acme" });
    const key = await server.newKey(role, { tenantId: id });
    return { id, key: key.secret, keyId: key.id };
  }

  describe("tenants", () => {
    it("are made once, read, changed with an etag, and listed by id", async () => {
      const id = newId();
      const { tenant } = await tenants().createTenant({ id, name: "Acme" });
      expect(tenant).toMatchObject({ id, name: "Acme", status: TenantStatus.ACTIVE, etag: "1" });
      await expectReason(tenants().createTenant({ id, name: "Again" }), "TENANT_EXISTS");
      expect((await tenants().getTenant({ id })).tenant).toEqual(tenant);
      const renamed = await tenants().updateTenant({ id, name: "Acme Ltd", etag: "1" });
      expect(renamed.tenant).toMatchObject({ name: "Acme Ltd", etag: "2" });
      await expectReason(tenants().updateTenant({ id, name: "Late", etag: "1" }), "ETAG_MISMATCH");
      await expectReason(tenants().getTenant({ id: "nobody" }), "TENANT_NOT_FOUND");
      await expectReason(tenants().createTenant({ id: "Not valid", name: "x" }), "VALIDATION_ERROR");
    });

    it("are listed page by page, by state", async () => {
      const ids = [newId(), newId(), newId()];
      for (const id of ids) await tenants().createTenant({ id, name: id });
      await tenants().suspendTenant({ id: ids[1] ?? "" });
      const listed: string[] = [];
      let pageToken = "";
      do {
        const page = await tenants().listTenants({ pageSize: 2, pageToken, status: TenantStatus.ACTIVE });
        listed.push(...page.tenants.map(({ id }) => id));
        pageToken = page.nextPageToken;
      } while (pageToken);
      expect(listed).toEqual([...listed].sort());
      expect(listed).toEqual(expect.arrayContaining(["default", ids[0], ids[2]]));
      expect(listed).not.toContain(ids[1]);
    });

    it("are made by the first key for them as well", async () => {
      const id = newId();
      await server.newKey(Role.VIEWER, { tenantId: id });
      expect((await tenants().getTenant({ id })).tenant).toMatchObject({ id, name: id });
    });

    it("are managed by the first tenant; others see and rename their own only", async () => {
      const { id, key } = await newTenant();
      expect((await tenants(key).listTenants({})).tenants.map((tenant) => tenant.id)).toEqual([id]);
      expect((await tenants(key).getTenant({ id })).tenant?.id).toBe(id);
      expect((await tenants(key).updateTenant({ id, name: "Ours" })).tenant?.name).toBe("Ours");
      await expectReason(tenants(key).getTenant({ id: "default" }), "TENANT_NOT_FOUND");
      await expectReason(tenants(key).updateTenant({ id: "default", name: "x" }), "TENANT_NOT_FOUND");
      await expectReason(tenants(key).suspendTenant({ id: "default" }), "TENANT_NOT_FOUND");
      await expectReason(tenants(key).deleteTenant({ id: "default" }), "TENANT_NOT_FOUND");
      await expectReason(tenants(key).createTenant({ id: newId(), name: "x" }), "INSUFFICIENT_PERMISSIONS");
      await expectReason(tenants(key).suspendTenant({ id }), "INSUFFICIENT_PERMISSIONS");
      await expectReason(tenants(key).resumeTenant({ id }), "INSUFFICIENT_PERMISSIONS");
      await expectReason(tenants(key).deleteTenant({ id }), "INSUFFICIENT_PERMISSIONS");
    });

    it("are served over REST", async () => {
      const id = newId();
      const rest = (method: string, path: string, body?: unknown) =>
        server.rest(method, `/api/v1/tenants${path}`, body === undefined ? {} : { body });
      const created = await rest("POST", "", { id, name: "Acme" });
      expect([created.status, created.json.tenant.status]).toEqual([201, "active"]);
      expect((await rest("GET", `/${id}`)).json.tenant.name).toBe("Acme");
      expect((await rest("PATCH", `/${id}`, { name: "New" })).json.tenant.name).toBe("New");
      const suspended = await rest("POST", `/${id}/suspend`, { reason: "unpaid" });
      expect(suspended.json.tenant).toMatchObject({ status: "suspended", suspensionReason: "unpaid" });
      expect((await rest("POST", `/${id}/resume`, {})).json.tenant.status).toBe("active");
      const refused = await rest("DELETE", `/${id}`);
      expect([refused.status, refused.json.code]).toEqual([400, "ILLEGAL_TENANT_STATE"]);
      await rest("POST", `/${id}/suspend`, {});
      expect((await rest("DELETE", `/${id}`)).status).toBe(204);
      expect((await rest("GET", `/${id}`)).status).toBe(404);
      expect((await rest("GET", "?status=active")).json.tenants.length).toBeGreaterThan(0);
    });
  });

  describe("a suspended tenant", () => {
    it("has every credential refused with the reason over every protocol, until it is resumed", async () => {
      const { id, key, keyId } = await newTenant();
      const tokens = server.client(TokenService, key);
      const credentials = { grantType: "client_credentials", clientId: keyId, clientSecret: key };
      const { accessToken } = await tokens.issueToken(credentials);
      const clients = [
        createGrpcTransport({ baseUrl: server.url }),
        createGrpcWebTransport({ baseUrl: server.url, httpVersion: "1.1" }),
        createConnectTransport({ baseUrl: server.url, httpVersion: "1.1" }),
      ].map((transport) => createClient(JobService, transport));
      const headers: Record<string, string>[] = [
        { "x-api-key": key },
        { authorization: `Bearer ${key}` },
        { authorization: `Bearer ${accessToken}` },
      ];
      const attempts = clients.flatMap((client) =>
        headers.map((sent) => () => client.listJobs({}, { headers: sent })),
      );
      const rest = () => server.rest("GET", "/v3/jobs", { apiKey: key });
      for (const attempt of attempts) expect((await attempt()).count).toBe(0);

      await tenants().suspendTenant({ id, reason: "unpaid" });
      for (const attempt of attempts) await expectReason(attempt(), "TENANT_SUSPENDED");
      const answer = await rest();
      expect([answer.status, answer.json.error]).toEqual([403, "TENANT_SUSPENDED"]);
      await expectReason(tokens.issueToken(credentials), "TENANT_SUSPENDED");
      const form = { grant_type: "client_credentials", client_id: keyId, client_secret: key };
      const oauth = await server.rest("POST", "/v3/auth/token", { apiKey: key, body: form });
      expect([oauth.status, oauth.json.error]).toEqual([403, "access_denied"]);
      await expectReason(server.newKey(Role.VIEWER, { tenantId: id }), "TENANT_SUSPENDED");

      await tenants().resumeTenant({ id });
      for (const attempt of attempts)
        await expect
          .poll(() =>
            attempt().then(
              () => true,
              () => false,
            ),
          )
          .toBe(true);
      expect((await rest()).status).toBe(200);
    });

    it("has its live streams end with the reason, those of its shares as well", async () => {
      const { id, key } = await newTenant();
      await server.client(ResourceService, key).registerResource({ deviceGroupId: "dock", name: "Dock" });
      const { share } = await server
        .client(ShareService, key)
        .createShare({ deviceGroupId: "dock", timeout: 5 });
      const { shareCode = "" } = share ?? {};
      const resource = reader(server.client(ResourceService, key).trackResource({ deviceGroupId: "dock" }));
      const viewer = reader(server.client(ShareService).trackShare({ shareCode }));
      const orders = reader(server.client(DispatchService, key).watchDispatches({ deviceGroupId: "dock" }));
      let closeInput = () => {};
      const published = server.client(TelemetryService, key).publishTelemetry(
        (async function* () {
          yield { deviceGroupId: "dock", sample: { batteryPercent: 1 } };
          await new Promise<void>((resolve) => {
            closeInput = resolve;
          });
        })(),
      );
      published.catch(() => {});
      await Promise.all([resource.next(), viewer.next()]);
      const telemetry = server.client(TelemetryService, key);
      await expect.poll(async () => (await telemetry.listSamples({ deviceGroupId: "dock" })).count).toBe(1);

      await tenants().suspendTenant({ id });
      for (const stream of [resource, viewer, orders]) await expectReason(stream.rest(), "TENANT_SUSPENDED");
      await expectReason(published, "TENANT_SUSPENDED");
      closeInput();
      await expectReason(server.client(ShareService).trackShare({ shareCode }), "TENANT_SUSPENDED");
      await expectReason(server.client(ShareService).listShareResources({ shareCode }), "TENANT_SUSPENDED");
      await tenants().resumeTenant({ id });
      const again = reader(server.client(ShareService).trackShare({ shareCode }));
      expect((await again.next())?.deviceGroupId).toBe("dock");
      await again.stop();
    });

    it("is known to be suspended when another process has done it", async () => {
      const { id, key } = await newTenant();
      const other = database().open();
      await migrate(other, migrations);
      await other.write(async (queries) => {
        await queries.updateTable("tenants").set({ suspended_at: 1 }).where("tenant_id", "=", id).execute();
      });
      const outcome = () => server.rest("GET", "/v3/jobs", { apiKey: key }).then(({ status }) => status);
      await expect.poll(outcome, { timeout: 60_000 }).toBe(403);
    });

    it("is never the first tenant", async () => {
      await expectReason(tenants().suspendTenant({ id: "default" }), "ILLEGAL_TENANT_STATE");
      await expectReason(tenants().deleteTenant({ id: "default" }), "ILLEGAL_TENANT_STATE");
    });

    it("can be deleted for good: keys revoked, users gone, the id never used again", async () => {
      const { id, key } = await newTenant();
      const { user } = await users(key).createUser({ email: "a@example.com", name: "A" });
      expect(user?.tenantId).toBe(id);
      await expectReason(tenants().deleteTenant({ id }), "ILLEGAL_TENANT_STATE");
      await tenants().suspendTenant({ id });
      await tenants().deleteTenant({ id });
      await expectReason(tenants().getTenant({ id }), "TENANT_NOT_FOUND");
      await expectReason(tenants().deleteTenant({ id }), "TENANT_NOT_FOUND");
      await expectReason(tenants().resumeTenant({ id }), "TENANT_NOT_FOUND");
      await expectReason(tenants().createTenant({ id, name: "Again" }), "TENANT_EXISTS");
      await expectReason(server.newKey(Role.VIEWER, { tenantId: id }), "TENANT_SUSPENDED");
      const { status } = await server.rest("GET", "/v3/jobs", { apiKey: key });
      expect([401, 403]).toContain(status);
      const read = server.server.kernel.database.read;
      const rows = await read.selectFrom("users").selectAll().where("tenant_id", "=", id).execute();
      expect(rows).toEqual([]);
      const keys = await read
        .selectFrom("api_keys")
        .select("revoked_at")
        .where("tenant_id", "=", id)
        .execute();
      expect(keys.every(({ revoked_at }) => revoked_at !== null)).toBe(true);
    });
  });

  describe("users", () => {
    it("are made, read, changed with an etag, and deleted", async () => {
      const { key, id: tenantId } = await newTenant();
      const { user } = await users(key).createUser({ email: "Ada@Example.com", name: "Ada" });
      expect(user).toMatchObject({
        tenantId,
        email: "ada@example.com",
        roles: [Role.VIEWER],
        status: UserStatus.ACTIVE,
        etag: "1",
      });
      const { id = "" } = user ?? {};
      expect((await users(key).getUser({ id })).user).toEqual(user);
      const change = { id, name: "Ada L.", roles: [Role.PILOT, Role.MANAGER], status: UserStatus.DISABLED };
      const changed = (await users(key).updateUser({ ...change, etag: "1" })).user;
      expect(changed).toMatchObject({ ...change, email: "ada@example.com", etag: "2" });
      expect((await users(key).getUser({ id })).user).toEqual(changed);
      await expectReason(users(key).updateUser({ id, name: "Late", etag: "1" }), "ETAG_MISMATCH");
      await users(key).deleteUser({ id });
      await expectReason(users(key).getUser({ id }), "USER_NOT_FOUND");
      await expectReason(users(key).deleteUser({ id }), "USER_NOT_FOUND");
      await expectReason(users(key).updateUser({ id, name: "x" }), "USER_NOT_FOUND");
    });

    it("have an email address of their own within the tenant", async () => {
      const [one, two] = [await newTenant(), await newTenant()];
      await users(one.key).createUser({ email: "a@example.com", name: "A" });
      const { user } = await users(one.key).createUser({ email: "b@example.com", name: "B" });
      await expectReason(users(one.key).createUser({ email: "A@EXAMPLE.COM", name: "A" }), "USER_EXISTS");
      const taken = { id: user?.id ?? "", email: "a@example.com" };
      await expectReason(users(one.key).updateUser(taken), "USER_EXISTS");
      await users(two.key).createUser({ email: "a@example.com", name: "A" });
      for (const bad of [{ email: "nobody" }, { name: "" }, { roles: [Role.UNSPECIFIED] }, { roles: [9] }]) {
        const request = { email: "c@example.com", name: "C", ...bad };
        await expectReason(users(one.key).createUser(request), "VALIDATION_ERROR");
      }
    });

    it("are not there for other tenants, and not for other roles", async () => {
      const [one, two] = [await newTenant(), await newTenant()];
      const { user } = await users(one.key).createUser({ email: "a@example.com", name: "A" });
      const { id = "" } = user ?? {};
      await expectReason(users(two.key).getUser({ id }), "USER_NOT_FOUND");
      await expectReason(users(two.key).updateUser({ id, name: "x" }), "USER_NOT_FOUND");
      await expectReason(users(two.key).deleteUser({ id }), "USER_NOT_FOUND");
      expect((await users(two.key).listUsers({})).users).toEqual([]);
      const manager = await server.newKey(Role.MANAGER, { tenantId: one.id });
      await expectReason(users(manager.secret).listUsers({}), "INSUFFICIENT_PERMISSIONS");
    });

    it("are listed newest first, page by page, by status, also over REST", async () => {
      const { key } = await newTenant();
      for (const name of ["a", "b", "c"]) await users(key).createUser({ email: `${name}@example.com`, name });
      const first = await server.rest("GET", "/api/v1/users?pageSize=2", { apiKey: key });
      expect(first.json.users.map((user: { name: string }) => user.name)).toEqual(["c", "b"]);
      expect(first.json.users[0]).toMatchObject({ roles: ["viewer"], status: "active" });
      const path = `/api/v1/users?pageSize=2&pageToken=${first.json.nextPageToken}`;
      const second = await server.rest("GET", path, { apiKey: key });
      expect(second.json.users.map((user: { name: string }) => user.name)).toEqual(["a"]);
      expect((await users(key).listUsers({ status: UserStatus.DISABLED })).users).toEqual([]);
      const body = { email: "d@example.com", name: "d", roles: ["manager"] };
      const made = await server.rest("POST", "/api/v1/users", { apiKey: key, body });
      expect([made.status, made.json.user.roles]).toEqual([201, ["manager"]]);
      const own = `/api/v1/users/${made.json.user.id}`;
      const patched = await server.rest("PATCH", own, { apiKey: key, body: { status: "disabled" } });
      expect(patched.json.user).toMatchObject({ status: "disabled", name: "d" });
      expect((await server.rest("DELETE", own, { apiKey: key })).status).toBe(204);
    });
  });

  describe("usage of a key", () => {
    it("counts calls and failures by RPC and by day, with the time they took", async () => {
      const key = await server.newKey(Role.VIEWER);
      const jobs = server.client(JobService, key.secret);
      await jobs.listJobs({});
      await jobs.listJobs({});
      await expectReason(jobs.getJob({ jobId: "job-none" }), "JOB_NOT_FOUND");
      await expectReason(jobs.deleteJob({ jobId: "job-none" }), "INSUFFICIENT_PERMISSIONS");
      const usage = await server.client(ApiKeyService, server.admin).getApiKeyUsage({ id: key.id });
      expect(usage).toMatchObject({
        id: key.id,
        callCount: 4n,
        totalRequests: 4,
        successRequests: 2,
        errorRequests: 2,
        byEndpoint: {
          "portolan.jobs.v1.JobService/ListJobs": 2,
          "portolan.jobs.v1.JobService/GetJob": 1,
          "portolan.jobs.v1.JobService/DeleteJob": 1,
        },
      });
      const sum = (of: (day: { requests: number; errors: number }) => number) =>
        usage.byDay.reduce((total, day) => total + of(day), 0);
      expect([sum((day) => day.requests), sum((day) => day.errors)]).toEqual([4, 2]);
      expect(usage.avgDuration).toBeGreaterThan(0);
      expect(usage.lastUsedAt).toBeDefined();
    });

    it("counts a stream when it begins", async () => {
      const key = await server.newKey(Role.VIEWER);
      const deviceGroupId = await server.newGroup();
      const stream = reader(server.client(ResourceService, key.secret).trackResource({ deviceGroupId }));
      await stream.next();
      const usage = await server.client(ApiKeyService, server.admin).getApiKeyUsage({ id: key.id });
      expect([usage.totalRequests, usage.errorRequests, usage.avgDuration]).toEqual([1, 0, 0]);
      await stream.stop();
    });

    it("is told over REST in the form of its document", async () => {
      const key = await server.newKey(Role.VIEWER);
      await server.rest("GET", "/v3/jobs", { apiKey: key.secret });
      const { json } = await server.rest("GET", `/api/v1/api-keys/${key.id}/usage?days=1`);
      expect(json).toMatchObject({ totalRequests: 1, successRequests: 1, errorRequests: 0 });
      expect(json.byEndpoint).toEqual({ "portolan.jobs.v1.JobService/ListJobs": 1 });
      const none = await server.rest("GET", "/api/v1/api-keys/key-none/usage");
      expect([none.status, none.json.code]).toEqual([404, "API_KEY_NOT_FOUND"]);
      expect((await server.rest("GET", `/api/v1/api-keys/${key.id}/usage?days=91`)).status).toBe(400);
    });
  });
});
