import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { TrackUpdate } from "#gen/portolan/common/v1/track_pb.js";
import {
  type Share,
  ShareSchema,
  type ShareSession,
  ShareSessionSchema,
  ShareType,
} from "#gen/portolan/shares/v1/share_pb.js";
import type { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { callInfo, tenantOf } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import { demandEtag } from "#kernel/etag.ts";
import { newSecret } from "#kernel/ids.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { revokedEvent } from "./live-shares.ts";
import { createPinGuard, hashPin } from "./pin.ts";
import { roleOf } from "./share-view.ts";
import { findByCode, type StoredSession, sharesOf } from "./store.ts";
import type { createViewers } from "./viewers.ts";

/** What ShareService stands on beside the kernel. */
export interface ShareOptions {
  readonly viewers: ReturnType<typeof createViewers>;
  /** The device group that an id leads to (a group's, a device's or a job's), if any. */
  groupOf(tenantId: string, resourceId: string): Promise<string | undefined>;
  /** Address under which people reach the server, for links. */
  readonly publicUrl: () => string;
}

/** Handlers of ShareService. */
export function createShareService(
  kernel: Kernel,
  { viewers, groupOf, publicUrl }: ShareOptions,
): ServiceImpl<typeof ShareService> {
  const checkPin = createPinGuard(kernel.nowMs);

  const withViewers = (share: Share): Share =>
    create(ShareSchema, {
      ...share,
      shareUrl: `${publicUrl()}/v3/shares/${share.shareCode}/status/ws`,
      viewerCount: viewers.count(share.shareCode),
    });

  async function demandShare(shareCode: string, context: HandlerContext): Promise<Share> {
    const share = await sharesOf(tenantOf(context), kernel.database.read).get(shareCode, kernel.nowMs());
    if (!share) throw fail("SHARE_NOT_FOUND");
    return share;
  }

  return {
    async createShare(request, context) {
      const tenantId = tenantOf(context);
      const resourceId = request.resourceId || request.deviceGroupId;
      if (!(await groupOf(tenantId, resourceId))) throw fail("SUBJECT_NOT_FOUND");
      const now = kernel.nowMs();
      const expiresAt = now + (request.expiresIn || request.timeout * 60) * 1000;
      const pinHash = request.pin && (await hashPin(request.pin));
      const share = create(ShareSchema, {
        shareCode: newSecret("share-"),
        resourceId,
        shareType: request.shareType || ShareType.DEVICE_STATUS,
        permissions: request.permissions.length > 0 ? request.permissions : ["view"],
        role: roleOf(request.role, request.permissions),
        expiresAt: timestampFromMs(expiresAt),
        maxViewers: request.maxViewers,
        createdAt: timestampFromMs(now),
        ...(request.metadata && { metadata: request.metadata }),
        pinRequired: pinHash !== "",
      });
      return kernel.mutate(context, async (tx) => {
        await sharesOf(tenantId, tx.queries).insert(share, now, expiresAt, pinHash);
        tx.changing(ShareSchema, "shareCode")(share);
        await tx.emit(
          { tenantId, type: "share.created", subject: share.shareCode, timeMs: now },
          ShareSchema,
          share,
        );
        return { share: withViewers(share) };
      });
    },

    async listShares(request, context) {
      const store = sharesOf(tenantOf(context), kernel.database.read);
      const { items, ...page } = await store.list(request, kernel.nowMs());
      return { shares: items.map(withViewers), count: items.length, ...page };
    },

    async getShare(request, context) {
      return { share: withViewers(await demandShare(request.shareCode, context)) };
    },

    async revokeShare(request, context) {
      const tenantId = tenantOf(context);
      const { shareCode } = request;
      return kernel.mutate(context, async (tx) => {
        const store = sharesOf(tenantId, tx.queries);
        const now = kernel.nowMs();
        const share = await store.get(shareCode, now);
        if (!share) throw fail("SHARE_NOT_FOUND");
        demandEtag(request.etag, share.etag);
        if (!(await store.revoke(shareCode, now))) throw fail("SHARE_NOT_FOUND");
        tx.changing(ShareSchema, "shareCode", share)();
        await tx.emit({ tenantId, type: revokedEvent, subject: shareCode, timeMs: now }, ShareSchema, share);
        return { message: "Share revoked successfully" };
      });
    },

    async listShareResources(request) {
      const found = await findByCode(kernel.database.read, request.shareCode, kernel.nowMs());
      if (!found) throw fail("SHARE_NOT_FOUND");
      kernel.standing.demand(found.tenantId);
      const group = await groupOf(found.tenantId, found.share.resourceId);
      const resources = group ? [group] : [];
      return { resources, count: resources.length };
    },

    async listShareSessions(request, context) {
      const tenantId = tenantOf(context);
      await demandShare(request.shareCode, context);
      const { items, ...page } = await sharesOf(tenantId, kernel.database.read).sessions(request);
      return { sessions: items.map(toSession), count: items.length, ...page };
    },

    async revokeShareSession(request, context) {
      const { shareCode, sessionId } = request;
      await demandShare(shareCode, context);
      const response = await kernel.mutate(context, async (tx) => {
        const store = sharesOf(tenantOf(context), tx.queries);
        const session = await store.openSession(shareCode, sessionId);
        if (!session || !viewers.has(shareCode, sessionId)) {
          throw fail("SHARE_NOT_FOUND", { message: "The share has no such live session" });
        }
        const changed = tx.changing(ShareSessionSchema, "sessionId", toSession(session));
        const endedAt = kernel.nowMs();
        await store.endSession(sessionId, endedAt);
        changed(toSession({ ...session, endedAt }));
        return { message: "Session ended" };
      });
      viewers.end(shareCode, sessionId);
      return response;
    },

    async *trackShare(request, context): AsyncGenerator<TrackUpdate> {
      const { shareCode, pin, afterSequence } = request;
      const found = await findByCode(kernel.database.read, shareCode, kernel.nowMs());
      if (!found) throw fail("SHARE_NOT_FOUND");
      kernel.standing.demand(found.tenantId);
      await checkPin(shareCode, found.pinHash, pin);
      const { remoteAddress, slot } = context.values.get(callInfo);
      const userAgent = (context.requestHeader.get("user-agent") ?? "").slice(0, 200);
      const viewer = await viewers.enter(found, { remoteAddress, userAgent });
      try {
        const topic = await kernel.topics.join("share", found.tenantId, shareCode);
        if (!topic) throw fail("SHARE_NOT_FOUND");
        const suspended = kernel.standing.suspended(found.tenantId);
        const signal = AbortSignal.any([context.signal, viewer.ended, suspended]);
        yield* topic.follow({ afterSequence, slot, signal });
        kernel.standing.demand(found.tenantId);
      } finally {
        await viewer.leave();
      }
    },
  };
}

const toSession = ({ startedAt, endedAt, ...session }: StoredSession): ShareSession =>
  create(ShareSessionSchema, {
    ...session,
    startedAt: timestampFromMs(startedAt),
    ...(endedAt !== null && { endedAt: timestampFromMs(endedAt) }),
  });
