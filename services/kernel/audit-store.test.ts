import { sql } from "kysely";
import { beforeAll, expect, it } from "vitest";
import { onEachEngine } from "#test/support/databases.ts";
import {
  type AuditEntry,
  type AuditFilter,
  appendAudit,
  auditMigrations,
  auditOf,
  pruneAudit,
} from "./audit-store.ts";
import type { Database } from "./database.ts";
import type { ListRequest } from "./list/list.ts";
import { migrate } from "./migrate.ts";
import { replayMigrations } from "./replay.ts";

const entry: AuditEntry = {
  actor: "key-1",
  role: 4,
  credential: 1,
  remote_address: "127.0.0.1",
  service: "portolan.jobs.v1.JobService",
  action: "CreateJob",
  resource_type: "jobs",
  resource_id: "job-1",
  request_id: "r",
  protocol: "grpc",
  code: "",
  reason: "",
  replayed: 0,
  digest_before: "",
  digest_after: "d",
};
const everything = {
  actor: "",
  action: "",
  resourceType: "",
  resourceIds: [],
  requestId: "",
  failed: undefined,
  fromMs: undefined,
  toMs: undefined,
};
const first = { page: 0, pageToken: "", sort: "", filter: "" };

onEachEngine((test) => {
  let database: Database;
  let count = 0;
  const newTenant = () => `tenant-${count++}`;
  const append = (tenant: string, row: Partial<AuditEntry> = {}) =>
    database.write((queries) => appendAudit(queries, tenant, { ...entry, ...row }));
  const rows = async (tenant: string) =>
    (await auditOf(tenant, database.read).list(everything, first, 1000)).items;
  const verify = (tenant: string) => auditOf(tenant, database.read).verify();
  /** Runs a statement as somebody with a SQL prompt would. */
  const run = (statement: string) => database.write((queries) => sql.raw(statement).execute(queries));

  beforeAll(async () => {
    database = test().open();
    await migrate(database, [...replayMigrations, ...auditMigrations]);
  });

  it("numbers the rows of each tenant without gaps and chains them, also when they come at once", async () => {
    const [one, other] = [newTenant(), newTenant()];
    await Promise.all(Array.from({ length: 40 }, (_, n) => append(n % 4 ? one : other)));
    expect((await rows(one)).map(({ sequence }) => sequence)).toEqual(
      Array.from({ length: 30 }, (_, n) => 30 - n),
    );
    const newest = (await rows(one))[0];
    expect(await verify(one)).toEqual({ checked: 30, broken: 0, lastHash: newest?.hash });
    expect(await verify(other)).toMatchObject({ checked: 10, broken: 0 });
    expect(await verify(newTenant())).toEqual({ checked: 0, broken: 0, lastHash: "" });
  });

  it("leaves no gap where a transaction was rolled back", async () => {
    const tenant = newTenant();
    await append(tenant);
    await expect(
      database.write(async (queries) => {
        await appendAudit(queries, tenant, entry);
        throw new Error("no");
      }),
    ).rejects.toThrow("no");
    await append(tenant);
    expect((await rows(tenant)).map(({ sequence }) => sequence)).toEqual([2, 1]);
    expect(await verify(tenant)).toMatchObject({ checked: 2, broken: 0 });
  });

  it("has rows changed, deleted and replaced by nobody", async () => {
    const tenant = newTenant();
    await append(tenant);
    const before = await rows(tenant);
    for (const statement of [
      `update audit_logs set actor = 'x' where tenant_id = '${tenant}'`,
      `delete from audit_logs where tenant_id = '${tenant}'`,
      "delete from audit_logs",
      test().engine === "postgres"
        ? "truncate audit_logs"
        : `insert or replace into audit_logs select * from audit_logs where tenant_id = '${tenant}'`,
    ]) {
      await expect(run(statement), statement).rejects.toThrow("append-only");
    }
    expect(await rows(tenant)).toEqual(before);
  });

  it("deletes what is too old, oldest first, and the rest still holds", async () => {
    const fresh = test().open();
    const tenant = newTenant();
    for (let n = 0; n < 3; n++) await append(tenant);
    const [newest] = await rows(tenant);
    await pruneAudit(fresh, newest?.occurred_at ?? 0);
    const left = await rows(tenant);
    expect(left.every((row) => row.occurred_at >= (newest?.occurred_at ?? 0))).toBe(true);
    expect(left[0]).toEqual(newest);
    expect(await verify(tenant)).toMatchObject({ checked: left.length, broken: 0 });
    await pruneAudit(fresh, (newest?.occurred_at ?? 0) + 1);
    expect(await rows(tenant)).toEqual([]);
  });

  it("finds rows by actor, action, resource, request, outcome and time, in pages", async () => {
    const tenant = newTenant();
    await append(tenant, { actor: "key-2", action: "DeleteJob", resource_id: "job-2", request_id: "r2" });
    await append(tenant, { code: "NOT_FOUND", reason: "JOB_NOT_FOUND", resource_type: "shares" });
    await append(tenant);
    const log = auditOf(tenant, database.read);
    const found = async (filter: Partial<AuditFilter>, request: Partial<ListRequest> = {}, size = 1000) =>
      (await log.list({ ...everything, ...filter }, { ...first, ...request }, size)).items.map(
        ({ sequence }) => sequence,
      );
    expect(await found({ actor: "key-2" })).toEqual([1]);
    expect(await found({ action: "CreateJob" })).toEqual([3, 2]);
    expect(await found({ resourceType: "shares" })).toEqual([2]);
    expect(await found({ resourceIds: ["job-2", "x"] })).toEqual([1]);
    expect(await found({ requestId: "r2" })).toEqual([1]);
    expect(await found({ failed: true })).toEqual([2]);
    expect(await found({ failed: false })).toEqual([3, 1]);
    const { nextPageToken: pageToken } = await log.list(everything, first, 2);
    expect(await found({}, {}, 2)).toEqual([3, 2]);
    expect(await found({}, { pageToken }, 2)).toEqual([1]);
    await expect(found({ actor: "key-1" }, { pageToken })).rejects.toThrow();
    expect(await found({ failed: false }, { sort: "action" })).toEqual([3, 1]);
    expect(await found({ failed: false }, { sort: "-action", filter: '{"sequence":{"gt":1}}' })).toEqual([3]);
    const [last] = await rows(tenant);
    const at = last?.occurred_at ?? 0;
    expect(await found({ fromMs: at + 1 })).toEqual([]);
    expect(await found({ fromMs: 0, toMs: at + 1 })).toEqual([3, 2, 1]);
    expect(await found({ toMs: 0 })).toEqual([]);
  });

  // The last, since it takes the guards away.
  it("notices a row that was altered or taken out behind the database's back", async () => {
    const [altered, missing] = [newTenant(), newTenant()];
    for (const tenant of [altered, missing]) for (let n = 0; n < 3; n++) await append(tenant);
    const off = test().engine === "postgres" ? "alter table audit_logs disable trigger all" : undefined;
    if (off) await run(off);
    else for (const name of ["update", "delete"]) await run(`drop trigger audit_logs_${name}`);
    await run(`update audit_logs set actor = 'x' where tenant_id = '${altered}' and sequence = 2`);
    await run(`delete from audit_logs where tenant_id = '${missing}' and sequence = 2`);
    if (off) await run("alter table audit_logs enable trigger all");
    expect(await verify(altered)).toMatchObject({ broken: 2 });
    expect(await verify(missing)).toMatchObject({ broken: 3 });
  });
});
