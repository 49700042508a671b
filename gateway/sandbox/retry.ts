import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";

/** Told of errors that the sandbox gets over, and during what they came. */
export type ErrorListener = (error: unknown, what: string) => void;

/** Growing pauses between attempts. */
export interface Backoff {
  /** The next pause in milliseconds. */
  next(): number;
  /** Starts over with the shortest. */
  reset(): void;
}

/** Pauses that double up to a limit, each shortened by up to a half so that clients do not come in step. */
export function createBackoff(minMs = 500, maxMs = 15_000): Backoff {
  let pauseMs = minMs;
  return {
    next() {
      const now = pauseMs * (0.5 + 0.5 * Math.random());
      pauseMs = Math.min(maxMs, pauseMs * 2);
      return now;
    },
    reset() {
      pauseMs = minMs;
    },
  };
}

/** Waits, or returns at once when the signal aborts. */
export async function wait(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
}

/** Makes a controller that aborts with its parent; `release` lets go of the parent. */
export function childOf(parent: AbortSignal): { controller: AbortController; release(): void } {
  const controller = new AbortController();
  const abort = () => controller.abort(parent.reason);
  if (parent.aborted) {
    abort();
  }
  parent.addEventListener("abort", abort, { once: true });
  return { controller, release: () => parent.removeEventListener("abort", abort) };
}

const PERMANENT: ReadonlySet<Code> = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.FailedPrecondition,
  Code.OutOfRange,
  Code.Unimplemented,
]);

/** Whether an error says that the same call will never succeed. */
export function isPermanent(error: unknown): boolean {
  return PERMANENT.has(ConnectError.from(error).code);
}

/**
 * Calls until it works. Throws errors that will not go away; returns undefined when the signal
 * aborts first.
 */
export async function retrying<T>(
  what: string,
  call: () => Promise<T>,
  options: { signal: AbortSignal; backoff: Backoff; onError: ErrorListener },
): Promise<T | undefined> {
  while (!options.signal.aborted) {
    try {
      return await call();
    } catch (error) {
      if (options.signal.aborted) {
        return undefined;
      }
      options.onError(error, what);
      if (isPermanent(error)) {
        throw error;
      }
      await wait(options.backoff.next(), options.signal);
    }
  }
  return undefined;
}
