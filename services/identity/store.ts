import { createHash } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Selectable } from "kysely";
import { type ApiKey, ApiKeySchema } from "#gen/portolan/identity/v1/api_key_pb.js";
import type { Queries } from "#kernel/database.ts";
import type { Migration } from "#kernel/migrate.ts";
import { planOfRole } from "#kernel/plans.ts";
import { tenantMigrations, tenantStore } from "./tenant-store.ts";
import { usageMigrations } from "./usage-store.ts";
import { userMigrations } from "./user-store.ts";

interface ApiKeyRow {
  tenant_id: string;
  key_id: string;
  secret_hash: string;
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

/** The stored form of a secret. Secrets have 160 random bits, so that a plain hash is enough. */
export const hashSecret = (secret: string) => createHash("sha256").update(secret).digest("hex");

/** The key of a row. */
export const toApiKey = (row: Selectable<ApiKeyRow>): ApiKey => {
  const key = fromBinary(ApiKeySchema, row.message);
  key.plan = row.plan || planOfRole(key.role);
  if (row.revoked_at !== null) key.revokedAt = timestampFromMs(row.revoked_at);
  if (row.last_used_at !== null) key.lastUsedAt = timestampFromMs(row.last_used_at);
  return key;
};

/** API keys of one tenant. */
export function apiKeysOf(tenantId: string, queries: Queries) {
  const ofTenant = () => queries.selectFrom("api_keys").selectAll().where("tenant_id", "=", tenantId);
  return {
    async insert(key: ApiKey, secret: string, createdAt: number, expiresAt: number | null): Promise<void> {
      await tenantStore(queries).insert(tenantId, tenantId, createdAt);
      await queries
        .insertInto("api_keys")
        .values({
          tenant_id: tenantId,
          key_id: key.id,
          secret_hash: hashSecret(secret),
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
    /** Newest first, after the given (creation time, id). */
    async list(size: number, after: readonly [number, string] | undefined) {
      let query = ofTenant().orderBy("created_at", "desc").orderBy("key_id", "desc").limit(size);
      if (after) {
        query = query.where(({ eb, refTuple, tuple }) =>
          eb(refTuple("created_at", "key_id"), "<", tuple(after[0], after[1])),
        );
      }
      const rows = await query.execute();
      return rows.map((row) => ({ key: toApiKey(row), at: [row.created_at, row.key_id] as const }));
    },
    async revoke(keyId: string, at: number): Promise<boolean> {
      const { numUpdatedRows } = await queries
        .updateTable("api_keys")
        .set((eb) => ({ revoked_at: eb.fn.coalesce("revoked_at", eb.val(at)) }))
        .where("tenant_id", "=", tenantId)
        .where("key_id", "=", keyId)
        .executeTakeFirst();
      return numUpdatedRows > 0n;
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
