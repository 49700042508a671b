import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { ApiKeySchema } from "#gen/portolan/identity/v1/api_key_pb.js";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { AuditLogService } from "#gen/portolan/identity/v1/audit_log_service_pb.js";
import { TenantService } from "#gen/portolan/identity/v1/tenant_service_pb.js";
import { TokenService } from "#gen/portolan/identity/v1/token_service_pb.js";
import { UserService } from "#gen/portolan/identity/v1/user_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { auditList } from "#kernel/audit-store.ts";
import { newSecret } from "#kernel/ids.ts";
import { type Kernel, type ServiceModule, serve } from "#kernel/kernel.ts";
import { type Plans, unlimitedPlan } from "#kernel/plans.ts";
import { createApiKeyService } from "./api-key-service.ts";
import { createAuditLogService } from "./audit-log-service.ts";
import { KeyAuthenticator } from "./authenticator.ts";
import { createHousekeeping } from "./housekeeping.ts";
import { apiKeyList, apiKeysOf, hashSecret, identityStore, migrations } from "./store.ts";
import { createTenantService, firstTenant } from "./tenant-service.ts";
import { tenantList } from "./tenant-store.ts";
import { createTokenService } from "./token-service.ts";
import { createTokenSigner } from "./tokens.ts";
import { createUsage } from "./usage.ts";
import { createUserService } from "./user-service.ts";
import { userList } from "./user-store.ts";

export { migrations };

/** The identity services and the authenticator that stands on them. Migrations must have run. */
export async function createIdentity(
  kernel: Kernel,
  permissions: ReadonlyMap<Role, ReadonlySet<string>>,
  { auditDays, plans }: { readonly auditDays: number; readonly plans: Plans },
) {
  const signer = await createTokenSigner(kernel);
  const authenticator = new KeyAuthenticator(kernel, signer, permissions);
  const usage = createUsage(kernel);
  const housekeeping = createHousekeeping(kernel, usage, auditDays);
  const module: ServiceModule = {
    services: [
      serve(TokenService, createTokenService(authenticator, signer)),
      serve(ApiKeyService, createApiKeyService(kernel, authenticator, usage.flush, plans)),
      serve(TenantService, createTenantService(kernel)),
      serve(UserService, createUserService(kernel)),
      serve(AuditLogService, createAuditLogService(kernel)),
    ],
    migrations,
    lists: [apiKeyList, tenantList, userList, auditList],
    start: housekeeping.start,
    stop: housekeeping.stop,
  };
  return { module, authenticator, usage };
}

/** A key with an id of its own, for the administrator or a part of the server. */
export interface WellKnownKey {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  /** The tenant; the first one if not given. */
  readonly tenantId?: string;
  /** The plan that limits its calls; `unlimited` if not given. */
  readonly plan?: string;
}

/** The first administrator's key. */
export const adminKey: WellKnownKey = { id: "key-admin", name: "Administrator", role: Role.ADMIN };

/** The key of the simulated devices. */
export const sandboxKey: WellKnownKey = { id: "key-sandbox", name: "Sandbox fleet", role: Role.DEVICE };

/**
 * Sees to it that the key exists and is on its plan. A given secret becomes its
 * secret; without one the present secret stays, and a new key gets a generated one.
 * @returns the secret if it is known: given, or just generated
 */
export async function ensureKey(
  kernel: Kernel,
  key: WellKnownKey,
  secret?: string,
): Promise<string | undefined> {
  const { tenantId = firstTenant, plan = unlimitedPlan } = key;
  return kernel.write(async ({ queries }) => {
    const present = await identityStore(queries).findById(key.id);
    if (present) {
      if (present.plan !== plan) await identityStore(queries).changePlan(key.id, plan);
      if (secret && present.secret_hash !== hashSecret(secret)) {
        await identityStore(queries).replaceSecret(key.id, secret);
      }
      return secret;
    }
    const chosen = secret ?? newSecret("sk_");
    const now = kernel.nowMs();
    const message = create(ApiKeySchema, {
      ...key,
      tenantId,
      plan,
      prefix: chosen.slice(0, 7),
      createdAt: timestampFromMs(now),
    });
    await apiKeysOf(tenantId, queries).insert(message, chosen, now, null);
    return chosen;
  });
}
