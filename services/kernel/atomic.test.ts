import { sql } from "kysely";
import { beforeAll, beforeEach, expect, it } from "vitest";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason } from "#test/support/server.ts";
import type { Database, Queries } from "./database.ts";
import { reasonOf } from "./errors.ts";

const insert = (queries: Queries, id: number) => sql`insert into notes values (${id})`.execute(queries);
const idsIn = async (queries: Queries) =>
  (await sql<{ id: number }>`select id from notes order by id`.execute(queries)).rows.map((row) => row.id);

/** Gives a function that resolves once it has been called so many times. */
function createMeeting(size: number): () => Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let present = 0;
  return () => {
    if (++present === size) resolve();
    return promise;
  };
}

onEachEngine((test) => {
  let database: Database;
  const write = (id: number) => database.write((queries) => insert(queries, id));

  beforeAll(async () => {
    database = test().open();
    await database.write((queries) => sql`create table notes (id bigint primary key)`.execute(queries));
  });
  beforeEach(() => database.write((queries) => sql`delete from notes`.execute(queries)));

  it("makes several writes one, whose reads see them before anybody else does", async () => {
    const seen = await database.atomically(async () => {
      await write(1);
      await write(2);
      return idsIn(database.read);
    });
    expect(seen).toEqual([1, 2]);
    expect(await idsIn(database.read)).toEqual([1, 2]);
  });

  it("hides what is written until it is committed", async () => {
    const { promise: written, resolve: tell } = Promise.withResolvers<void>();
    const { promise: looked, resolve: goOn } = Promise.withResolvers<void>();
    const work = database.atomically(async () => {
      await write(1);
      tell();
      await looked;
    });
    await written;
    expect(await idsIn(database.read)).toEqual([]);
    goOn();
    await work;
    expect(await idsIn(database.read)).toEqual([1]);
  });

  it("keeps nothing when the work throws", async () => {
    const thrown = new Error("no");
    const work = database.atomically(async () => {
      await write(1);
      throw thrown;
    });
    await expect(work).rejects.toBe(thrown);
    expect(await idsIn(database.read)).toEqual([]);
  });

  it("undoes a single write that fails and lets the work go on", async () => {
    await database.atomically(async () => {
      await write(1);
      await expect(
        database.write(async (queries) => {
          await insert(queries, 2);
          await insert(queries, 1);
        }),
      ).rejects.toThrow();
      await write(3);
    });
    expect(await idsIn(database.read)).toEqual([1, 3]);
  });

  it("runs writes that are started together one after the other", async () => {
    await database.atomically(async () => {
      const outcomes = await Promise.allSettled([write(1), write(1), write(2)]);
      expect(outcomes.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    });
    expect(await idsIn(database.read)).toEqual([1, 2]);
  });

  it("calls back after the commit, in order, and not after a rollback", async () => {
    const calls: string[] = [];
    const note = (text: string) => database.afterCommit(() => calls.push(text));
    await database.atomically(async () => {
      await write(1);
      note("first");
      note("second");
      calls.push("in the work");
    });
    await database
      .atomically(async () => {
        note("never");
        throw new Error("no");
      })
      .catch(() => {});
    note("at once");
    expect(calls).toEqual(["in the work", "first", "second", "at once"]);
  });

  it("does afterwards what must not be undone", async () => {
    const work = database.atomically(async () => {
      await write(1);
      await database.afterwards(async () => void (await write(2)));
      throw new Error("no");
    });
    await expect(work).rejects.toThrow("no");
    expect(await idsIn(database.read)).toEqual([2]);
    await database.afterwards(async () => void (await write(3)));
    expect(await idsIn(database.read)).toEqual([2, 3]);
  });

  it("joins an atomic call within another", async () => {
    const work = database.atomically(async () => {
      await database.atomically(() => write(1));
      throw new Error("no");
    });
    await expect(work).rejects.toThrow("no");
    expect(await idsIn(database.read)).toEqual([]);
  });

  it("waits for a write that was not awaited, and refuses one that comes after the end", async () => {
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    let late: Promise<unknown> | undefined;
    const work = database.atomically(async () => {
      void write(1);
      late = ended.then(() => write(2));
      throw new Error("no");
    });
    await expect(work).rejects.toThrow("no");
    end();
    await expectReason(late as Promise<unknown>, "CANCELLED");
    expect(await idsIn(database.read)).toEqual([]);
  });

  it("survives transactions that wait for each other, of which one is to be tried again", async () => {
    await write(1);
    await write(2);
    const touch = (id: number) =>
      database.write((queries) => sql`update notes set id = id where id = ${id}`.execute(queries));
    const meet = createMeeting(2);
    const cross = (first: number, second: number) =>
      database.atomically(async () => {
        await touch(first);
        // On SQLite the other cannot have begun.
        if (database.engine === "postgres") await meet();
        await touch(second);
      });
    const outcomes = await Promise.allSettled([cross(1, 2), cross(2, 1)]);
    const failed = outcomes.filter((outcome) => outcome.status === "rejected");
    expect(failed).toHaveLength(database.engine === "postgres" ? 1 : 0);
    for (const { reason } of failed) expect(reasonOf(reason)).toBe("CONCURRENT_UPDATE");
  });

  it("tells whether it is atomic, also to what is called by and by", async () => {
    expect(database.isAtomic).toBe(false);
    await database.atomically(async () => {
      await new Promise(setImmediate);
      expect(database.isAtomic).toBe(true);
    });
    expect(database.isAtomic).toBe(false);
  });
});
