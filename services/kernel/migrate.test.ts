import { sql } from "kysely";
import { beforeEach, expect, it } from "vitest";
import { onEachEngine } from "#test/support/databases.ts";
import type { Database } from "./database.ts";
import { type Migration, migrate } from "./migrate.ts";

onEachEngine((test) => {
  let database: Database;
  let ran: string[];

  /** A migration that makes a table of its own name. */
  const table = (name: string): Migration => ({
    name: `test/${name}`,
    async up(queries, types) {
      ran.push(name);
      await queries.schema
        .createTable(name)
        .addColumn("id", types.counter)
        .addColumn("raw", types.bytes)
        .execute();
    },
  });
  const has = async (name: string) =>
    sql`select * from ${sql.table(name)}`.execute(database.read).then(
      () => true,
      () => false,
    );

  beforeEach(() => {
    database ??= test().open();
    ran = [];
  });

  it("runs migrations in the order of the list, and each once", async () => {
    await migrate(database, [table("zebra"), table("ape")]);
    await migrate(database, [table("zebra"), table("ape"), table("later")]);
    expect(ran).toEqual(["zebra", "ape", "later"]);
    await sql`insert into zebra (raw) values (${Buffer.from([0, 255])})`.execute(database.read);
    const { rows } = await sql<{ id: number; raw: Buffer }>`select * from zebra`.execute(database.read);
    expect(rows.map(({ id, raw }) => [id, [...raw]])).toEqual([[1, [0, 255]]]);
  });

  it("lets migrators race and runs each migration once", async () => {
    // On SQLite the race is within the process: another handle would block the thread of both.
    const others = [1, 2, 3].map(() => (database.engine === "sqlite" ? database : test().open()));
    await Promise.all(others.map((other) => migrate(other, [table("one"), table("two"), table("three")])));
    expect(ran).toEqual(["one", "two", "three"]);
    expect(await has("three")).toBe(true);
  });

  it("leaves nothing of a migration that fails, keeps those before it, and can go on later", async () => {
    const half = table("half");
    const failing: Migration = {
      name: half.name,
      async up(queries, types) {
        await half.up(queries, types);
        throw new Error("out of luck");
      },
    };
    await expect(migrate(database, [table("before"), failing, table("after")])).rejects.toThrow(
      "out of luck",
    );
    expect([await has("before"), await has("half"), await has("after")]).toEqual([true, false, false]);
    await migrate(database, [table("before"), half, table("after")]);
    expect(ran).toEqual(["before", "half", "half", "after"]);
    expect(await has("after")).toBe(true);
  });
});
