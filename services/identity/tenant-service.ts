import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { type Tenant, TenantSchema, TenantStatus } from "#gen/portolan/identity/v1/tenant_pb.js";
import type { TenantService } from "#gen/portolan/identity/v1/tenant_service_pb.js";
import { principalOf } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import { demandEtag } from "#kernel/etag.ts";
import type { Tx } from "#kernel/events.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { apiKeysOf } from "./store.ts";
import { tenantStore } from "./tenant-store.ts";
import { usersOf } from "./user-store.ts";

/** The tenant whose administrators manage all tenants. */
export const firstTenant = "default";

/** The event after which a tenant may not act. */
export const suspendedEvent = "tenant.suspended";

/** The event after which it may again. */
export const resumedEvent = "tenant.resumed";

/** Whether the caller may name a tenant other than its own. */
export const managesTenants = (context: HandlerContext) => principalOf(context).tenantId === firstTenant;

/** The error of a caller that names a tenant that is not for it to manage. */
export const notForYou = () =>
  fail("INSUFFICIENT_PERMISSIONS", {
    message: `Only an administrator of the tenant ${firstTenant} may manage other tenants`,
    metadata: { permission: "tenants:write" },
  });

/** Handlers of TenantService. */
export function createTenantService(kernel: Kernel): ServiceImpl<typeof TenantService> {
  /** A tenant that the caller may see; the others do not exist for it. */
  async function demandTenant(id: string, context: HandlerContext, tx?: Tx): Promise<Tenant> {
    const visible = managesTenants(context) || id === principalOf(context).tenantId;
    const tenant = visible && (await tenantStore(tx?.queries ?? kernel.database.read).get(id));
    if (!tenant) throw fail("TENANT_NOT_FOUND");
    return tenant;
  }

  function refuseFirst(tenant: Tenant): void {
    if (tenant.id !== firstTenant) return;
    const message = `The tenant ${firstTenant} can neither be suspended nor deleted`;
    throw fail("ILLEGAL_TENANT_STATE", { message, metadata: { state: TenantStatus[tenant.status] } });
  }

  const emit = (tx: Tx, type: string, tenant: Tenant) =>
    tx.emit({ tenantId: tenant.id, type, subject: tenant.id, timeMs: kernel.nowMs() }, TenantSchema, tenant);

  return {
    async createTenant({ id, name }, context) {
      if (!managesTenants(context)) throw notForYou();
      return kernel.mutate(context, async (tx) => {
        const store = tenantStore(tx.queries);
        if (!(await store.insert(id, name, kernel.nowMs()))) throw fail("TENANT_EXISTS");
        const tenant = (await store.get(id)) as Tenant;
        tx.changing(TenantSchema, "id")(tenant);
        await emit(tx, "tenant.created", tenant);
        return { tenant };
      });
    },

    async listTenants(request, context) {
      const own = managesTenants(context) ? undefined : principalOf(context).tenantId;
      const { items, ...page } = await tenantStore(kernel.database.read).list(request, own);
      return { tenants: items, ...page };
    },

    async getTenant({ id }, context) {
      return { tenant: await demandTenant(id, context) };
    },

    async updateTenant({ id, name, etag }, context) {
      return kernel.mutate(context, async (tx) => {
        const present = await demandTenant(id, context, tx);
        demandEtag(etag, present.etag);
        const changed = tx.changing(TenantSchema, "id", present);
        const change = { ...(name !== undefined && { name }) };
        const tenant = await tenantStore(tx.queries).update(id, change, kernel.nowMs());
        changed(tenant);
        await emit(tx, "tenant.updated", tenant);
        return { tenant };
      });
    },

    async suspendTenant({ id, reason }, context) {
      return kernel.mutate(context, async (tx) => {
        const present = await demandTenant(id, context, tx);
        if (!managesTenants(context)) throw notForYou();
        refuseFirst(present);
        const changed = tx.changing(TenantSchema, "id", present);
        const now = kernel.nowMs();
        const isSuspended = present.status === TenantStatus.SUSPENDED;
        const tenant = await tenantStore(tx.queries).update(
          id,
          { suspension_reason: reason, ...(!isSuspended && { suspended_at: now }) },
          now,
        );
        changed(tenant);
        await emit(tx, suspendedEvent, tenant);
        return { tenant };
      });
    },

    async resumeTenant({ id }, context) {
      return kernel.mutate(context, async (tx) => {
        const present = await demandTenant(id, context, tx);
        if (!managesTenants(context)) throw notForYou();
        const changed = tx.changing(TenantSchema, "id", present);
        if (present.status === TenantStatus.ACTIVE) {
          changed(present);
          return { tenant: present };
        }
        const change = { suspended_at: null, suspension_reason: "" };
        const tenant = await tenantStore(tx.queries).update(id, change, kernel.nowMs());
        changed(tenant);
        await emit(tx, resumedEvent, tenant);
        return { tenant };
      });
    },

    async deleteTenant({ id }, context) {
      return kernel.mutate(context, async (tx) => {
        const present = await demandTenant(id, context, tx);
        if (!managesTenants(context)) throw notForYou();
        refuseFirst(present);
        if (present.status !== TenantStatus.SUSPENDED) {
          const message = "Suspend the tenant before you delete it";
          throw fail("ILLEGAL_TENANT_STATE", { message, metadata: { state: TenantStatus[present.status] } });
        }
        tx.changing(TenantSchema, "id", present)();
        const now = kernel.nowMs();
        await apiKeysOf(id, tx.queries).revokeAll(now);
        await usersOf(id, tx.queries).deleteAll();
        await tenantStore(tx.queries).update(id, { deleted_at: now }, now);
        await emit(tx, "tenant.deleted", present);
        return {};
      });
    },
  };
}
