import type { ConnectError, HandlerContext } from "@connectrpc/connect";
import { callInfo } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import type { Standing } from "#kernel/standing.ts";

/** How long a call that streams may go on: until its tenant is suspended or its key revoked. */
export interface Lease {
  /** The context for the handler: its signal aborts at the end of the lease as well. */
  readonly context: HandlerContext;
  /** Why the lease has ended; undefined while it lasts. */
  over(): ConnectError | undefined;
  /** The messages, until the lease ends: then it fails with the reason. */
  bound<T>(messages: AsyncIterable<T>): AsyncIterable<T>;
}

/** The lease of a call whose caller is known; one without a caller has no end. */
export function leaseOf(standing: Standing, context: HandlerContext): Lease {
  const { principal } = context.values.get(callInfo);
  if (!principal) return { context, over: () => undefined, bound: (messages) => messages };
  const suspended = standing.suspended(principal.tenantId);
  const revoked = standing.revoked(principal.subject);
  const over = () => {
    if (suspended.aborted) return fail("TENANT_SUSPENDED");
    return revoked.aborted ? fail("INVALID_TOKEN") : undefined;
  };
  return {
    context: Object.create(context, {
      signal: { value: AbortSignal.any([context.signal, suspended, revoked]), enumerable: true },
    }),
    over,
    bound: (messages) => until(AbortSignal.any([suspended, revoked]), over, messages),
  };
}

/** Passes messages on, and fails when the signal aborts, even while none come. */
async function* until<T>(
  signal: AbortSignal,
  why: () => ConnectError | undefined,
  messages: AsyncIterable<T>,
): AsyncGenerator<T> {
  let wake = () => {};
  const aborted = new Promise<"aborted">((resolve) => {
    wake = () => resolve("aborted");
  });
  signal.addEventListener("abort", wake);
  const iterator = messages[Symbol.asyncIterator]();
  try {
    while (!signal.aborted) {
      const next = await Promise.race([iterator.next(), aborted]);
      if (next === "aborted") break;
      if (next.done) return;
      yield next.value;
    }
    throw why();
  } finally {
    signal.removeEventListener("abort", wake);
    // Not awaited: a read that is under way would hold up the end.
    iterator.return?.().catch(() => {});
  }
}
