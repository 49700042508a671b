import type { Rate } from "#kernel/plans.ts";
import { decide, type RateState, type Verdict } from "./gcra.ts";

/** A call's demand on one limit. */
export interface Demand {
  /** Names the limit and whose calls it counts. */
  readonly key: string;
  readonly rate: Rate;
  readonly cost: number;
}

/** Where the states of limits are kept. */
export interface LimitStore {
  /**
   * Takes from every limit, or from none if one of them refuses. A store that other processes share
   * does so in one step.
   * @returns a verdict for each demand, in order; those of limits that would admit a call which
   * another one refuses tell what is left without it
   */
  take(demands: readonly Demand[], nowMs: number): Verdict[] | Promise<Verdict[]>;
}

/** Most limits that are remembered: about 20 MB. */
const defaultSize = 100_000;

interface Entry {
  readonly state: RateState;
  /** From here on the entry tells nothing that a missing one does not. */
  readonly idleAtMs: number;
}

/**
 * A store in memory. Entries whose callers have paused long enough are dropped; if there are too
 * many callers at the same time, the one that has been away for longest is forgotten.
 */
export function createMemoryStore(size = defaultSize): LimitStore & { readonly size: number } {
  const entries = new Map<string, Entry>();

  /** Looks at the two that were used least recently, so that no call pays for a sweep. */
  function evict(nowMs: number): void {
    let looks = 0;
    for (const [key, { idleAtMs }] of entries) {
      if (idleAtMs > nowMs && entries.size <= size) return;
      entries.delete(key);
      if (++looks === 2) return;
    }
  }

  return {
    get size() {
      return entries.size;
    },
    take(demands, nowMs) {
      const weigh = (cost: (demand: Demand) => number) =>
        demands.map((demand) => decide(demand.rate, entries.get(demand.key)?.state, nowMs, cost(demand)));
      const verdicts = weigh(({ cost }) => cost);
      if (verdicts.some(({ allowed }) => !allowed)) {
        const looks = weigh(() => 0);
        return verdicts.map((verdict, i) => (verdict.allowed ? (looks[i] as Verdict) : verdict));
      }
      for (const [i, { key }] of demands.entries()) {
        const { state, resetAfterMs } = verdicts[i] as Verdict;
        // Deleted first, so that the map stays in the order of use.
        entries.delete(key);
        if (resetAfterMs > 0) entries.set(key, { state, idleAtMs: state.atMs + resetAfterMs });
      }
      evict(nowMs);
      return verdicts;
    },
  };
}
