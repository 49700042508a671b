import { sql } from "kysely";
import type { Database } from "../database.ts";
import type { List } from "./list.ts";

/**
 * Makes sure that an index serves every column which a list can be filtered or sorted by: one that
 * begins with the list's scope and goes on with the column.
 * @throws Error naming the columns that have none
 */
export async function demandIndexes(database: Database, lists: Iterable<List>): Promise<void> {
  const missing: string[] = [];
  for (const { table, scope, columns } of lists) {
    const indexes = await indexesOf(database, table);
    for (const { name } of columns) {
      // Inside its scope a column that belongs to the scope has one value.
      const wanted = scope.includes(name) ? scope : [...scope, name];
      if (!indexes.some((index) => wanted.every((column, place) => index[place] === column))) {
        missing.push(`${table}.${name}`);
      }
    }
  }
  if (missing.length > 0) throw new Error(`listable columns without an index: ${missing.join(", ")}`);
}

/** The columns of each index of a table, in their order. */
async function indexesOf({ engine, read }: Database, table: string): Promise<string[][]> {
  const { rows } =
    engine === "sqlite"
      ? await sql<{ index: string; column: string }>`
          select l.name as "index", i.name as "column"
          from pragma_index_list(${table}) l, pragma_index_info(l.name) i
          order by l.name, i.seqno`.execute(read)
      : await sql<{ index: string; column: string }>`
          select c.relname as "index", a.attname as "column"
          from pg_index x
          join pg_class c on c.oid = x.indexrelid
          join pg_attribute a on a.attrelid = x.indexrelid
          where x.indrelid = ${table}::regclass
          order by c.relname, a.attnum`.execute(read);
  const indexes = new Map<string, string[]>();
  for (const { index, column } of rows) {
    const columns = indexes.get(index) ?? [];
    columns.push(column);
    indexes.set(index, columns);
  }
  return [...indexes.values()];
}
