import { pruneAudit } from "#kernel/audit-store.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { resumedEvent, suspendedEvent } from "./tenant-service.ts";
import { tenantStore } from "./tenant-store.ts";
import type { createUsage } from "./usage.ts";
import { pruneUsage } from "./usage-store.ts";

/** How often counted calls are written, in milliseconds. */
const flushMs = 5_000;

/** How often it is looked which tenants another process has suspended, in milliseconds. */
const standingMs = 500;

/** How often what is too old is deleted, in milliseconds. */
const pruneMs = 60 * 60 * 1000;

const dayMs = 24 * 60 * 60 * 1000;

/** Keeps the standing of tenants, writes usage, and deletes what has grown too old. */
export function createHousekeeping(kernel: Kernel, usage: ReturnType<typeof createUsage>, auditDays: number) {
  const timers: NodeJS.Timeout[] = [];
  const running = new Set<Promise<void>>();
  const unlisten: (() => void)[] = [];
  let heard = 0;

  async function refreshStanding(): Promise<void> {
    const before = heard;
    const suspended = await tenantStore(kernel.database.read).suspended();
    // Whatever has been heard meanwhile is newer.
    if (heard === before) kernel.standing.replaceSuspended(suspended);
  }

  async function prune(): Promise<void> {
    await pruneAudit(kernel.database, kernel.nowMs() - auditDays * dayMs);
    await kernel.write(({ queries }) => pruneUsage(queries, kernel.nowMs()));
  }

  function run(what: string, work: () => Promise<void>): void {
    const done = work()
      .catch((err) => kernel.log.error({ err }, `${what} failed`))
      .finally(() => running.delete(done));
    running.add(done);
  }

  function every(ms: number, what: string, work: () => Promise<void>): void {
    const timer = setInterval(() => run(what, work), ms);
    timer.unref();
    timers.push(timer);
  }

  return {
    async start(): Promise<void> {
      await refreshStanding();
      run("deleting old rows", prune);
      unlisten.push(
        kernel.bus.listen(suspendedEvent, ({ subject }) => {
          heard += 1;
          kernel.standing.suspend(subject);
        }),
        kernel.bus.listen(resumedEvent, () => {
          heard += 1;
          run("looking up suspended tenants", refreshStanding);
        }),
      );
      every(flushMs, "writing usage", () => usage.flush());
      every(standingMs, "looking up suspended tenants", refreshStanding);
      every(pruneMs, "deleting old rows", prune);
    },
    async stop(): Promise<void> {
      for (const stop of unlisten) stop();
      for (const timer of timers) clearInterval(timer);
      await Promise.all(running);
      await usage.flush();
    },
  };
}
