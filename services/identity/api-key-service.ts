import { create } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { ApiKeySchema } from "#gen/portolan/identity/v1/api_key_pb.js";
import type { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { principalOf, tenantOf } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import { newId, newSecret } from "#kernel/ids.ts";
import type { Kernel } from "#kernel/kernel.ts";
import type { KeyAuthenticator } from "./authenticator.ts";
import { apiKeysOf } from "./store.ts";

/** The tenant whose administrators may make keys for other tenants. */
export const firstTenant = "default";

/** Handlers of ApiKeyService. */
export function createApiKeyService(
  kernel: Kernel,
  authenticator: KeyAuthenticator,
): ServiceImpl<typeof ApiKeyService> {
  return {
    async createApiKey(request, context) {
      const caller = principalOf(context);
      const tenantId = request.tenantId || caller.tenantId;
      if (tenantId !== caller.tenantId && caller.tenantId !== firstTenant) {
        throw fail("INSUFFICIENT_PERMISSIONS", {
          message: `Only an administrator of the tenant ${firstTenant} may name another tenant`,
          metadata: { permission: "tenants:write" },
        });
      }
      const now = kernel.nowMs();
      const secret = newSecret("sk_");
      const key = create(ApiKeySchema, {
        id: newId("key", now),
        name: request.name,
        tenantId,
        role: request.role || Role.VIEWER,
        prefix: secret.slice(0, 7),
        createdAt: timestampFromMs(now),
        expiresAt: request.expiresAt,
      });
      const expiresAt = request.expiresAt ? timestampMs(request.expiresAt) : null;
      await kernel.mutate(context, async ({ queries }) => {
        await apiKeysOf(tenantId, queries).insert(key, secret, now, expiresAt);
      });
      return { apiKey: key, secret };
    },

    async listApiKeys(request, context) {
      const { items, ...page } = await apiKeysOf(tenantOf(context), kernel.database.read).list(request);
      return { apiKeys: items, ...page };
    },

    async revokeApiKey(request, context) {
      const found = await kernel.mutate(context, ({ queries }) =>
        apiKeysOf(tenantOf(context), queries).revoke(request.id, request.etag, kernel.nowMs()),
      );
      if (!found) throw fail("API_KEY_NOT_FOUND");
      authenticator.forget();
      return {};
    },

    async getApiKeyUsage(request, context) {
      await authenticator.flushUsage();
      const found = await apiKeysOf(tenantOf(context), kernel.database.read).get(request.id);
      if (!found) throw fail("API_KEY_NOT_FOUND");
      return { id: found.key.id, callCount: BigInt(found.callCount), lastUsedAt: found.key.lastUsedAt };
    },
  };
}
