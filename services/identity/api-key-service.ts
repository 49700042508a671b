import { create } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { ApiKeySchema } from "#gen/portolan/identity/v1/api_key_pb.js";
import type { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { type Principal, principalOf, tenantOf } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import { newId, newSecret } from "#kernel/ids.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { type Plans, planOfRole } from "#kernel/plans.ts";
import type { KeyAuthenticator } from "./authenticator.ts";
import { apiKeysOf } from "./store.ts";
import { firstTenant, managesTenants, notForYou } from "./tenant-service.ts";
import { type UsageRow, usageOf } from "./usage-store.ts";

/** Handlers of ApiKeyService. */
export function createApiKeyService(
  kernel: Kernel,
  authenticator: KeyAuthenticator,
  flushUsage: () => Promise<void>,
  plans: Plans,
): ServiceImpl<typeof ApiKeyService> {
  /** The plan of a new key, if the caller may give it out. */
  function planFor(asked: string, role: Role, caller: Principal): string {
    const usual = planOfRole(role);
    const plan = asked || usual;
    if (!plans.has(plan)) {
      const names = [...plans.keys()].sort().join(", ");
      throw fail("UNKNOWN_PLAN", {
        message: `There is no plan ${plan}; there are ${names}`,
        metadata: { plan, plans: names },
      });
    }
    if (caller.tenantId !== firstTenant && plan !== usual && plan !== caller.plan) {
      throw fail("INSUFFICIENT_PERMISSIONS", {
        message: `Only an administrator of the tenant ${firstTenant} may give out another plan`,
        metadata: { permission: "plans:write" },
      });
    }
    return plan;
  }

  return {
    async createApiKey(request, context) {
      const caller = principalOf(context);
      const tenantId = request.tenantId || caller.tenantId;
      if (tenantId !== caller.tenantId && !managesTenants(context)) throw notForYou();
      const role = request.role || Role.VIEWER;
      const plan = planFor(request.plan, role, caller);
      const now = kernel.nowMs();
      const secret = newSecret("sk_");
      const key = create(ApiKeySchema, {
        id: newId("key", now),
        name: request.name,
        tenantId,
        role,
        plan,
        prefix: secret.slice(0, 7),
        createdAt: timestampFromMs(now),
        expiresAt: request.expiresAt,
      });
      const expiresAt = request.expiresAt ? timestampMs(request.expiresAt) : null;
      kernel.standing.demand(tenantId);
      return kernel.mutate(context, async (tx) => {
        await apiKeysOf(tenantId, tx.queries).insert(key, secret, now, expiresAt);
        tx.changing(ApiKeySchema, "id")(key);
        return { apiKey: key, secret };
      });
    },

    async listApiKeys(request, context) {
      const { items, ...page } = await apiKeysOf(tenantOf(context), kernel.database.read).list(request);
      return { apiKeys: items, ...page };
    },

    async revokeApiKey(request, context) {
      await kernel.mutate(context, async (tx) => {
        const store = apiKeysOf(tenantOf(context), tx.queries);
        const found = await store.get(request.id);
        if (!found) throw fail("API_KEY_NOT_FOUND");
        const changed = tx.changing(ApiKeySchema, "id", found.key);
        await store.revoke(request.id, request.etag, kernel.nowMs());
        changed((await store.get(request.id))?.key);
      });
      kernel.database.afterCommit(() => {
        authenticator.forget();
        kernel.standing.revoke(request.id);
      });
      return {};
    },

    async getApiKeyUsage(request, context) {
      const tenantId = tenantOf(context);
      const { read } = kernel.database;
      await flushUsage();
      const found = await apiKeysOf(tenantId, read).get(request.id);
      if (!found) throw fail("API_KEY_NOT_FOUND");
      const rows = await usageOf(tenantId, read, found.key.id, request.days || 7, kernel.nowMs());
      return {
        id: found.key.id,
        callCount: BigInt(found.callCount),
        ...(found.key.lastUsedAt && { lastUsedAt: found.key.lastUsedAt }),
        ...summarize(rows),
      };
    },
  };
}

/** Adds up the usage of a key by RPC and by day. */
function summarize(rows: readonly UsageRow[]) {
  const [byEndpoint, byDay] = [
    new Map<string, number>(),
    new Map<number, { requests: number; errors: number }>(),
  ];
  const total = { requests: 0, errors: 0, timed: 0, durationMs: 0 };
  for (const { method, day, requests, errors, timed, duration_ms } of rows) {
    total.requests += requests;
    total.errors += errors;
    total.timed += timed;
    total.durationMs += duration_ms;
    byEndpoint.set(method, (byEndpoint.get(method) ?? 0) + requests);
    const ofDay = byDay.get(day) ?? { requests: 0, errors: 0 };
    byDay.set(day, { requests: ofDay.requests + requests, errors: ofDay.errors + errors });
  }
  return {
    totalRequests: toUint32(total.requests),
    successRequests: toUint32(total.requests - total.errors),
    errorRequests: toUint32(total.errors),
    avgDuration: total.timed === 0 ? 0 : total.durationMs / total.timed,
    byEndpoint: Object.fromEntries([...byEndpoint].map(([method, requests]) => [method, toUint32(requests)])),
    byDay: [...byDay].map(([day, { requests, errors }]) => ({
      startTime: timestampFromMs(day),
      requests: toUint32(requests),
      errors: toUint32(errors),
    })),
  };
}

const toUint32 = (count: number) => Math.min(count, 2 ** 32 - 1);
