import { isMessage } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { ShareSchema } from "#gen/portolan/shares/v1/share_pb.js";
import type { Kernel } from "#kernel/kernel.ts";
import { sequenceAt } from "#kernel/sequence.ts";
import { createEnd, type OpenSubject, type Subject } from "#kernel/topics.ts";
import { visible } from "./share-view.ts";
import { findByCode } from "./store.ts";

/** The event that ends a share's connections. */
export const revokedEvent = "share.revoked";

/** The longest delay that a timer takes, in milliseconds. */
const maxTimerMs = 2 ** 31 - 1;

/** Opens shares for topics: what they show of their subject, until they expire or are revoked. */
export function createLiveShares(kernel: Kernel, join: SubjectJoin): OpenSubject {
  return async (tenantId, shareCode) => {
    const found = await findByCode(kernel.database.read, shareCode, kernel.nowMs());
    if (!found || found.tenantId !== tenantId) return undefined;
    const { share, expiresAt } = found;
    const made = sequenceAt(share.createdAt ? timestampMs(share.createdAt) : 0);
    const topic = await join(tenantId, share.resourceId);
    if (!topic) return undefined;
    const shown: Subject = topic.subject;
    const end = createEnd();
    let why = "";
    const finish = (reason: string) => {
      why ||= reason;
      end.end();
    };

    let timer: NodeJS.Timeout;
    const arm = () => {
      const leftMs = expiresAt - kernel.nowMs();
      if (leftMs <= 0) finish("The share has expired");
      else timer = setTimeout(arm, Math.min(leftMs, maxTimerMs));
    };
    arm();
    const unlisten = kernel.bus.listen(revokedEvent, (event) => {
      if (isMessage(event.data, ShareSchema) && event.subject === shareCode) finish("The share was revoked");
    });
    const unhear = shown.onEnd(() => finish("What the share showed has ended"));
    if (shown.ended()) finish("What the share showed has ended");
    // A revocation between the first read and the listener would otherwise be missed.
    if (!(await findByCode(kernel.database.read, shareCode, kernel.nowMs()))) finish("The share was revoked");

    return {
      sequence: () => shown.sequence(),
      state: () => ({ ...visible(shown.state(), share), ...(why && { message: why }) }),
      ended: () => end.over,
      onEnd: (wake) => end.onEnd(wake),
      ...(shown.history && {
        async *history(after: bigint) {
          // What happened before the share was made is not shared.
          const since = after > made ? after : made;
          for await (const { sequence, state } of shown.history?.(since) ?? []) {
            yield { sequence, state: visible(state, share) };
          }
        },
      }),
      close() {
        clearTimeout(timer);
        unlisten();
        unhear();
        topic.leave();
      },
    };
  };
}

/** Joins the topic of whatever a share's resource id names. */
export type SubjectJoin = (tenantId: string, resourceId: string) => ReturnType<Kernel["topics"]["join"]>;
