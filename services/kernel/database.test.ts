import { readFileSync } from "node:fs";
import { sql } from "kysely";
import { afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { onEachEngine } from "#test/support/databases.ts";
import type { Database, Queries } from "./database.ts";

const insert = (queries: Queries, id: number) => sql`insert into notes values (${id})`.execute(queries);
const idsIn = async (queries: Queries) =>
  (await sql<{ id: number }>`select id from notes order by id`.execute(queries)).rows.map((row) => row.id);
const upTo = (count: number) => Array.from({ length: count }, (_, index) => index);

/** Commits in SQLite's write-ahead log: frames that carry the size of the database. */
function commitsIn(walFile: string): number {
  const wal = readFileSync(walFile);
  const frameSize = 24 + wal.readUInt32BE(8);
  let commits = 0;
  for (let at = 32; at + frameSize <= wal.length; at += frameSize) {
    const current = wal.subarray(at + 8, at + 16).equals(wal.subarray(16, 24));
    if (current && wal.readUInt32BE(at + 4) > 0) commits += 1;
  }
  return commits;
}

onEachEngine((test) => {
  let database: Database;

  beforeAll(async () => {
    database = test().open();
    await database.write(async (queries) => {
      await sql`create table notes (id bigint primary key)`.execute(queries);
      await sql`create table links (
        note bigint references notes (id) deferrable initially deferred
      )`.execute(queries);
    });
  });
  beforeEach(() => database.write((queries) => sql`delete from notes`.execute(queries)));
  afterEach(async () => expect(await database.write(async () => "alive")).toBe("alive"));

  it("returns what the work returns and keeps what it wrote", async () => {
    const work = database.write(async (queries) => {
      await insert(queries, 1);
      return "done";
    });
    expect(await work).toBe("done");
    expect(await idsIn(database.read)).toEqual([1]);
  });

  it("keeps nothing of work that throws, and rejects with what it threw", async () => {
    const thrown = new Error("no");
    const work = database.write(async (queries) => {
      await insert(queries, 1);
      throw thrown;
    });
    await expect(work).rejects.toBe(thrown);
    expect(await idsIn(database.read)).toEqual([]);
  });

  it("lets failing work harm nothing of the work that is committed with it", async () => {
    const outcomes = await Promise.allSettled(
      upTo(150).map((id) =>
        database.write(async (queries) => {
          await insert(queries, id);
          if (id % 3 === 0) throw new Error(`no ${id}`);
          if (id % 3 === 1) await insert(queries, id);
          return id;
        }),
      ),
    );
    const kept = upTo(150).filter((id) => id % 3 === 2);
    expect(await idsIn(database.read)).toEqual(kept);
    expect(outcomes.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []))).toEqual(kept);
    expect((outcomes[3] as PromiseRejectedResult).reason.message).toBe("no 3");
  });

  it("rejects work whose commit fails, and goes on", async () => {
    const dangling = (queries: Queries) => sql`insert into links values (999)`.execute(queries);
    const [first, second] = await Promise.allSettled([
      database.write((queries) => insert(queries, 1)),
      database.write(dangling),
    ]);
    expect(second.status).toBe("rejected");
    // What shares the commit on SQLite shares its fate: nobody is told of success without it.
    expect(first.status).toBe(database.engine === "sqlite" ? "rejected" : "fulfilled");
    expect(await idsIn(database.read)).toEqual(first.status === "rejected" ? [] : [1]);
    await database.write((queries) => insert(queries, 2));
    expect(await idsIn(database.read)).toContain(2);
  });

  it("shows readers committed work only", async () => {
    let seenInside: number[] = [];
    let seenOutside: number[] = [];
    await database.write(async (queries) => {
      await insert(queries, 1);
      seenInside = await idsIn(queries);
      seenOutside = await idsIn(database.read);
    });
    expect(seenInside).toEqual([1]);
    expect(seenOutside).toEqual([]);
    expect(await idsIn(database.read)).toEqual([1]);
  });

  it("gives whole numbers back as numbers", async () => {
    const large = Date.now() * 1000;
    await database.write((queries) => insert(queries, large));
    expect(await idsIn(database.read)).toEqual([large]);
  });

  it("commits work that waits together in few transactions on SQLite", async () => {
    const before = database.engine === "sqlite" ? commitsIn(`${test().file}-wal`) : 0;
    await Promise.all(upTo(200).map((id) => database.write((queries) => insert(queries, id))));
    expect(await idsIn(database.read)).toEqual(upTo(200));
    if (database.engine !== "sqlite") return;
    const commits = commitsIn(`${test().file}-wal`) - before;
    expect(commits).toBeGreaterThan(0);
    expect(commits).toBeLessThanOrEqual(5);
  });

  it("finishes the work that is under way when it is closed", async () => {
    const closing = test().open();
    const writes = upTo(100).map((id) => closing.write((queries) => insert(queries, id)));
    await Promise.all([...writes, closing.close()]);
    expect(await idsIn(database.read)).toEqual(upTo(100));
  });
});
