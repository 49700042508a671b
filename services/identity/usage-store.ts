import type { Queries } from "#kernel/database.ts";
import type { Migration } from "#kernel/migrate.ts";

/** How long usage by day is kept, in milliseconds. */
const keepMs = 90 * 24 * 60 * 60 * 1000;

const dayMs = 24 * 60 * 60 * 1000;

/** Calls of one key to one RPC on one day. */
interface UsageCounts {
  requests: number;
  errors: number;
  /** Calls whose time is in `duration_ms`: those that are no streams. */
  timed: number;
  duration_ms: number;
}

/** Usage as it is stored. */
export interface UsageRow extends UsageCounts {
  tenant_id: string;
  key_id: string;
  /** Start of the day, UTC, in Unix milliseconds. */
  day: number;
  /** `package.Service/Method`. */
  method: string;
}

declare module "#kernel/database.ts" {
  interface Tables {
    api_key_usage: UsageRow;
  }
}

export const usageMigrations: Migration[] = [
  {
    name: "identity/0004-usage",
    async up(queries) {
      await queries.schema
        .createTable("api_key_usage")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("key_id", "text", (column) => column.notNull())
        .addColumn("day", "bigint", (column) => column.notNull())
        .addColumn("method", "text", (column) => column.notNull())
        .addColumn("requests", "bigint", (column) => column.notNull())
        .addColumn("errors", "bigint", (column) => column.notNull())
        .addColumn("timed", "bigint", (column) => column.notNull())
        .addColumn("duration_ms", "double precision", (column) => column.notNull())
        .addPrimaryKeyConstraint("api_key_usage_key", ["tenant_id", "key_id", "day", "method"])
        .execute();
      await queries.schema.createIndex("api_key_usage_age").on("api_key_usage").column("day").execute();
    },
  },
];

/** Start of the day of a moment, UTC, both in Unix milliseconds. */
export const dayOf = (ms: number): number => ms - (ms % dayMs);

/** Usage of a key on the given number of days up to now, oldest first. */
export function usageOf(
  tenantId: string,
  queries: Queries,
  keyId: string,
  days: number,
  nowMs: number,
): Promise<UsageRow[]> {
  return queries
    .selectFrom("api_key_usage")
    .selectAll()
    .where("tenant_id", "=", tenantId)
    .where("key_id", "=", keyId)
    .where("day", ">", dayOf(nowMs) - days * dayMs)
    .orderBy("day")
    .orderBy("method")
    .execute();
}

/** Adds to what is stored of a key's usage of an RPC on a day. */
export async function addUsage(queries: Queries, row: UsageRow): Promise<void> {
  await queries
    .insertInto("api_key_usage")
    .values(row)
    .onConflict((conflict) =>
      conflict.columns(["tenant_id", "key_id", "day", "method"]).doUpdateSet((eb) => ({
        requests: eb("api_key_usage.requests", "+", row.requests),
        errors: eb("api_key_usage.errors", "+", row.errors),
        timed: eb("api_key_usage.timed", "+", row.timed),
        duration_ms: eb("api_key_usage.duration_ms", "+", row.duration_ms),
      })),
    )
    .execute();
}

/** Forgets the usage of every key that has grown too old. */
export async function pruneUsage(queries: Queries, nowMs: number): Promise<void> {
  await queries
    .deleteFrom("api_key_usage")
    .where("day", "<", dayOf(nowMs) - keepMs)
    .execute();
}
