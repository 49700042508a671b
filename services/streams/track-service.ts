import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import type { TrackUpdate } from "#gen/portolan/common/v1/track_pb.js";
import { ShareService, TrackShareRequestSchema } from "#gen/portolan/shares/v1/share_service_pb.js";
import type { TrackService } from "#gen/portolan/streams/v1/track_service_pb.js";
import { demand } from "#kernel/call.ts";
import { followTopic } from "#kernel/follow.ts";
import type { Kernel } from "#kernel/kernel.ts";

/** Handlers of TrackService. */
export function createTrackService(kernel: Kernel): ServiceImpl<typeof TrackService> {
  return {
    async *track(request, context): AsyncGenerator<TrackUpdate> {
      const { resourceId: id, afterSequence, pin } = request;
      if (id.startsWith("share-")) {
        const message = create(TrackShareRequestSchema, { shareCode: id, pin, afterSequence });
        yield* kernel.peerStream(ShareService.method.trackShare, message, context);
        return;
      }
      demand(context, "streams:read");
      yield* followTopic(kernel, context, { id, afterSequence, missing: "SUBJECT_NOT_FOUND" });
    },
  };
}
