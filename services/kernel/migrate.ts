import { sql } from "kysely";
import type { Database, Queries } from "./database.ts";

/** One step of a schema. Steps only go forward and are never edited once released. */
export interface Migration {
  /** Unique name, `<service>/<number>-<what>`; order is that of the list. */
  readonly name: string;
  up(queries: Queries, types: ColumnTypes): Promise<void>;
}

/** Column types that the two engines spell differently. */
export interface ColumnTypes {
  readonly engine: Database["engine"];
  /** Raw bytes. */
  readonly bytes: ReturnType<typeof sql.raw>;
  /** An integer primary key that counts up by itself. */
  readonly counter: ReturnType<typeof sql.raw>;
  /** Text in the order of code points, the same on both engines: what lists sort by. */
  readonly text: ReturnType<typeof sql.raw>;
  /** After a nullable column of an index: rows without a value come first, as lists sort them. */
  readonly nullsFirst: ReturnType<typeof sql.raw>;
  /** Gives text columns of a table that is there already the type `text`. */
  retype(queries: Queries, table: string, columns: readonly string[]): Promise<void>;
}

declare module "./database.ts" {
  interface Tables {
    migrations: { name: string; applied_at: number };
  }
}

const lockKey = 7_665_014;

/** Brings the schema up to date, each migration in a transaction of its own; safe to race. */
export async function migrate(database: Database, migrations: readonly Migration[]): Promise<void> {
  const postgres = database.engine === "postgres";
  const types: ColumnTypes = {
    engine: database.engine,
    bytes: sql.raw(postgres ? "bytea" : "blob"),
    counter: sql.raw(postgres ? "bigserial primary key" : "integer primary key autoincrement"),
    text: sql.raw(postgres ? 'text collate "C"' : "text"),
    nullsFirst: sql.raw(postgres ? "nulls first" : ""),
    async retype(queries, table, columns) {
      if (!postgres) return;
      for (const column of columns) {
        await sql`alter table ${sql.ref(table)} alter column ${sql.ref(column)} type ${this.text}`.execute(
          queries,
        );
      }
    },
  };
  const locked = (work: (queries: Queries) => Promise<void>) =>
    database.write(async (queries) => {
      if (postgres) await sql`select pg_advisory_xact_lock(${lockKey})`.execute(queries);
      await work(queries);
    });
  await locked(async (queries) => {
    await queries.schema
      .createTable("migrations")
      .ifNotExists()
      .addColumn("name", "text", (column) => column.primaryKey())
      .addColumn("applied_at", "bigint", (column) => column.notNull())
      .execute();
  });
  for (const migration of migrations) {
    await locked(async (queries) => {
      const done = await queries
        .selectFrom("migrations")
        .select("name")
        .where("name", "=", migration.name)
        .executeTakeFirst();
      if (done) return;
      await migration.up(queries, types);
      await queries
        .insertInto("migrations")
        .values({ name: migration.name, applied_at: Date.now() })
        .execute();
    });
  }
}
