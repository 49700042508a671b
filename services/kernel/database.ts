import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import SQLite from "better-sqlite3";
import { Kysely, PostgresDialect, SqliteDialect, sql } from "kysely";
import pg from "pg";
import { withAtomic } from "./atomic.ts";
import { createStatements } from "./statements.ts";

/** Every table, by name. Each service adds its own by declaration merging. */
// biome-ignore lint/suspicious/noEmptyInterface: services fill it
export interface Tables {}

/** What runs queries: the database itself or a transaction. */
export type Queries = Kysely<Tables>;

/** A store of either kind behind one face. */
export interface Database {
  readonly engine: "sqlite" | "postgres";
  /** For reads outside transactions. */
  readonly read: Queries;
  /**
   * Runs `work` in a transaction and resolves once it is on disk; if `work` throws, nothing of it
   * remains. `work` awaits queries of its transaction and nothing else: on SQLite concurrent
   * transactions are queued and committed in groups, one fsync for all.
   */
  write<T>(work: (queries: Queries) => Promise<T>): Promise<T>;
  /**
   * Runs `work` so that everything it reads and writes through this database, in however many calls
   * of `write`, is one transaction. Meant for short work that awaits little else: on SQLite all
   * other writes wait for it.
   */
  atomically<T>(work: () => Promise<T>): Promise<T>;
  /** Whether this is called from within `atomically`. */
  readonly isAtomic: boolean;
  /** Calls back when what has been written is on disk: at once, or at the end of `atomically`. */
  afterCommit(done: () => void): void;
  /**
   * Does what must not be undone with `atomically`: at once, or when that has ended, either way, and
   * before it settles. `work` does not reject.
   */
  afterwards(work: () => Promise<void>): Promise<void>;
  close(): Promise<void>;
}

/** Opens SQLite in WAL mode with every commit synced; the file and its folder are made. */
export function openSqlite(path: string): Database {
  mkdirSync(dirname(path), { recursive: true });
  const open = () => {
    const handle = new SQLite(path);
    handle.pragma("journal_mode = WAL");
    handle.pragma("synchronous = FULL");
    handle.pragma("busy_timeout = 5000");
    handle.pragma("foreign_keys = ON");
    return handle;
  };
  const handles = [open(), open()] as const;
  const statements = createStatements();
  const [writer, read] = handles.map(
    (handle) => new Kysely<Tables>({ dialect: new SqliteDialect({ database: statements(handle) }) }),
  ) as [Queries, Queries];
  const group = createGroupCommit(writer);
  return withAtomic({
    engine: "sqlite",
    read,
    write: group.write,
    async close() {
      await group.idle();
      await Promise.all([read.destroy(), writer.destroy()]);
      // Kysely leaves a handle open over which it has never run a query.
      for (const handle of handles) handle.close();
    },
  });
}

interface Pending {
  readonly work: (queries: Queries) => Promise<unknown>;
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
}

/** Most transactions that share a commit, so that a flood cannot hold the event loop for long. */
const groupSize = 64;

/** Queues transactions and commits those that wait together in one go, each behind a savepoint. */
function createGroupCommit(writer: Queries) {
  let queue: Pending[] = [];
  let running: Promise<void> | undefined;

  async function drain(): Promise<void> {
    while (queue.length > 0) {
      // A turn of the event loop lets the other requests that arrived with this one join it.
      await new Promise(setImmediate);
      const group = queue.slice(0, groupSize);
      queue = queue.slice(groupSize);
      await commit(group);
    }
    running = undefined;
  }

  async function commit(group: Pending[]): Promise<void> {
    const settle: (() => void)[] = [];
    try {
      await writer.connection().execute(async (queries) => {
        await sql`begin immediate`.execute(queries);
        try {
          for (const pending of group) settle.push(await attempt(pending, queries));
          await sql`commit`.execute(queries);
        } catch (error) {
          await sql`rollback`.execute(queries).catch(() => {});
          throw error;
        }
      });
    } catch (error) {
      for (const pending of group) pending.reject(error);
      return;
    }
    for (const done of settle) done();
  }

  async function attempt(pending: Pending, queries: Queries): Promise<() => void> {
    await sql`savepoint one`.execute(queries);
    try {
      const value = await pending.work(queries);
      await sql`release one`.execute(queries);
      return () => pending.resolve(value as never);
    } catch (error) {
      await sql`rollback to one`.execute(queries);
      await sql`release one`.execute(queries);
      return () => pending.reject(error);
    }
  }

  return {
    write<T>(work: (queries: Queries) => Promise<T>): Promise<T> {
      return new Promise<T>((resolve, reject) => {
        queue.push({ work, resolve: resolve as Pending["resolve"], reject });
        running ??= drain();
      });
    },
    async idle(): Promise<void> {
      await running;
    },
  };
}

/** Opens PostgreSQL with a pool of connections. */
export function openPostgres(url: string): Database {
  const pool = new pg.Pool({
    connectionString: url,
    max: 16,
    types: {
      // Counts and times fit a double; strings would differ from SQLite.
      getTypeParser: ((oid: number, format?: "text") =>
        oid === pg.types.builtins.INT8
          ? Number
          : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser,
    },
  });
  // A broken idle connection is replaced on next use; unheard, it would end the process.
  pool.on("error", () => {});
  const read = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
  const running = new Set<Promise<unknown>>();
  return withAtomic({
    engine: "postgres",
    read,
    write<T>(work: (queries: Queries) => Promise<T>): Promise<T> {
      const transaction = read.transaction().execute(work);
      running.add(transaction);
      const done = () => running.delete(transaction);
      transaction.then(done, done);
      return transaction;
    },
    async close() {
      await Promise.allSettled(running);
      await read.destroy();
    },
  });
}
