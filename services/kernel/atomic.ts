import { AsyncLocalStorage } from "node:async_hooks";
import { sql } from "kysely";
import type { Database, Queries } from "./database.ts";
import { fail } from "./errors.ts";

/** A database that knows transactions of one `write` each. */
export type Transactions = Pick<Database, "engine" | "read" | "write" | "close">;

/** A transaction that calls made during it join. */
interface Shared {
  readonly queries: Queries;
  readonly afterCommit: (() => void)[];
  readonly afterwards: (() => Promise<void>)[];
  /** The last of the writes that joined: they run one after the other. */
  last: Promise<unknown>;
  /** Open while the work runs, ended until its fate is known and when that was a rollback. */
  state: "open" | "ended" | "committed";
}

/**
 * Adds `atomically` to a database. The shared transaction follows the asynchronous calls of the
 * work and not a parameter, so that nothing in between can forget to pass it on: a write that went
 * around it would wait for ever on SQLite, where the transaction has the only writer.
 */
export function withAtomic(base: Transactions): Database {
  const storage = new AsyncLocalStorage<Shared>();
  const current = (): Shared | undefined => {
    const shared = storage.getStore();
    return shared?.state === "open" ? shared : undefined;
  };

  return {
    engine: base.engine,
    get read() {
      return current()?.queries ?? base.read;
    },
    get isAtomic() {
      return current() !== undefined;
    },
    write(work) {
      const shared = storage.getStore();
      if (!shared || shared.state === "committed") return base.write(work).catch(explain);
      // Left over from a call that was given up: it must not outlive the others.
      if (shared.state === "ended") return Promise.reject(fail("CANCELLED"));
      const joined = shared.last.then(() => nested(shared.queries, work)).catch(explain);
      shared.last = joined.catch(() => {});
      return joined;
    },
    async atomically(work) {
      if (current()) return work();
      const afterCommit: (() => void)[] = [];
      const afterwards: (() => Promise<void>)[] = [];
      let shared: Shared | undefined;
      // SQLite runs the work from its queue, where the caller's asynchronous context is not.
      const asCaller = AsyncLocalStorage.snapshot();
      try {
        const result = await base.write((queries) => {
          const last = Promise.resolve();
          const opened: Shared = { queries, afterCommit, afterwards, last, state: "open" };
          shared = opened;
          return asCaller(() => storage.run(opened, untilEnd, opened, work));
        });
        if (shared) shared.state = "committed";
        for (const done of afterCommit) done();
        return result;
      } finally {
        for (const each of afterwards) await each();
      }
    },
    afterCommit(done) {
      const shared = current();
      if (shared) shared.afterCommit.push(done);
      else done();
    },
    async afterwards(work) {
      const shared = current();
      if (shared) shared.afterwards.push(work);
      else await work();
    },
    close: () => base.close(),
  };
}

async function untilEnd<T>(shared: Shared, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } finally {
    shared.state = "ended";
    await shared.last;
  }
}

/** Runs work behind a savepoint, so that nothing of it remains if it fails and the rest can go on. */
async function nested<T>(queries: Queries, work: (queries: Queries) => Promise<T>): Promise<T> {
  await sql`savepoint joined`.execute(queries);
  try {
    const value = await work(queries);
    await sql`release savepoint joined`.execute(queries);
    return value;
  } catch (error) {
    await sql`rollback to savepoint joined`.execute(queries);
    await sql`release savepoint joined`.execute(queries);
    throw error;
  }
}

/** PostgreSQL ends one of two transactions that wait for each other; trying it again helps. */
function explain(error: unknown): never {
  const { code } = error as { code?: unknown };
  const deadlock = "40P01";
  throw code === deadlock ? fail("CONCURRENT_UPDATE", { cause: error }) : error;
}
