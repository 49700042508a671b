import { createHash } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Selectable, sql } from "kysely";
import { type ApiKey, ApiKeySchema } from "#gen/portolan/identity/v1/api_key_pb.js";
import {
  type ListApiKeysRequest,
  ListApiKeysRequestSchema,
} from "#gen/portolan/identity/v1/api_key_service_pb.js";
import type { Role } from "#gen/portolan/options/v1/policy_pb.js";
import type { Queries } from "#kernel/database.ts";
import { demandEtag } from "#kernel/etag.ts";
import { backfill } from "#kernel/list/backfill.ts";
import { textColumn } from "#kernel/list/field.ts";
import { defineList, type Page } from "#kernel/list/list.ts";
import type { Migration } from "#kernel/migrate.ts";
import { planOfRole } from "#kernel/plans.ts";
import { tenantMigrations, tenantStore } from "./tenant-store.ts";
import { usageMigrations } from "./usage-store.ts";
import { userMigrations } from "./user-store.ts";

interface ApiKeyRow {
  tenant_id: string;
  key_id: string;
  secret_hash: string;
  name: string;
  role: Role;
  created_at: number;
  expires_at: number | null;
  revoked_at: number | null;
  call_count: number;
  last_used_at: number | null;
  /** Name of the plan; empty for keys that are older than plans. */
  plan: string;
  /** The ApiKey in its wire form, without what the columns hold. */
  message: Uint8Array;
}

declare module "#kernel/database.ts" {
  interface Tables {
    api_keys: ApiKeyRow;
    signing_keys: { kid: string; private_jwk: string; created_at: number };
  }
}

const keyMigrations: Migration[] = [
  {
    name: "identity/0001-keys",
    async up(queries, types) {
      await queries.schema
        .createTable("tenants")
        .addColumn("tenant_id", "text", (column) => column.primaryKey())
        .addColumn("created_at", "bigint", (column) => column.notNull())
        .execute();
      await queries.schema
        .createTable("api_keys")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("key_id", "text", (column) => column.primaryKey())
        .addColumn("secret_hash", "text", (column) => column.notNull().unique())
        .addColumn("created_at", "bigint", (column) => column.notNull())
        .addColumn("expires_at", "bigint")
        .addColumn("revoked_at", "bigint")
        .addColumn("call_count", "bigint", (column) => column.notNull())
        .addColumn("last_used_at", "bigint")
        .addColumn("message", types.bytes, (column) => column.notNull())
        .execute();
      await queries.schema
        .createIndex("api_keys_list")
        .on("api_keys")
        .columns(["tenant_id", "created_at", "key_id"])
        .execute();
      await queries.schema
        .createTable("signing_keys")
        .addColumn("kid", "text", (column) => column.primaryKey())
        .addColumn("private_jwk", "text", (column) => column.notNull())
        .addColumn("created_at", "bigint", (column) => column.notNull())
        .execute();
    },
  },
  {
    name: "identity/0002-list-columns",
    async up(queries, types) {
      await types.retype(queries, "api_keys", ["key_id"]);
      const table = queries.schema.alterTable("api_keys");
      await table.addColumn("name", types.text, (column) => column.notNull().defaultTo("")).execute();
      await table.addColumn("role", "integer", (column) => column.notNull().defaultTo(0)).execute();
      await backfill(queries, "api_keys", ["key_id"], (message) =>
        listColumns(fromBinary(ApiKeySchema, message)),
      );
      for (const column of ["name", "role", "expires_at", "revoked_at"] as const) {
        const nulls = column.endsWith("_at") ? types.nullsFirst : sql.raw("");
        await queries.schema
          .createIndex(`api_keys_by_${column}`)
          .on("api_keys")
          .column("tenant_id")
          .expression(sql`${sql.ref(column)} ${nulls}`)
          .column("key_id")
          .execute();
      }
    },
  },
];

const planMigrations: Migration[] = [
  {
    name: "identity/0005-plans",
    async up(queries) {
      await queries.schema
        .alterTable("api_keys")
        .addColumn("plan", "text", (column) => column.notNull().defaultTo(""))
        .execute();
    },
  },
];

export const migrations: Migration[] = [
  ...keyMigrations,
  ...tenantMigrations,
  ...userMigrations,
  ...usageMigrations,
  ...planMigrations,
];

/** The keys of a tenant. */
export const apiKeyList = defineList({
  request: ListApiKeysRequestSchema,
  message: ApiKeySchema,
  table: "api_keys",
  scope: ["tenant_id"],
  columns: {
    id: "key_id",
    name: "name",
    role: "role",
    created_at: "created_at",
    expires_at: { nullable: "expires_at" },
    revoked_at: { nullable: "revoked_at" },
  },
  id: "id",
  sort: "-created_at",
});

/** The columns that are there for lists alone. */
const listColumns = ({ name, role }: ApiKey) => ({ name: textColumn(name), role });

/** A key has two versions: that which was made and that which was revoked. */
const etagOf = (row: { revoked_at: number | null }) => (row.revoked_at === null ? "1" : "2");

/** The stored form of a secret. Secrets have 160 random bits, so that a plain hash is enough. */
export const hashSecret = (secret: string) => createHash("sha256").update(secret).digest("hex");

/** The key of a row. */
export const toApiKey = (row: Selectable<ApiKeyRow>): ApiKey => {
  const key = fromBinary(ApiKeySchema, row.message);
  key.plan = row.plan || planOfRole(key.role);
  if (row.revoked_at !== null) key.revokedAt = timestampFromMs(row.revoked_at);
  if (row.last_used_at !== null) key.lastUsedAt = timestampFromMs(row.last_used_at);
  key.etag = etagOf(row);
  return key;
};

/** API keys of one tenant. */
export function apiKeysOf(tenantId: string, queries: Queries) {
  const ofTenant = () => queries.selectFrom("api_keys").selectAll().where("tenant_id", "=", tenantId);
  return {
    async insert(key: ApiKey, secret: string, createdAt: number, expiresAt: number | null): Promise<void> {
      key.etag = etagOf({ revoked_at: null });
      await tenantStore(queries).insert(tenantId, tenantId, createdAt);
      await queries
        .insertInto("api_keys")
        .values({
          tenant_id: tenantId,
          key_id: key.id,
          secret_hash: hashSecret(secret),
          ...listColumns(key),
          created_at: createdAt,
          expires_at: expiresAt,
          revoked_at: null,
          call_count: 0,
          last_used_at: null,
          plan: key.plan,
          message: toBinary(ApiKeySchema, create(ApiKeySchema, { ...key, plan: "" })),
        })
        .execute();
    },
    async get(keyId: string): Promise<{ key: ApiKey; callCount: number } | undefined> {
      const row = await ofTenant().where("key_id", "=", keyId).executeTakeFirst();
      return row && { key: toApiKey(row), callCount: row.call_count };
    },
    /** A page of keys, newest first unless the request says otherwise. */
    async list(request: ListApiKeysRequest): Promise<Page<ApiKey>> {
      const page = await apiKeyList.page(ofTenant(), request, request.pageSize || 100, [tenantId]);
      return { ...page, items: page.items.map(toApiKey) };
    },
    /**
     * Revokes a key; one that is revoked stays as it is. False if there is none.
     * @throws ETAG_MISMATCH
     */
    async revoke(keyId: string, etag: string, at: number): Promise<boolean> {
      const row = await ofTenant()
        .where("key_id", "=", keyId)
        // Only PostgreSQL runs transactions side by side; on SQLite this is never true.
        .$if(queries.isTransaction, (query) => query.forUpdate())
        .executeTakeFirst();
      if (!row) return false;
      demandEtag(etag, etagOf(row));
      await queries
        .updateTable("api_keys")
        .set({ revoked_at: row.revoked_at ?? at })
        .where("tenant_id", "=", tenantId)
        .where("key_id", "=", keyId)
        .execute();
      return true;
    },
    async revokeAll(at: number): Promise<void> {
      await queries
        .updateTable("api_keys")
        .set({ revoked_at: at })
        .where("tenant_id", "=", tenantId)
        .where("revoked_at", "is", null)
        .execute();
    },
  };
}

/** What stands across tenants: finding a tenant by its secret, signing keys, usage. */
export function identityStore(queries: Queries) {
  return {
    findBySecret: (secret: string) =>
      queries
        .selectFrom("api_keys")
        .selectAll()
        .where("secret_hash", "=", hashSecret(secret))
        .executeTakeFirst(),
    findById: (keyId: string) =>
      queries.selectFrom("api_keys").selectAll().where("key_id", "=", keyId).executeTakeFirst(),
    signingKeys: () => queries.selectFrom("signing_keys").selectAll().orderBy("created_at", "desc").execute(),
    async insertSigningKey(kid: string, privateJwk: string, createdAt: number): Promise<void> {
      await queries
        .insertInto("signing_keys")
        .values({ kid, private_jwk: privateJwk, created_at: createdAt })
        .execute();
    },
    /** Gives the key another secret; the old one stops working. */
    async replaceSecret(keyId: string, secret: string): Promise<void> {
      await queries
        .updateTable("api_keys")
        .set({ secret_hash: hashSecret(secret), revoked_at: null })
        .where("key_id", "=", keyId)
        .execute();
    },
    /** Puts the key on another plan. */
    async changePlan(keyId: string, plan: string): Promise<void> {
      await queries.updateTable("api_keys").set({ plan }).where("key_id", "=", keyId).execute();
    },
    async addUsage(keyId: string, calls: number, lastUsedAt: number): Promise<void> {
      await queries
        .updateTable("api_keys")
        .set((eb) => ({ call_count: eb("call_count", "+", calls), last_used_at: lastUsedAt }))
        .where("key_id", "=", keyId)
        .execute();
    },
  };
}
