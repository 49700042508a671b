import { fail } from "#kernel/errors.ts";
import { newId } from "#kernel/ids.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { type StoredShare, sharesOf } from "./store.ts";

/** A live viewer. */
export interface Viewer {
  readonly sessionId: string;
  /** Aborted when this one session is ended from outside. */
  readonly ended: AbortSignal;
  leave(): Promise<void>;
}

/** Counts and ends live viewers of shares. */
export function createViewers(kernel: Kernel) {
  const live = new Map<string, Map<string, AbortController>>();
  return {
    count: (shareCode: string): number => live.get(shareCode)?.size ?? 0,

    /** Lets a viewer in; fails with SHARE_VIEWER_LIMIT when the share is full. */
    async enter(
      { tenantId, share }: StoredShare,
      origin: { remoteAddress: string; userAgent: string },
    ): Promise<Viewer> {
      const { shareCode, maxViewers } = share;
      const present = live.get(shareCode) ?? new Map<string, AbortController>();
      if (maxViewers > 0 && present.size >= maxViewers) throw fail("SHARE_VIEWER_LIMIT");
      const sessionId = newId("session", kernel.nowMs());
      const controller = new AbortController();
      present.set(sessionId, controller);
      live.set(shareCode, present);
      const leave = async () => {
        present.delete(sessionId);
        if (present.size === 0) live.delete(shareCode);
        await kernel.write(({ queries }) =>
          sharesOf(tenantId, queries).endSession(sessionId, kernel.nowMs()),
        );
      };
      try {
        await kernel.write(({ queries }) =>
          sharesOf(tenantId, queries).beginSession(shareCode, {
            sessionId,
            startedAt: kernel.nowMs(),
            ...origin,
          }),
        );
      } catch (error) {
        present.delete(sessionId);
        throw error;
      }
      return { sessionId, ended: controller.signal, leave };
    },

    /** Whether a session is live. */
    has: (shareCode: string, sessionId: string): boolean => live.get(shareCode)?.has(sessionId) ?? false,

    /** Ends one session, if it is live. */
    end(shareCode: string, sessionId: string): void {
      live.get(shareCode)?.get(sessionId)?.abort();
    },
  };
}
