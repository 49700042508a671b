import { sql } from "kysely";
import type { Database } from "#kernel/database.ts";
import { type Page, sendJson } from "./pages.ts";

/** How long the database may take to answer before it counts as unreachable, in milliseconds. */
const databaseMs = 2_000;

/** How long an answer of the database holds, so that probes do not load it, in milliseconds. */
const holdMs = 500;

/** What is asked when somebody wants to know whether the server is ready: `ok`, or what is wrong. */
export type Check = () => string | Promise<string>;

/** Says `ok` while the database answers, else `unreachable`. */
export function databaseCheck(database: Database): Check {
  let latest: { readonly at: number; readonly said: Promise<string> } | undefined;
  return () => {
    const now = performance.now();
    if (latest && now - latest.at < holdMs) return latest.said;
    const said = new Promise<string>((resolve) => {
      const timer = setTimeout(() => resolve("unreachable"), databaseMs);
      sql`select 1`
        .execute(database.read)
        .then(
          () => resolve("ok"),
          () => resolve("unreachable"),
        )
        .finally(() => clearTimeout(timer));
    });
    latest = { at: now, said };
    return said;
  };
}

/**
 * `/healthz` answers while the process runs; `/readyz` answers 200 while the server should get
 * calls, and else 503 with what is wrong.
 */
export function createProbes(checks: Readonly<Record<string, Check>>): Record<string, Page> {
  return {
    "/healthz": (_, response) => sendJson(response, 200, { status: "ok" }),
    "/readyz": async (_, response) => {
      const said = await Promise.all(
        Object.entries(checks).map(async ([name, check]) => [name, await check()] as const),
      );
      const ready = said.every(([, result]) => result === "ok");
      const body = { status: ready ? "ok" : "unavailable", checks: Object.fromEntries(said) };
      sendJson(response, ready ? 200 : 503, body);
    },
  };
}
