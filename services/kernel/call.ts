import { createContextKey, type HandlerContext } from "@connectrpc/connect";
import type { CredentialKind } from "#gen/portolan/identity/v1/audit_log_pb.js";
import type { Role } from "#gen/portolan/options/v1/policy_pb.js";
import type { AuditTrail } from "./audit.ts";
import { fail } from "./errors.ts";

/** Who calls, once the gate has authenticated the credentials. */
export interface Principal {
  readonly tenantId: string;
  /** Id of the API key, directly or behind a token. */
  readonly subject: string;
  readonly role: Role;
  readonly credential: CredentialKind;
  readonly permissions: ReadonlySet<string>;
}

/** The answer that a transaction stores under an idempotency key, see `Kernel.mutate`. */
export interface Replay {
  readonly key: string;
  readonly method: string;
  readonly requestHash: string;
  encode(response: unknown): Uint8Array;
}

/** What every handler can learn about its call, whichever protocol it came by. */
export interface CallInfo {
  readonly requestId: string;
  readonly remoteAddress: string;
  /** Slot of the second in which the call's connection is written, 0 to 99. */
  readonly slot: number;
  principal?: Principal;
  replay?: Replay;
  /** There if the RPC is audited. */
  audit?: AuditTrail;
}

/** Where lanes put the CallInfo. */
export const callInfo = createContextKey<CallInfo>({ requestId: "", remoteAddress: "", slot: 0 });

/** The caller, of whom the gate has made sure that there is one. */
export function principalOf(context: HandlerContext): Principal {
  const { principal } = context.values.get(callInfo);
  if (!principal) throw fail("MISSING_CREDENTIALS");
  return principal;
}

/** The tenant whose data the call may touch. */
export const tenantOf = (context: HandlerContext): string => principalOf(context).tenantId;

/** Demands a permission that the RPC's policy leaves to the handler. */
export function demand(context: HandlerContext, permission: string): Principal {
  const principal = principalOf(context);
  if (!principal.permissions.has(permission)) {
    throw fail("INSUFFICIENT_PERMISSIONS", { metadata: { permission } });
  }
  return principal;
}
