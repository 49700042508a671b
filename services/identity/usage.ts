import type { DescMethod } from "@bufbuild/protobuf";
import type { Principal } from "#kernel/call.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { identityStore } from "./store.ts";
import { addUsage, dayOf, type UsageRow } from "./usage-store.ts";

const counters = ["requests", "errors", "timed", "duration_ms"] as const;

/**
 * Counts calls in memory and writes them when asked to, so that no call waits for its count. What
 * was not written is lost in a crash.
 */
export function createUsage(kernel: Kernel) {
  let counted = new Map<string, UsageRow & { lastUsedAt: number }>();
  let flushing: Promise<void> = Promise.resolve();

  function add(row: UsageRow, lastUsedAt: number): void {
    const key = [row.tenant_id, row.key_id, row.day, row.method].join("\n");
    const present = counted.get(key);
    if (!present) {
      counted.set(key, { ...row, lastUsedAt });
      return;
    }
    for (const counter of counters) present[counter] += row[counter];
    present.lastUsedAt = Math.max(present.lastUsedAt, lastUsedAt);
  }

  async function write(): Promise<void> {
    if (counted.size === 0) return;
    const rows = [...counted.values()];
    counted = new Map();
    try {
      await kernel.write(async ({ queries }) => {
        const totals = new Map<string, { requests: number; lastUsedAt: number }>();
        for (const { lastUsedAt, ...row } of rows) {
          await addUsage(queries, row);
          const total = totals.get(row.key_id) ?? { requests: 0, lastUsedAt: 0 };
          total.requests += row.requests;
          total.lastUsedAt = Math.max(total.lastUsedAt, lastUsedAt);
          totals.set(row.key_id, total);
        }
        for (const [keyId, { requests, lastUsedAt }] of totals) {
          await identityStore(queries).addUsage(keyId, requests, lastUsedAt);
        }
      });
    } catch (error) {
      for (const { lastUsedAt, ...row } of rows) add(row, lastUsedAt);
      throw error;
    }
  }

  return {
    /** Adds to the account of a caller, see UsageMeter of the gate. */
    count(
      { tenantId, subject }: Principal,
      method: DescMethod,
      usage: { requests?: number; errors?: number; durationMs?: number },
    ): void {
      const { requests = 0, errors = 0, durationMs } = usage;
      const now = kernel.nowMs();
      add(
        {
          tenant_id: tenantId,
          key_id: subject,
          day: dayOf(now),
          method: `${method.parent.typeName}/${method.name}`,
          requests,
          errors,
          timed: durationMs === undefined ? 0 : 1,
          duration_ms: durationMs ?? 0,
        },
        now,
      );
    },

    /** Writes what was counted until now. */
    flush(): Promise<void> {
      // One at a time: what one flush has taken, the next must find on disk.
      flushing = flushing.then(write, write);
      return flushing;
    },
  };
}
