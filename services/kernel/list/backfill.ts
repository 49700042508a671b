import { sql } from "kysely";
import type { Queries } from "../database.ts";
import type { ColumnValue } from "./field.ts";

/** Rows read at a time. */
const batch = 500;

/** Fills columns that were added to a table from the messages that its rows hold. */
export async function backfill(
  queries: Queries,
  table: string,
  key: readonly string[],
  columnsOf: (message: Uint8Array) => Record<string, ColumnValue | null>,
): Promise<void> {
  const keys = sql.join(key.map((column) => sql.ref(column)));
  const rowOf = (row: Record<string, unknown>) => sql.join(key.map((column) => sql`${row[column]}`));
  let after = sql`1 = 1`;
  for (;;) {
    const { rows } = await sql<Record<string, unknown> & { message: Uint8Array }>`
      select ${keys}, message from ${sql.table(table)}
      where ${after} order by ${keys} limit ${batch}`.execute(queries);
    for (const row of rows) {
      const columns = Object.entries(columnsOf(row.message));
      const set = sql.join(columns.map(([column, value]) => sql`${sql.ref(column)} = ${value}`));
      await sql`update ${sql.table(table)} set ${set} where (${keys}) = (${rowOf(row)})`.execute(queries);
    }
    const last = rows.at(-1);
    if (!last || rows.length < batch) return;
    after = sql`(${keys}) > (${rowOf(last)})`;
  }
}
