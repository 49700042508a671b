import { create } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { AuditLogSchema, AuditOutcome } from "#gen/portolan/identity/v1/audit_log_pb.js";
import type { AuditLogService } from "#gen/portolan/identity/v1/audit_log_service_pb.js";
import { fingerprint } from "#kernel/audit.ts";
import { auditOf, type StoredAudit } from "#kernel/audit-store.ts";
import { tenantOf } from "#kernel/call.ts";
import type { Kernel } from "#kernel/kernel.ts";

/** Handlers of AuditLogService. */
export function createAuditLogService(kernel: Kernel): ServiceImpl<typeof AuditLogService> {
  return {
    async listAuditLogs(request, context) {
      const tenantId = tenantOf(context);
      const { actor, action, resourceType, resourceId, requestId, outcome } = request;
      const fromMs = request.startTime && timestampMs(request.startTime);
      const toMs = request.endTime && timestampMs(request.endTime);
      const filter = {
        actor,
        action,
        resourceType,
        resourceIds: resourceId ? [resourceId, fingerprint(resourceId)] : [],
        requestId,
        failed: outcome === AuditOutcome.UNSPECIFIED ? undefined : outcome === AuditOutcome.FAILED,
        fromMs,
        toMs,
      };
      const log = auditOf(tenantId, kernel.database.read);
      const { items, ...page } = await log.list(filter, request, request.pageSize || 100);
      return { auditLogs: items.map(toAuditLog), ...page };
    },

    async verifyAuditLogs(_, context) {
      const { checked, broken, lastHash } = await auditOf(tenantOf(context), kernel.database.read).verify();
      return {
        valid: broken === 0,
        checked: BigInt(checked),
        brokenSequence: BigInt(broken),
        lastHash,
      };
    },
  };
}

const toAuditLog = (row: StoredAudit) =>
  create(AuditLogSchema, {
    id: row.audit_id,
    tenantId: row.tenant_id,
    occurredAt: timestampFromMs(row.occurred_at),
    actor: row.actor,
    role: row.role,
    credential: row.credential,
    remoteAddress: row.remote_address,
    service: row.service,
    action: row.action,
    resourceType: row.resource_type,
    resourceId: row.resource_id,
    requestId: row.request_id,
    protocol: row.protocol,
    outcome: row.code === "" ? AuditOutcome.SUCCEEDED : AuditOutcome.FAILED,
    code: row.code,
    reason: row.reason,
    replayed: row.replayed === 1,
    digestBefore: row.digest_before,
    digestAfter: row.digest_after,
    sequence: BigInt(row.sequence),
    previousHash: row.previous_hash,
    hash: row.hash,
  });
