import { fail } from "./errors.ts";

/**
 * Who may not act any more: suspended tenants and revoked keys. The identity services keep it;
 * whoever lets a caller in, or goes on serving one, asks it.
 */
export interface Standing {
  /** Fails with TENANT_SUSPENDED if the tenant may not act. */
  demand(tenantId: string): void;
  /** Aborted as soon as the tenant may not act. */
  suspended(tenantId: string): AbortSignal;
  /** Aborted as soon as the key is revoked. */
  revoked(keyId: string): AbortSignal;
  /** Notes that a tenant may not act. */
  suspend(tenantId: string): void;
  /** Replaces the list of tenants that may not act. */
  replaceSuspended(tenantIds: Iterable<string>): void;
  /** Notes that a key is revoked, for good. */
  revoke(keyId: string): void;
}

/** A standing in which everybody may act. */
export function createStanding(): Standing {
  let suspended = new Set<string>();
  const tenants = new Map<string, AbortController>();
  const keys = new Map<string, AbortController>();
  const watch = (watched: Map<string, AbortController>, id: string): AbortController => {
    const controller = watched.get(id) ?? new AbortController();
    watched.set(id, controller);
    return controller;
  };
  const suspend = (tenantId: string) => {
    suspended.add(tenantId);
    tenants.get(tenantId)?.abort();
    // Resumed, the tenant gets a new signal.
    tenants.delete(tenantId);
  };
  return {
    demand(tenantId) {
      if (suspended.has(tenantId)) throw fail("TENANT_SUSPENDED");
    },
    suspended: (tenantId) =>
      suspended.has(tenantId) ? AbortSignal.abort() : watch(tenants, tenantId).signal,
    revoked: (keyId) => watch(keys, keyId).signal,
    suspend,
    replaceSuspended(tenantIds) {
      suspended = new Set();
      for (const tenantId of tenantIds) suspend(tenantId);
    },
    revoke(keyId) {
      watch(keys, keyId).abort();
    },
  };
}
