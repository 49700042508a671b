import { monitorEventLoopDelay } from "node:perf_hooks";

/** Tells whether the process has more to do than it can. */
export interface Load {
  /** Whether new calls must wait for better times. */
  overloaded(): boolean;
  /** Counts a unary call in flight; `leave` follows exactly once. */
  enter(): void;
  leave(): void;
  /** Ends the measurement. */
  stop?(): void;
}

/** Above which the process counts as overloaded. */
export interface LoadBounds {
  /** Unary calls in flight. */
  readonly maxCallsInFlight: number;
  /** Mean delay of the event loop over a look, in milliseconds. */
  readonly maxLoopDelayMs: number;
}

/** How often the event loop is looked at, in milliseconds. */
const lookMs = 500;

/** How finely its delay is measured, in milliseconds. */
const resolutionMs = 20;

/** The load of this process. */
export function createLoad(bounds: LoadBounds): Load {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  delay.enable();
  const judge = createDelayJudge(bounds.maxLoopDelayMs);
  const timer = setInterval(() => {
    // The histogram counts the time between its own ticks.
    judge.look(delay.mean / 1e6 - resolutionMs);
    delay.reset();
  }, lookMs);
  timer.unref();
  let inFlight = 0;
  return {
    overloaded: () => inFlight >= bounds.maxCallsInFlight || judge.late,
    enter() {
      inFlight++;
    },
    leave() {
      inFlight--;
    },
    stop() {
      clearInterval(timer);
      delay.disable();
    },
  };
}

/**
 * Judges delays: late after two looks in a row above the bound, for one alone may be a pause of the
 * machine, and in time again after one below half of it, so that the judgement does not flicker.
 */
export function createDelayJudge(maxMs: number) {
  let [late, above] = [false, 0];
  return {
    get late() {
      return late;
    },
    look(delayMs: number): void {
      above = delayMs > maxMs ? above + 1 : 0;
      if (above >= 2) late = true;
      else if (delayMs < maxMs / 2) late = false;
    },
  };
}
