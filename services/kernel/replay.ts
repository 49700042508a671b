import type { Replay } from "./call.ts";
import type { Queries } from "./database.ts";
import type { Migration } from "./migrate.ts";

/** How long an idempotency key is remembered, in milliseconds. */
export const replayMs = 24 * 60 * 60 * 1000;

declare module "./database.ts" {
  interface Tables {
    replays: {
      tenant_id: string;
      method: string;
      key: string;
      request_hash: string;
      response: Uint8Array;
      created_at: number;
      /** Id of the resource that the call was about, as the audit log has it. */
      resource_id: import("kysely").Generated<string>;
    };
  }
}

/** The answers stored under idempotency keys. */
export const replayMigrations: Migration[] = [
  {
    name: "kernel/0002-replays",
    async up(queries, types) {
      await queries.schema
        .createTable("replays")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("method", "text", (column) => column.notNull())
        .addColumn("key", "text", (column) => column.notNull())
        .addColumn("request_hash", "text", (column) => column.notNull())
        .addColumn("response", types.bytes, (column) => column.notNull())
        .addColumn("created_at", "bigint", (column) => column.notNull())
        .addPrimaryKeyConstraint("replays_key", ["tenant_id", "method", "key"])
        .execute();
      await queries.schema.createIndex("replays_age").on("replays").column("created_at").execute();
    },
  },
];

/** Stores the answer of a call; fails if another transaction has used the key meanwhile. */
export async function storeReplay(
  queries: Queries,
  tenantId: string,
  replay: Replay,
  response: unknown,
  resourceId: string,
): Promise<void> {
  const ofKey = { tenant_id: tenantId, method: replay.method, key: replay.key };
  await queries
    .deleteFrom("replays")
    .where((row) => row.and(ofKey))
    .where("created_at", "<=", Date.now() - replayMs)
    .execute();
  await queries
    .insertInto("replays")
    .values({
      ...ofKey,
      request_hash: replay.requestHash,
      response: replay.encode(response),
      created_at: Date.now(),
      resource_id: resourceId,
    })
    .execute();
}

/** The answer stored under a key, unless it has grown too old. */
export function findReplay(queries: Queries, tenantId: string, method: string, key: string) {
  return queries
    .selectFrom("replays")
    .select(["request_hash", "response", "resource_id"])
    .where("tenant_id", "=", tenantId)
    .where("method", "=", method)
    .where("key", "=", key)
    .where("created_at", ">", Date.now() - replayMs)
    .executeTakeFirst();
}

/** Forgets the keys that have grown too old. */
export async function pruneReplays(queries: Queries): Promise<void> {
  await queries
    .deleteFrom("replays")
    .where("created_at", "<=", Date.now() - replayMs)
    .execute();
}
