import { fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { timestampFromDate, ValueSchema } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatchOrder, BatchService } from "#gen/portolan/batch/v1/batch_service_pb.js";
import { AuditLogService } from "#gen/portolan/identity/v1/audit_log_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason, startTestServer, type TestServer } from "#test/support/server.ts";

interface Operation {
  id?: string;
  method: string;
  path: string;
  headers?: Record<string, string>;
  body?: JsonValue;
}

onEachEngine((database) => {
  let server: TestServer;
  let deviceGroupId: string;
  let names = 0;
  /** So that nothing happens to a job meanwhile. */
  const later = timestampFromDate(new Date("2099-01-01"));
  const newName = () => `batch-${names++}`;

  /** Sends a batch; the second part of the URL tells the surface. */
  const send = (
    operations: Operation[],
    more: object = {},
    { path = "/api/v1/batch", apiKey = server.admin } = {},
  ) => server.rest("POST", path, { apiKey, body: { operations, ...more } });
  const statuses = (results: { status: number }[]) => results.map(({ status }) => status);
  const create = (name: string, more: Partial<Operation> = {}): Operation => ({
    method: "POST",
    path: "/v3/jobs/create",
    body: { name, DeviceGroupID: deviceGroupId, scheduledAt: "2099-01-01T00:00:00Z" },
    ...more,
  });
  const register = (id: string, more: Partial<Operation> = {}): Operation => ({
    method: "POST",
    path: "/v3/resources",
    body: { deviceGroupId: id, name: "Dock" },
    ...more,
  });
  const jobs = () => server.client(JobService, server.admin);
  const count = async () => (await jobs().listJobs({ deviceGroupId, limit: 100 })).count;

  beforeAll(async () => {
    server = await startTestServer(database());
    deviceGroupId = await server.newGroup();
  });
  afterAll(() => server.stop());

  describe("a batch", () => {
    it("answers every operation in order, as if each had been sent alone", async () => {
      const { job } = await jobs().createJob({ name: "one", deviceGroupId, scheduledAt: later });
      const path = `/v3/jobs/${job?.jobId}`;
      const alone = await server.rest("GET", path);
      const { status, json } = await send([
        { id: "there", method: "GET", path },
        { method: "GET", path: "/v3/jobs/none" },
        create("two"),
        { method: "GET", path: "/nothing" },
        { method: "PUT", path },
        { method: "GET", path: "/v3/jobs?limit=0&colour=red" },
        { method: "GET", path: "/api/v1/api-keys" },
        { method: "HEAD", path },
      ]);
      expect(status).toBe(200);
      expect(statuses(json.results)).toEqual([200, 404, 201, 404, 405, 400, 200, 200]);
      expect(json.results.map(({ id }: Operation) => id)).toEqual([
        "there",
        "op2",
        "op3",
        "op4",
        "op5",
        "op6",
        "op7",
        "op8",
      ]);
      expect(json.results[0].body).toEqual(alone.json);
      expect(json.results[0].headers["content-type"]).toBe("application/json");
      expect(json.results[1].body).toMatchObject({ success: false, error: "JOB_NOT_FOUND", code: 404 });
      expect(json.results[4].headers.allow).toContain("GET");
      expect(json.results[6].body).toBeInstanceOf(Array);
      expect(json.results[7].body).toBeUndefined();
    });

    it("answers in the surface of its URL", async () => {
      const plain = await send([{ method: "GET", path: "/v3/jobs" }], { atomic: true });
      expect(Object.keys(plain.json)).toEqual(["results", "rolledBack"]);
      const platform = await send([{ method: "GET", path: "/v3/jobs" }], {}, { path: "/v1/batch" });
      expect(Object.keys(platform.json)).toEqual(["results", "rolled_back"]);
      expect((await send([])).json).toMatchObject({ code: "VALIDATION_ERROR" });
      const refused = await send([], {}, { path: "/v1/batch" });
      expect([refused.status, refused.json.error.code]).toEqual([422, "VALIDATION_ERROR"]);
      expect(refused.json.error.details[0].field).toBe("operations");
    });

    it("runs over RPC as well", async () => {
      const { results } = await server.client(BatchService, server.admin).batch({
        operations: [
          {
            id: "new",
            method: "POST",
            path: "/v3/resources",
            body: fromJson(ValueSchema, { name: "Over RPC" }),
          },
          { method: "GET", path: "/v3/resources/{{new.body.resource.deviceGroupId}}" },
        ],
      });
      expect(statuses(results)).toEqual([201, 200]);
      const [made, read] = results.map(({ body }) => body && (toJson(ValueSchema, body) as never));
      expect((read as unknown as { resource: object }).resource).toEqual(
        (made as unknown as { resource: object }).resource,
      );
    });

    it("takes 100 operations and no more", async () => {
      const read = { method: "GET", path: "/v3/jobs?limit=1" };
      const full = await send(Array.from({ length: 100 }, () => read));
      expect(new Set(statuses(full.json.results))).toEqual(new Set([200]));
      expect(full.json.results).toHaveLength(100);
      const over = await send(Array.from({ length: 101 }, () => read));
      expect([over.status, over.json.code]).toEqual([400, "VALIDATION_ERROR"]);
    });

    it.each<[string, Partial<Operation>, string]>([
      ["credentials", { headers: { Authorization: "Bearer x" } }, 'operations[0].headers["Authorization"]'],
      ["an API key", { headers: { "x-api-key": "sk_other" } }, 'operations[0].headers["x-api-key"]'],
      ["a header that is none", { headers: { "a b": "c" } }, 'operations[0].headers["a b"]'],
      ["a line break in a header", { headers: { x: "a\r\nb" } }, 'operations[0].headers["x"]'],
      ["a URL", { path: "http://elsewhere/v3/jobs" }, "operations[0].path"],
      ["an unknown method", { method: "TRACE" }, "operations[0].method"],
      ["an id that cannot be referred to", { id: "a.b" }, "operations[0].id"],
    ])("refuses %s and runs nothing", async (_, wrong, field) => {
      const before = await count();
      const { status, json } = await send([{ method: "GET", path: "/v3/jobs", ...wrong }, create("never")]);
      expect([status, json.details[0].field]).toEqual([400, field]);
      expect(await count()).toBe(before);
    });

    it("refuses two operations of one name", async () => {
      const read = { method: "GET", path: "/v3/jobs" };
      expect(
        (
          await send([
            { ...read, id: "a" },
            { ...read, id: "a" },
          ])
        ).status,
      ).toBe(400);
      expect((await send([{ ...read, id: "op2" }, read])).json.details[0].field).toBe("operations[1].id");
    });

    it("holds neither streams nor batches", async () => {
      const { json } = await send([
        { method: "GET", path: "/prod?resourceId=x" },
        { method: "POST", path: "/v1/batch", body: { operations: [] } },
      ]);
      expect(statuses(json.results)).toEqual([400, 400]);
      expect(json.results[0].body.error).toBe("NOT_BATCHABLE");
      expect(json.results[1].body.error.code).toBe("NOT_BATCHABLE");
    });

    it("gives each operation an id of the batch for the log", async () => {
      const headers = { "x-request-id": "outer" };
      const body = { operations: [{ id: "a", method: "GET", path: "/v3/jobs/none" }] };
      const { json } = await server.rest("POST", "/api/v1/batch", { headers, body });
      expect(json.results[0].headers["x-request-id"]).toBe("outer:a");
      expect(json.results[0].body.requestId).toBe("outer:a");
    });
  });

  describe("the rights of a batch", () => {
    it("are those of its caller", async () => {
      const viewer = await server.newKey(Role.VIEWER);
      const operations = [
        { method: "GET", path: "/v3/jobs" },
        create("no"),
        { method: "GET", path: "/api/versions" },
      ];
      const { json } = await send(operations, {}, { apiKey: viewer.secret });
      expect(statuses(json.results)).toEqual([200, 403, 200]);
      const none = await send(operations, {}, { apiKey: "" });
      expect(none.status).toBe(401);
      await expectReason(
        server.client(BatchService).batch({ operations: [operations[0] as never] }),
        "MISSING_CREDENTIALS",
      );
    });

    it("end at its tenant", async () => {
      const { job } = await jobs().createJob({ name: "mine", deviceGroupId });
      const stranger = await server.newKey(Role.ADMIN, { tenantId: "batch-stranger" });
      const read = [{ method: "GET", path: `/v3/jobs/${job?.jobId}` }];
      expect(statuses((await send(read, {}, { apiKey: stranger.secret })).json.results)).toEqual([404]);
    });
  });

  it("honours the Idempotency-Key of each operation", async () => {
    const before = await count();
    const operation = create("once", { headers: { "Idempotency-Key": newName() } });
    const { json } = await send([operation, operation]);
    expect(statuses(json.results)).toEqual([201, 201]);
    expect(json.results[1].body).toEqual(json.results[0].body);
    expect(json.results[1].headers["idempotency-replayed"]).toBe("true");
    const again = await send([
      operation,
      { ...operation, body: { name: "other", DeviceGroupID: deviceGroupId } },
    ]);
    expect(statuses(again.json.results)).toEqual([201, 409]);
    expect(await count()).toBe(before + 1);
  });

  describe("references", () => {
    it("carry results from one operation to the next", async () => {
      const { json } = await send([
        { id: "dock", ...register(newName()) },
        {
          id: "job",
          ...create("{{dock.body.resource.name}} {{dock.status}}"),
          body: {
            name: "{{dock.body.resource.name}} {{dock.status}}",
            DeviceGroupID: "{{dock.body.resource.deviceGroupId}}",
          },
        },
        {
          method: "PATCH",
          path: "/v3/jobs/{{job.body.job.jobId}}",
          body: { priority: "{{job.body.job.priority}}" },
        },
        { method: "GET", path: "/v3/jobs?deviceGroupId={{dock.body.resource.deviceGroupId}}" },
      ]);
      expect(statuses(json.results)).toEqual([201, 201, 200, 200]);
      expect(json.results[1].body.job.name).toBe("Dock 201");
      expect(json.results[3].body.jobs).toHaveLength(1);
    });

    it("that lead nowhere fail their operation, and a failed operation fails those that refer to it", async () => {
      const { json } = await send([
        { method: "GET", path: "/v3/jobs/{{op2.body.job.jobId}}" },
        { method: "GET", path: "/v3/jobs/none" },
        { method: "GET", path: "/v3/jobs/{{op2.body.job.jobId}}" },
        { method: "GET", path: "/v3/jobs/{{op3.status}}" },
        { method: "GET", path: "/v3/jobs?limit=1" },
        { method: "GET", path: "/v3/jobs/{{op5.body.nothing}}" },
      ]);
      expect(statuses(json.results)).toEqual([400, 404, 424, 424, 200, 400]);
      const [early, , dependant, , , missing] = json.results;
      expect(early.body).toMatchObject({
        error: "REFERENCE_NOT_FOUND",
        details: { reference: "{{op2.body.job.jobId}}" },
      });
      expect(dependant.body).toMatchObject({ error: "FAILED_DEPENDENCY", details: { operation: "op2" } });
      expect(missing.body.message).toBe("{{op5.body.nothing}}: the answer has nothing there");
    });

    it("are text where the batch says so", async () => {
      const { json } = await send([create("{{op1.body.x}}")], { literal: true });
      expect(json.results[0].body.job.name).toBe("{{op1.body.x}}");
    });
  });

  describe("order", () => {
    it("is kept between changes and what is read before and after them", async () => {
      const id = newName();
      const read = { method: "GET", path: `/v3/resources/${id}` };
      const remove = { method: "DELETE", path: `/v3/resources/${id}` };
      const operations = [read, register(id), read, read, remove, read];
      for (const order of ["BATCH_ORDER_UNSPECIFIED", "sequential"]) {
        const { json } = await send(operations, { order });
        expect(statuses(json.results)).toEqual([404, 201, 200, 200, 200, 404]);
      }
    });

    it("may be given up for what does not refer to one another", async () => {
      const operations = [
        { id: "dock", ...register(newName()) },
        ...Array.from({ length: 10 }, () => create("together")),
        { method: "GET", path: "/v3/resources/{{dock.body.resource.deviceGroupId}}" },
      ];
      const { json } = await send(operations, { order: "parallel" });
      expect(statuses(json.results)).toEqual([...Array.from({ length: 11 }, () => 201), 200]);
    });
  });

  describe("an atomic batch", () => {
    const eventsOf = async (subject: string) => {
      const { rows } = await sql<{
        type: string;
      }>`select type from outbox where subject = ${subject}`.execute(server.server.kernel.database.read);
      return rows.map(({ type }) => type);
    };

    it("keeps everything when all succeed; each operation sees what those before it wrote", async () => {
      const id = newName();
      const heard: string[] = [];
      const stop = server.server.kernel.bus.listen("", ({ type }) => heard.push(type));
      const { json } = await send(
        [
          register(id),
          { id: "job", method: "POST", path: "/v3/jobs/create", body: { name: "x", DeviceGroupID: id } },
          { method: "PATCH", path: "/v3/jobs/{{job.body.job.jobId}}", body: { name: "y" } },
          { method: "GET", path: "/v3/jobs/{{job.body.job.jobId}}" },
        ],
        { atomic: true },
      );
      stop();
      expect([statuses(json.results), json.rolledBack]).toEqual([[201, 201, 200, 200], false]);
      expect(json.results[3].body.job.name).toBe("y");
      expect(heard.slice(0, 3)).toEqual(["resource.registered", "job.created", "job.updated"]);
      const { job } = await jobs().getJob({ jobId: json.results[1].body.job.jobId });
      expect(job?.deviceGroupId).toBe(id);
    });

    it.each([
      ["a rule", { method: "POST", path: "/v3/jobs/create", body: { name: "" } }, 400],
      ["a missing resource", { method: "GET", path: "/v3/jobs/none" }, 404],
      [
        "a conflict",
        {
          method: "POST",
          path: "/v3/resources",
          body: { deviceGroupId: "{{first.body.resource.deviceGroupId}}", name: "Again" },
        },
        409,
      ],
      ["a reference", { method: "GET", path: "/v3/jobs/{{first.body.x}}" }, 400],
      ["a stream", { method: "GET", path: "/prod?resourceId=x" }, 400],
    ])("keeps nothing when one fails because of %s", async (_, bad, status) => {
      const id = newName();
      const key = newName();
      const before = await count();
      const heard: string[] = [];
      const stop = server.server.kernel.bus.listen("resource.", ({ subject }) => heard.push(subject));
      const operations = [
        { id: "first", ...register(id) },
        create("x", { headers: { "Idempotency-Key": key } }),
        { id: "bad", ...bad },
        create("never"),
      ];
      const { status: outer, json } = await send(operations, { atomic: true });
      stop();
      expect([outer, statuses(json.results), json.rolledBack]).toEqual([200, [424, 424, status, 424], true]);
      expect(json.results[0].body).toMatchObject({
        error: "BATCH_ROLLED_BACK",
        details: { operation: "bad" },
      });
      expect([await count(), await eventsOf(id), heard]).toEqual([before, [], []]);
      expect((await server.rest("GET", `/v3/resources/${id}`)).status).toBe(404);
      // The key was not spent.
      const later = await send([create("x", { headers: { "Idempotency-Key": key } })]);
      expect(later.json.results[0].headers["idempotency-replayed"]).toBeUndefined();
    });

    it("leaves in the audit log what was refused, and nothing of what was undone", async () => {
      const requestId = newName();
      const operations = [register(newName()), { method: "DELETE", path: "/v3/jobs/none" }];
      const rowsOf = async (id: string) => {
        const logs = server.client(AuditLogService, server.admin);
        return (await logs.listAuditLogs({ requestId: `${requestId}:${id}` })).auditLogs;
      };
      const headers = { "x-request-id": requestId };
      await server.rest("POST", "/api/v1/batch", { headers, body: { operations, atomic: true } });
      expect(await rowsOf("op1")).toEqual([]);
      expect(await rowsOf("op2")).toMatchObject([{ action: "DeleteJob", reason: "JOB_NOT_FOUND" }]);
      await server.rest("POST", "/api/v1/batch", {
        headers,
        body: { operations: [operations[0]], atomic: true },
      });
      expect(await rowsOf("op1")).toMatchObject([{ action: "RegisterResource" }]);
    });

    it("is atomic over RPC", async () => {
      const id = newName();
      const body = fromJson(ValueSchema, { deviceGroupId: id, name: "Dock" });
      const { results, rolledBack } = await server.client(BatchService, server.admin).batch({
        atomic: true,
        order: BatchOrder.PARALLEL,
        operations: [
          { method: "POST", path: "/v3/resources", body },
          { method: "POST", path: "/v3/resources", body },
        ],
      });
      expect([statuses(results), rolledBack]).toEqual([[424, 409], true]);
      expect((await server.rest("GET", `/v3/resources/${id}`)).status).toBe(404);
    });

    it("stands beside calls that use the same Idempotency-Key at the same time", async () => {
      const before = await count();
      const operation = create("same", { headers: { "Idempotency-Key": newName() } });
      const { method, path, body, headers = {} } = operation;
      const answers = await Promise.all([
        send([operation], { atomic: true }),
        server.rest(method, path, { headers, body }),
        send([operation], { atomic: true }),
        server.rest(method, path, { headers, body }),
      ]);
      // One that met another in mid-flight may have been told to try again.
      const [, first, , second] = answers;
      expect([first?.status, second?.status]).toEqual([201, 201]);
      expect(await count()).toBe(before + 1);
    });

    it("lets many run at once", async () => {
      const outcomes = await Promise.all(
        Array.from({ length: 10 }, (_, at) =>
          send(
            [
              register(`many-${at % 5}`),
              create("many"),
              { method: "GET", path: `/v3/resources/many-${at % 5}` },
            ],
            {
              atomic: true,
            },
          ),
        ),
      );
      expect(outcomes.filter(({ json }) => !json.rolledBack)).toHaveLength(5);
    });

    it("waits for no other write, not even for the count of a key's usage", async () => {
      const key = await server.newKey(Role.VIEWER);
      const usage = { method: "GET", path: `/api/v1/api-keys/${key.id}/usage` };
      await server.rest("GET", "/v3/jobs", { apiKey: key.secret });
      const { json } = await send([register(newName()), usage], { atomic: true });
      expect(statuses(json.results)).toEqual([201, 200]);
      expect(json.results[1].body.callCount).toBe("1");
    });

    it("revokes a key at once when it commits", async () => {
      const key = await server.newKey(Role.VIEWER);
      expect((await server.rest("GET", "/v3/jobs", { apiKey: key.secret })).status).toBe(200);
      const { json } = await send([{ method: "DELETE", path: `/api/v1/api-keys/${key.id}` }], {
        atomic: true,
      });
      expect(statuses(json.results)).toEqual([204]);
      expect((await server.rest("GET", "/v3/jobs", { apiKey: key.secret })).status).toBe(401);
    });
  });
});
