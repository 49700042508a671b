import { fail } from "./errors.ts";

/** Which tenants may not act now. The identity services keep it; whoever lets a caller in asks it. */
export interface Standing {
  /** Fails with TENANT_SUSPENDED if the tenant may not act. */
  demand(tenantId: string): void;
  /** Aborted as soon as the tenant may not act. */
  signal(tenantId: string): AbortSignal;
  /** Replaces the list of tenants that may not act. */
  suspend(tenantIds: Iterable<string>): void;
}

/** A standing in which every tenant may act. */
export function createStanding(): Standing {
  let suspended = new Set<string>();
  const watched = new Map<string, AbortController>();
  return {
    demand(tenantId) {
      if (suspended.has(tenantId)) throw fail("TENANT_SUSPENDED");
    },
    signal(tenantId) {
      if (suspended.has(tenantId)) return AbortSignal.abort();
      const controller = watched.get(tenantId) ?? new AbortController();
      watched.set(tenantId, controller);
      return controller.signal;
    },
    suspend(tenantIds) {
      suspended = new Set(tenantIds);
      for (const tenantId of suspended) {
        watched.get(tenantId)?.abort();
        watched.delete(tenantId);
      }
    },
  };
}
