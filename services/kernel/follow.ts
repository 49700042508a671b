import type { HandlerContext } from "@connectrpc/connect";
import type { TrackUpdate } from "#gen/portolan/common/v1/track_pb.js";
import { callInfo, tenantOf } from "./call.ts";
import { fail, type Reason } from "./errors.ts";
import type { Kernel } from "./kernel.ts";

/** Which subject of the caller's tenant a tracking RPC follows, and how it fails without one. */
export interface FollowRequest {
  /** Kind of subject; without it the id tells. */
  readonly kind?: string;
  readonly id: string;
  readonly afterSequence: bigint;
  readonly missing: Reason;
}

/** The stream of a tracking RPC. */
export async function* followTopic(
  kernel: Kernel,
  context: HandlerContext,
  { kind, id, afterSequence, missing }: FollowRequest,
): AsyncGenerator<TrackUpdate> {
  const tenantId = tenantOf(context);
  const topic = await (kind ? kernel.topics.join(kind, tenantId, id) : kernel.topics.joinAny(tenantId, id));
  if (!topic) throw fail(missing);
  yield* topic.follow({ afterSequence, slot: context.values.get(callInfo).slot, signal: context.signal });
}
