import { createLiveCounts, lateMs } from "./live-counts.ts";

/** Slots in a second. A connection is written in its own slot, once a second. */
export const slotCount = 100;

const slotMs = 1000 / slotCount;

/** Wakes waiters when their slot of the second comes round. Runs only while somebody waits. */
export interface Ticker {
  /** Calls `wake` at the next occurrence of the slot; the returned function takes that back. */
  wait(slot: number, wake: () => void): () => void;
}

/** A ticker on the process's monotonic clock. After a stall each missed slot fires once. */
export function createTicker(counts = createLiveCounts()): Ticker {
  const slots: Set<() => void>[] = Array.from({ length: slotCount }, () => new Set());
  let waiting = 0;
  let timer: NodeJS.Timeout | undefined;
  let position = 0;

  const now = () => Math.floor(performance.now() / slotMs);

  function tick(): void {
    timer = undefined;
    const until = now();
    position = Math.max(position, until - slotCount);
    while (position < until) {
      position += 1;
      const due = slots[position % slotCount] as Set<() => void>;
      if (due.size === 0) continue;
      slots[position % slotCount] = new Set();
      counts.ticks += due.size;
      if ((until - position) * slotMs > lateMs) counts.lateTicks += due.size;
      for (const wake of due) {
        due.delete(wake);
        waiting -= 1;
        wake();
      }
    }
    schedule();
  }

  function schedule(): void {
    if (waiting === 0 || timer) return;
    timer = setTimeout(tick, Math.max(1, (position + 1) * slotMs - performance.now()));
  }

  return {
    wait(slot, wake) {
      if (waiting === 0) position = now();
      const waiters = slots[slot % slotCount] as Set<() => void>;
      const entry = () => wake();
      waiters.add(entry);
      waiting += 1;
      schedule();
      return () => {
        if (waiters.delete(entry)) waiting -= 1;
      };
    },
  };
}
