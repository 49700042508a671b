import { createHash } from "node:crypto";
import { type Selectable, sql } from "kysely";
import { AuditLogSchema } from "#gen/portolan/identity/v1/audit_log_pb.js";
import { ListAuditLogsRequestSchema } from "#gen/portolan/identity/v1/audit_log_service_pb.js";
import type { Database, Queries } from "./database.ts";
import { newId } from "./ids.ts";
import { defineList, type ListRequest, type Page } from "./list/list.ts";
import type { Migration } from "./migrate.ts";

interface AuditRow {
  tenant_id: string;
  /** Place in the tenant's log, from 1, without gaps. */
  sequence: number;
  audit_id: string;
  /** Unix milliseconds; never before that of the row before. */
  occurred_at: number;
  actor: string;
  role: number;
  credential: number;
  remote_address: string;
  service: string;
  action: string;
  resource_type: string;
  resource_id: string;
  request_id: string;
  protocol: string;
  /** Name of the status code; empty for a success. */
  code: string;
  reason: string;
  replayed: number;
  digest_before: string;
  digest_after: string;
  previous_hash: string;
  hash: string;
}

/** A row as it is read. */
export type StoredAudit = Selectable<AuditRow>;

/** What a caller tells of a row; the rest is given by the log. */
export type AuditEntry = Omit<
  AuditRow,
  "tenant_id" | "sequence" | "audit_id" | "occurred_at" | "previous_hash" | "hash"
>;

declare module "./database.ts" {
  interface Tables {
    audit_logs: AuditRow;
    /** One row: rows of the log from before this moment may be deleted. */
    audit_horizon: { id: number; cleared_before: number };
  }
}

const textColumns = [
  "audit_id",
  "actor",
  "remote_address",
  "service",
  "action",
  "resource_type",
  "resource_id",
  "request_id",
  "protocol",
  "code",
  "reason",
  "digest_before",
  "digest_after",
  "previous_hash",
  "hash",
] as const;

/**
 * The audit log. The database itself refuses to change a row, and to delete one that is younger
 * than the horizon, which only retention moves.
 */
export const auditMigrations: Migration[] = [
  {
    name: "kernel/0003-audit",
    async up(queries, types) {
      let table = queries.schema
        .createTable("audit_logs")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("sequence", "bigint", (column) => column.notNull())
        .addColumn("occurred_at", "bigint", (column) => column.notNull());
      for (const name of textColumns) table = table.addColumn(name, "text", (column) => column.notNull());
      for (const name of ["role", "credential", "replayed"] as const) {
        table = table.addColumn(name, "integer", (column) => column.notNull());
      }
      await table.addPrimaryKeyConstraint("audit_logs_key", ["tenant_id", "sequence"]).execute();
      const index = (name: string, ...columns: (keyof AuditRow)[]) =>
        queries.schema.createIndex(name).on("audit_logs").columns(columns).execute();
      await index("audit_logs_by_time", "tenant_id", "occurred_at", "sequence");
      await index("audit_logs_by_actor", "tenant_id", "actor", "sequence");
      await index("audit_logs_by_resource", "tenant_id", "resource_type", "resource_id", "sequence");
      await index("audit_logs_by_request", "tenant_id", "request_id", "sequence");
      await index("audit_logs_age", "occurred_at");
      await queries.schema
        .createTable("audit_horizon")
        .addColumn("id", "integer", (column) => column.primaryKey())
        .addColumn("cleared_before", "bigint", (column) => column.notNull())
        .execute();
      await queries.insertInto("audit_horizon").values({ id: 1, cleared_before: 0 }).execute();
      for (const statement of types.engine === "postgres" ? postgresGuards : sqliteGuards) {
        await sql.raw(statement).execute(queries);
      }
      // So that the row of a replayed answer can tell what it is about.
      await queries.schema
        .alterTable("replays")
        .addColumn("resource_id", "text", (column) => column.notNull().defaultTo(""))
        .execute();
    },
  },
  {
    name: "kernel/0004-audit-lists",
    async up(queries, types) {
      // Only what the rows already hold can be listed by: none can be given a further column's value.
      const texts = ["actor", "action", "resource_type", "resource_id", "request_id", "reason"] as const;
      await types.retype(queries, "audit_logs", texts);
      for (const column of ["action", "resource_id", "reason"] as const) {
        await queries.schema
          .createIndex(`audit_logs_by_${column}`)
          .on("audit_logs")
          .columns(["tenant_id", column, "sequence"])
          .execute();
      }
    },
  },
];

/** The audit log of a tenant. */
export const auditList = defineList({
  request: ListAuditLogsRequestSchema,
  message: AuditLogSchema,
  table: "audit_logs",
  scope: ["tenant_id"],
  columns: {
    occurred_at: "occurred_at",
    actor: "actor",
    action: "action",
    resource_type: "resource_type",
    resource_id: "resource_id",
    request_id: "request_id",
    reason: "reason",
    sequence: "sequence",
  },
  id: "sequence",
  sort: "-sequence",
});

const refusal = "audit_logs is append-only";

const sqliteGuards = [
  `create trigger audit_logs_update before update on audit_logs
   begin select raise(abort, '${refusal}'); end`,
  `create trigger audit_logs_delete before delete on audit_logs
   when old.occurred_at >= (select max(cleared_before) from audit_horizon)
   begin select raise(abort, '${refusal}'); end`,
  // "insert or replace" deletes without telling the trigger above.
  `create trigger audit_logs_replace before insert on audit_logs
   when exists (select 1 from audit_logs where tenant_id = new.tenant_id and sequence = new.sequence)
   begin select raise(abort, '${refusal}'); end`,
];

const postgresGuards = [
  `create function audit_logs_guard() returns trigger language plpgsql as $$
   begin
     if tg_op = 'DELETE' and old.occurred_at < (select max(cleared_before) from audit_horizon) then
       return old;
     end if;
     raise exception '${refusal}';
   end $$`,
  `create trigger audit_logs_change before update or delete on audit_logs
   for each row execute function audit_logs_guard()`,
  `create trigger audit_logs_truncate before truncate on audit_logs
   for each statement execute function audit_logs_guard()`,
];

/** The hash of a row: of everything in it, the hash of the row before included. */
export function hashOf({ hash: _, ...row }: Omit<StoredAudit, "hash"> & { hash?: string }): string {
  const cells = Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash("sha256").update(JSON.stringify(cells)).digest("hex");
}

const lockSpace = 7_665_015;

/**
 * Appends a row to a tenant's log. Call it last in a transaction: on PostgreSQL it holds a lock of
 * the tenant until the end, since each row carries the hash of the one before.
 */
export async function appendAudit(queries: Queries, tenantId: string, entry: AuditEntry): Promise<void> {
  // SQLite has one writer, and its transactions follow one another.
  if (queries.isTransaction) {
    await sql`select pg_advisory_xact_lock(${lockSpace}, hashtext(${tenantId}))`.execute(queries);
  }
  const last = await queries
    .selectFrom("audit_logs")
    .select(["sequence", "occurred_at", "hash"])
    .where("tenant_id", "=", tenantId)
    .orderBy("sequence", "desc")
    .limit(1)
    .executeTakeFirst();
  const now = Date.now();
  const row = {
    ...entry,
    tenant_id: tenantId,
    sequence: (last?.sequence ?? 0) + 1,
    audit_id: newId("audit", now),
    occurred_at: Math.max(now, last?.occurred_at ?? 0),
    previous_hash: last?.hash ?? "",
  };
  await queries
    .insertInto("audit_logs")
    .values({ ...row, hash: hashOf(row) })
    .execute();
}

/** Which rows a list wants beside what its filter says; empty means any. */
export interface AuditFilter {
  readonly actor: string;
  readonly action: string;
  readonly resourceType: string;
  /** The ids that the resource may stand under. */
  readonly resourceIds: readonly string[];
  readonly requestId: string;
  readonly failed: boolean | undefined;
  /** From this moment on, in Unix milliseconds. */
  readonly fromMs: number | undefined;
  /** Before this moment, in Unix milliseconds. */
  readonly toMs: number | undefined;
}

/** The audit log of one tenant. It can be read and appended to, nothing else. */
export function auditOf(tenantId: string, queries: Queries) {
  const rows = () => queries.selectFrom("audit_logs").selectAll().where("tenant_id", "=", tenantId);
  return {
    /**
     * A page of rows, newest first unless the request says otherwise.
     * @param size most rows of the page
     * @throws INVALID_FILTER, INVALID_SORT, INVALID_PAGE_TOKEN
     */
    list(filter: AuditFilter, request: ListRequest, size: number): Promise<Page<StoredAudit>> {
      const { fromMs, toMs, failed } = filter;
      let query = rows();
      if (filter.actor) query = query.where("actor", "=", filter.actor);
      if (filter.action) query = query.where("action", "=", filter.action);
      if (filter.resourceType) query = query.where("resource_type", "=", filter.resourceType);
      if (filter.resourceIds.length > 0) query = query.where("resource_id", "in", filter.resourceIds);
      if (filter.requestId) query = query.where("request_id", "=", filter.requestId);
      if (failed !== undefined) query = query.where("code", failed ? "!=" : "=", "");
      if (fromMs !== undefined) query = query.where("occurred_at", ">=", fromMs);
      if (toMs !== undefined) query = query.where("occurred_at", "<", toMs);
      // Times never go back within a tenant, so this is the same order, by the index that fits.
      const isTimed = fromMs !== undefined || toMs !== undefined;
      const sort = request.sort || (isTimed ? "-occurred_at" : "");
      return auditList.page(query, { ...request, sort }, size, [tenantId, JSON.stringify(filter)]);
    },

    /** Recomputes the chain, oldest row first; `broken` is the first sequence that does not hold. */
    async verify(): Promise<{ checked: number; broken: number; lastHash: string }> {
      let last: StoredAudit | undefined;
      for (let checked = 0; ; ) {
        const page = await rows()
          .where("sequence", ">", last?.sequence ?? 0)
          .orderBy("sequence")
          .limit(verifyPage)
          .execute();
        for (const row of page) {
          checked += 1;
          // The oldest row that retention has left stands for those before it.
          const follows = !last || (row.sequence === last.sequence + 1 && row.previous_hash === last.hash);
          if (!follows || hashOf(row) !== row.hash) {
            return { checked, broken: row.sequence, lastHash: row.hash };
          }
          last = row;
        }
        if (page.length < verifyPage) return { checked, broken: 0, lastHash: last?.hash ?? "" };
      }
    },
  };
}

/** Rows of a verification read at once. */
const verifyPage = 500;

/** Rows deleted in one transaction. */
const pruneBatch = 1_000;

/** Deletes the rows of every tenant from before a moment, in Unix milliseconds, oldest first. */
export async function pruneAudit(database: Database, before: number): Promise<void> {
  let deleted = pruneBatch;
  while (deleted === pruneBatch) {
    deleted = await database.write(async (queries) => {
      await queries
        .updateTable("audit_horizon")
        .set({ cleared_before: before })
        .where("cleared_before", "<", before)
        .execute();
      const old = await queries
        .selectFrom("audit_logs")
        .select(["tenant_id", "sequence"])
        .where("occurred_at", "<", before)
        .orderBy("occurred_at")
        .orderBy("sequence")
        .limit(pruneBatch)
        .execute();
      const last = new Map(old.map(({ tenant_id, sequence }) => [tenant_id, sequence]));
      for (const [tenantId, sequence] of last) {
        await queries
          .deleteFrom("audit_logs")
          .where("tenant_id", "=", tenantId)
          .where("sequence", "<=", sequence)
          .execute();
      }
      return old.length;
    });
  }
}
