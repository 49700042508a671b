import type { Rate } from "#kernel/plans.ts";

/**
 * What a caller has taken and time has not yet given back. The debt counts in units times
 * milliseconds: a unit adds `windowMs`, a millisecond pays off `requests`. Whole numbers only, so
 * that nothing is ever rounded.
 */
export interface RateState {
  /** When the debt was counted, in Unix milliseconds. */
  readonly atMs: number;
  readonly debt: number;
}

/** The decision on a call. */
export interface Verdict {
  readonly allowed: boolean;
  /** Units that can be taken now, after this call. */
  readonly remaining: number;
  /** Until the whole burst can be taken again, in milliseconds, rounded up. */
  readonly resetAfterMs: number;
  /** Until this call would be let in, in milliseconds, rounded up; 0 if it is. */
  readonly retryAfterMs: number;
  /** What to keep for the next decision. */
  readonly state: RateState;
}

/**
 * Decides on a call by the generic cell rate algorithm: at most `burst` units at once, and over
 * any stretch of time at most `burst` more than the rate gives in it. A refused call takes nothing.
 * A call never costs more than the burst, for it could never be made; one that costs 0 only looks.
 */
export function decide(rate: Rate, before: RateState | undefined, nowMs: number, cost: number): Verdict {
  const { requests, windowMs, burst } = rate;
  // A clock that was set back gives nothing and takes nothing.
  const atMs = Math.max(nowMs, before?.atMs ?? 0);
  const owed = Math.max(0, (before?.debt ?? 0) - (atMs - (before?.atMs ?? atMs)) * requests);
  const most = burst * windowMs;
  const asked = owed + Math.min(cost, burst) * windowMs;
  const allowed = asked <= most || cost === 0;
  const debt = allowed ? asked : owed;
  return {
    allowed,
    remaining: Math.max(0, Math.floor((most - debt) / windowMs)),
    resetAfterMs: Math.ceil(debt / requests),
    retryAfterMs: allowed ? 0 : Math.ceil((asked - most) / requests),
    state: { atMs, debt },
  };
}
