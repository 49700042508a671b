import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Selectable, sql } from "kysely";
import { type Tenant, TenantSchema, TenantStatus } from "#gen/portolan/identity/v1/tenant_pb.js";
import {
  type ListTenantsRequest,
  ListTenantsRequestSchema,
} from "#gen/portolan/identity/v1/tenant_service_pb.js";
import type { Queries } from "#kernel/database.ts";
import { defineList, type Page } from "#kernel/list/list.ts";
import type { Migration } from "#kernel/migrate.ts";

interface TenantRow {
  tenant_id: string;
  created_at: number;
  name: import("kysely").Generated<string>;
  updated_at: import("kysely").Generated<number>;
  suspended_at: number | null;
  suspension_reason: import("kysely").Generated<string>;
  deleted_at: number | null;
  version: import("kysely").Generated<number>;
}

declare module "#kernel/database.ts" {
  interface Tables {
    tenants: TenantRow;
  }
}

/** What the table of the first release lacks. Tenants made before have their id as their name. */
export const tenantMigrations: Migration[] = [
  {
    name: "identity/0002-tenants",
    async up(queries) {
      const table = () => queries.schema.alterTable("tenants");
      for (const name of ["name", "suspension_reason"] as const) {
        await table()
          .addColumn(name, "text", (column) => column.notNull().defaultTo(""))
          .execute();
      }
      await table()
        .addColumn("updated_at", "bigint", (column) => column.notNull().defaultTo(0))
        .execute();
      await table()
        .addColumn("version", "integer", (column) => column.notNull().defaultTo(1))
        .execute();
      await table().addColumn("suspended_at", "bigint").execute();
      await table().addColumn("deleted_at", "bigint").execute();
      await queries.schema.createIndex("tenants_suspended").on("tenants").column("suspended_at").execute();
    },
  },
  {
    name: "identity/0006-tenant-lists",
    async up(queries, types) {
      await types.retype(queries, "tenants", ["tenant_id", "name"]);
      // Rows from before these columns were read so.
      for (const [column, empty, other] of [
        ["name", "", "tenant_id"],
        ["updated_at", 0, "created_at"],
      ] as const) {
        await sql`update tenants set ${sql.ref(column)} = ${sql.ref(other)}
          where ${sql.ref(column)} = ${empty}`.execute(queries);
      }
      await queries.schema.dropIndex("tenants_suspended").execute();
      for (const column of ["name", "created_at", "updated_at", "suspended_at"] as const) {
        const nulls = column === "suspended_at" ? types.nullsFirst : sql.raw("");
        await queries.schema
          .createIndex(`tenants_by_${column}`)
          .on("tenants")
          .expression(sql`${sql.ref(column)} ${nulls}`)
          .column("tenant_id")
          .execute();
      }
    },
  },
];

/** All tenants: the one list that has no scope. */
export const tenantList = defineList({
  request: ListTenantsRequestSchema,
  message: TenantSchema,
  table: "tenants",
  scope: [],
  columns: {
    id: "tenant_id",
    name: "name",
    created_at: "created_at",
    updated_at: "updated_at",
    suspended_at: { nullable: "suspended_at" },
  },
  id: "id",
  sort: "id",
});

const toTenant = (row: Selectable<TenantRow>): Tenant =>
  create(TenantSchema, {
    id: row.tenant_id,
    name: row.name,
    status: row.suspended_at === null ? TenantStatus.ACTIVE : TenantStatus.SUSPENDED,
    suspensionReason: row.suspension_reason,
    ...(row.suspended_at !== null && { suspendedAt: timestampFromMs(row.suspended_at) }),
    createdAt: timestampFromMs(row.created_at),
    updatedAt: timestampFromMs(row.updated_at),
    etag: String(row.version),
  });

/** What can change of a tenant. */
export interface TenantChange {
  readonly name?: string;
  readonly suspended_at?: number | null;
  readonly suspension_reason?: string;
  readonly deleted_at?: number;
}

/** Tenants. This is the one store that is not of one tenant: its callers decide who sees which. */
export function tenantStore(queries: Queries) {
  const present = () => queries.selectFrom("tenants").selectAll().where("deleted_at", "is", null);
  return {
    /** Makes a tenant; false if the id is or was in use. */
    async insert(tenantId: string, name: string, at: number): Promise<boolean> {
      const { numInsertedOrUpdatedRows } = await queries
        .insertInto("tenants")
        .values({ tenant_id: tenantId, name, created_at: at, updated_at: at })
        .onConflict((conflict) => conflict.column("tenant_id").doNothing())
        .executeTakeFirst();
      return numInsertedOrUpdatedRows === 1n;
    },
    /** A tenant; in a transaction it is held until the end, so that changes follow one another. */
    async get(tenantId: string): Promise<Tenant | undefined> {
      const row = await present()
        .where("tenant_id", "=", tenantId)
        .$if(queries.isTransaction, (query) => query.forUpdate())
        .executeTakeFirst();
      return row && toTenant(row);
    },
    /** A page of tenants, by id unless the request says otherwise; `only` narrows it to one tenant. */
    async list(request: ListTenantsRequest, only?: string): Promise<Page<Tenant>> {
      const { status } = request;
      let query = present();
      if (only) query = query.where("tenant_id", "=", only);
      if (status)
        query = query.where("suspended_at", status === TenantStatus.SUSPENDED ? "is not" : "is", null);
      const page = await tenantList.page(query, request, request.pageSize || 100, [only ?? "", status]);
      return { ...page, items: page.items.map(toTenant) };
    },
    /** Changes a tenant that was read in this transaction, and returns it. */
    async update(tenantId: string, change: TenantChange, at: number): Promise<Tenant> {
      const row = await queries
        .updateTable("tenants")
        .set({ ...change, updated_at: at })
        .set((eb) => ({ version: eb("version", "+", 1) }))
        .where("tenant_id", "=", tenantId)
        .returningAll()
        .executeTakeFirstOrThrow();
      return toTenant(row);
    },
    /** Ids of the tenants that may not act. */
    async suspended(): Promise<string[]> {
      const rows = await queries
        .selectFrom("tenants")
        .select("tenant_id")
        .where("suspended_at", "is not", null)
        .execute();
      return rows.map((row) => row.tenant_id);
    },
  };
}
