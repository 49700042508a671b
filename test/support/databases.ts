import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, vi } from "vitest";
import { type Database, openPostgres, openSqlite } from "#kernel/database.ts";

/** An empty database of one engine, for one suite. */
export interface TestDatabase {
  readonly engine: Database["engine"];
  /** A temporary folder of the suite. */
  readonly folder: string;
  /** The URL of the database; undefined on SQLite. */
  readonly url: string | undefined;
  /** The file of the database; it is there on SQLite only. */
  readonly file: string;
  /** Opens the database; it is closed after the suite unless that has happened before. */
  open(): Database;
}

/**
 * Runs a suite once on each engine, each time with an empty database, and fails if the suite
 * leaves a connection or a file of it open. `database` can be called in hooks and tests.
 */
export function onEachEngine(suite: (database: () => TestDatabase) => void): void {
  const missing = inject("postgresMissing");
  for (const engine of ["sqlite", "postgres"] as const) {
    const skipped = engine === "postgres" && missing !== "";
    describe.skipIf(skipped)(skipped ? `on ${engine} (skipped: ${missing})` : `on ${engine}`, () => {
      let made: { database: TestDatabase; remove(): Promise<void> } | undefined;
      beforeAll(async () => {
        made = await create(engine);
      });
      afterAll(() => made?.remove());
      suite(() => {
        if (!made) throw new Error("the database is there in hooks and tests only");
        return made.database;
      });
    });
  }
}

async function create(engine: Database["engine"]) {
  const folder = mkdtempSync(join(tmpdir(), "portolan-test-"));
  const file = join(folder, "portolan.db");
  const opened: Database[] = [];
  const postgres = engine === "postgres" ? await createPostgres() : undefined;
  const database: TestDatabase = {
    engine,
    folder,
    file,
    url: postgres?.url,
    open() {
      const handle = postgres ? openPostgres(postgres.url) : openSqlite(file);
      opened.push(handle);
      return handle;
    },
  };
  return {
    database,
    async remove() {
      for (const handle of opened) await handle.close();
      await postgres?.drop();
      expect(openFilesIn(folder)).toEqual([]);
      rmSync(folder, { recursive: true });
    },
  };
}

async function createPostgres(): Promise<{ url: string; drop(): Promise<void> }> {
  const answer = await fetch(inject("postgres"));
  const server = await answer.text();
  if (!answer.ok) throw new Error(server);
  const name = `test_${randomBytes(6).toString("hex")}`;
  const asAdmin = async (statement: string) => {
    const client = new pg.Client({ connectionString: server });
    await client.connect();
    try {
      return await client.query(statement);
    } finally {
      await client.end();
    }
  };
  await asAdmin(`create database ${name}`);
  const url = new URL(server);
  url.pathname = `/${name}`;
  return {
    url: url.href,
    async drop() {
      // The server takes a moment to notice that a connection was closed; one that was not closed
      // makes this fail.
      await vi.waitFor(() => asAdmin(`drop database ${name}`), { timeout: 60_000, interval: 50 });
    },
  };
}

/** Files under a folder that this process holds open, where the system tells. */
function openFilesIn(folder: string): string[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`);
      return path.startsWith(folder) ? [path] : [];
    } catch {
      return [];
    }
  });
}
