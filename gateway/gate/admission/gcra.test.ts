import fc from "fast-check";
import { expect, it } from "vitest";
import type { Rate } from "#kernel/plans.ts";
import { decide, type RateState } from "./gcra.ts";

const rates = fc.record({
  requests: fc.integer({ min: 1, max: 100_000 }),
  windowMs: fc.constantFrom(1000, 60_000, 3_600_000, 86_400_000),
  burst: fc.integer({ min: 1, max: 500 }),
});
const start = 1_800_000_000_000;

/** Calls with the time that passes before each, from crowds to long pauses. */
const calls = fc.array(
  fc.record({
    afterMs: fc.oneof(
      fc.constant(0),
      fc.integer({ min: 0, max: 50 }),
      fc.integer({ min: 0, max: 10_000_000 }),
    ),
    cost: fc.integer({ min: 1, max: 5 }),
  }),
  { maxLength: 200 },
);

function play(rate: Rate, steps: readonly { afterMs: number; cost: number }[]) {
  let state: RateState | undefined;
  let nowMs = start;
  return steps.map(({ afterMs, cost }) => {
    nowMs += afterMs;
    const verdict = decide(rate, state, nowMs, cost);
    state = verdict.state;
    return { nowMs, cost: Math.min(cost, rate.burst), verdict };
  });
}

it("admits in no stretch of time more than the burst and what the rate gives in it", () => {
  fc.assert(
    fc.property(rates, calls, (rate, steps) => {
      const admitted = play(rate, steps).filter(({ verdict }) => verdict.allowed);
      for (let from = 0; from < admitted.length; from++) {
        let units = 0;
        for (const { nowMs, cost } of admitted.slice(from)) {
          units += cost;
          const passedMs = nowMs - (admitted[from]?.nowMs ?? 0);
          expect(units * rate.windowMs).toBeLessThanOrEqual(
            rate.burst * rate.windowMs + passedMs * rate.requests,
          );
        }
      }
    }),
  );
});

it("lets the whole burst in at once, telling one less each time, and refuses the next", () => {
  fc.assert(
    fc.property(rates, (rate) => {
      const verdicts = play(rate, Array(rate.burst + 1).fill({ afterMs: 0, cost: 1 })).map(
        (each) => each.verdict,
      );
      expect(verdicts.map(({ remaining }) => remaining)).toEqual([
        ...Array.from({ length: rate.burst }, (_, i) => rate.burst - 1 - i),
        0,
      ]);
      expect(verdicts.map(({ allowed }) => allowed)).toEqual([...Array(rate.burst).fill(true), false]);
    }),
  );
});

it("tells exactly how many units can be taken", () => {
  fc.assert(
    fc.property(rates, calls, (rate, steps) => {
      for (const { nowMs, verdict } of play(rate, steps)) {
        const { remaining, state } = verdict;
        if (remaining > 0) expect(decide(rate, state, nowMs, remaining).allowed).toBe(true);
        if (remaining < rate.burst) expect(decide(rate, state, nowMs, remaining + 1).allowed).toBe(false);
      }
    }),
  );
});

it("resets at the millisecond it tells, and not before", () => {
  fc.assert(
    fc.property(rates, calls, (rate, steps) => {
      for (const { nowMs, verdict } of play(rate, steps)) {
        const { resetAfterMs, state } = verdict;
        expect(decide(rate, state, nowMs + resetAfterMs, 0).state.debt).toBe(0);
        if (resetAfterMs > 0) {
          expect(decide(rate, state, nowMs + resetAfterMs - 1, 0).state.debt).toBeGreaterThan(0);
        }
      }
    }),
  );
});

it("lets a refused call in at the millisecond it tells, and not before", () => {
  fc.assert(
    fc.property(rates, calls, (rate, steps) => {
      for (const { nowMs, cost, verdict } of play(rate, steps)) {
        if (verdict.allowed) continue;
        expect(decide(rate, verdict.state, nowMs + verdict.retryAfterMs, cost).allowed).toBe(true);
        expect(decide(rate, verdict.state, nowMs + verdict.retryAfterMs - 1, cost).allowed).toBe(false);
      }
    }),
  );
});

it("takes nothing for a refused call or a look, and gives nothing for a clock set back", () => {
  const rate = { requests: 1, windowMs: 1000, burst: 2 };
  const full = decide(rate, undefined, start, 2).state;
  expect(decide(rate, full, start, 1).state).toEqual(full);
  expect(decide(rate, full, start, 0)).toMatchObject({ allowed: true, state: full });
  expect(decide(rate, full, start - 5000, 1)).toMatchObject({ allowed: false, state: full });
});
