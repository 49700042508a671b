import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { type Kernel, type ServiceModule, serve } from "#kernel/kernel.ts";
import { createLiveShares } from "./live-shares.ts";
import { createShareService, type ShareOptions } from "./share-service.ts";
import { endOpenSessions, migrations, sessionList, shareList } from "./store.ts";
import { createViewers } from "./viewers.ts";

/** Expiring links to live state. */
export function createShares(kernel: Kernel, publicUrl: ShareOptions["publicUrl"]): ServiceModule {
  const viewers = createViewers(kernel);

  async function groupOf(tenantId: string, resourceId: string): Promise<string | undefined> {
    const topic = await kernel.topics.joinAny(tenantId, resourceId);
    if (!topic) return undefined;
    try {
      return topic.subject.state().deviceGroupId;
    } finally {
      topic.leave();
    }
  }

  kernel.topics.provide(
    "share",
    createLiveShares(kernel, (tenantId, resourceId) => kernel.topics.joinAny(tenantId, resourceId)),
  );
  return {
    services: [serve(ShareService, createShareService(kernel, { viewers, groupOf, publicUrl }))],
    migrations,
    lists: [sessionList, shareList],
    start: () => kernel.write(({ queries }) => endOpenSessions(queries, kernel.nowMs())),
  };
}
