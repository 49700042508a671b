import type { Kernel } from "#kernel/kernel.ts";
import { sequenceAt } from "#kernel/sequence.ts";
import { pruneByAge, pruneBySize } from "./store.ts";

/** Longest that samples are kept, in milliseconds. */
export const maxAgeMs = 7 * 24 * 60 * 60 * 1000;

/** Most samples kept for a device group. */
export const maxSamples = 100_000;

const everyMs = 60_000;
const batch = 1_000;

/** Deletes history that has grown too old or too long, once a minute, a little at a time. */
export function startRetention(kernel: Kernel): () => void {
  const run = async () => {
    const before = sequenceAt(kernel.nowMs() - maxAgeMs);
    while ((await kernel.write(({ queries }) => pruneByAge(queries, before, batch))) === batch) {
      await new Promise(setImmediate);
    }
    const groups = await kernel.database.read
      .selectFrom("resources")
      .select(["tenant_id", "device_group_id"])
      .execute();
    for (const { tenant_id, device_group_id } of groups) {
      await kernel.write(({ queries }) => pruneBySize(queries, tenant_id, device_group_id, maxSamples));
    }
  };
  const timer = setInterval(() => {
    run().catch((err) => kernel.log.error({ err }, "history was not pruned"));
  }, everyMs);
  timer.unref();
  return () => clearInterval(timer);
}
