import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { DispatchCommand, DispatchSchema } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import {
  type DispatchService,
  type WatchDispatchesResponse,
  WatchDispatchesResponseSchema,
} from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { tenantOf } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { presenceMs } from "#kernel/presence.ts";
import { createChanges, dispatchEvent } from "./changes.ts";
import type { createDispatcher } from "./dispatcher.ts";
import { isFinal } from "./job-state.ts";
import { jobsOf } from "./store.ts";

/** How long an order that nobody acknowledges is repeated to new watchers, in milliseconds. */
const dispatchLifeMs = 24 * 60 * 60 * 1000;

/** Pause between signs of life of a watch, in milliseconds. */
const signOfLifeMs = 10_000;

/** Handlers of DispatchService. */
export function createDispatchService(
  kernel: Kernel,
  dispatcher: ReturnType<typeof createDispatcher>,
  closing: AbortSignal,
): ServiceImpl<typeof DispatchService> {
  const changes = createChanges(kernel);

  return {
    async *watchDispatches(request, context): AsyncGenerator<WatchDispatchesResponse> {
      const tenantId = tenantOf(context);
      const { deviceGroupId } = request;
      await kernel.peer(ResourceService, context).getResource({ deviceGroupId });
      const store = jobsOf(tenantId, kernel.database.read);
      const sent = new Set<string>();
      const bell = createBell(AbortSignal.any([context.signal, closing]));
      const unlisten = kernel.bus.listen(dispatchEvent, (event) => {
        if (event.tenantId === tenantId && event.subject === deviceGroupId) bell.ring();
      });
      const heard = () => {
        kernel.presence.heard(tenantId, deviceGroupId);
        dispatcher.look(tenantId, deviceGroupId);
      };
      // The open stream is itself the sign that the device is there.
      const presence = setInterval(heard, presenceMs / 2);
      heard();
      try {
        while (!bell.closed) {
          const waiting = await store.waitingDispatches(deviceGroupId, kernel.nowMs() - dispatchLifeMs);
          for (const { dispatchId, jobId, command, createdAt } of waiting) {
            if (sent.has(dispatchId)) continue;
            sent.add(dispatchId);
            const job = await store.get(jobId);
            if (!job) continue;
            const dispatch = { dispatchId, command, job, createdAt: timestampFromMs(createdAt) };
            yield create(WatchDispatchesResponseSchema, { dispatch });
          }
          if (await bell.wait(signOfLifeMs)) continue;
          if (!bell.closed) yield create(WatchDispatchesResponseSchema);
        }
      } finally {
        clearInterval(presence);
        unlisten();
      }
    },

    async acknowledgeDispatch(request, context) {
      const tenantId = tenantOf(context);
      const { deviceGroupId, dispatchId, rejected, message } = request;
      await kernel.mutate(context, async (tx) => {
        const store = jobsOf(tenantId, tx.queries);
        const dispatch = await store.dispatch(deviceGroupId, dispatchId);
        if (!dispatch) throw fail("DISPATCH_NOT_FOUND");
        const job = await store.get(dispatch.jobId);
        const { command, createdAt, closedAt } = dispatch;
        const order = create(DispatchSchema, { dispatchId, command, createdAt: timestampFromMs(createdAt) });
        // An order that has been answered is no longer there.
        tx.changing(DispatchSchema, "dispatchId", closedAt === null ? order : undefined)();
        if (closedAt !== null) return;
        await store.closeDispatch(dispatchId, kernel.nowMs());
        if (!rejected || !job || isFinal(job.status) || command !== DispatchCommand.START) return;
        await changes.move(tx, tenantId, job, JobState.FAILED, { reason: "DISPATCH_REJECTED", message });
      });
      kernel.presence.heard(tenantId, deviceGroupId);
      return {};
    },

    async reportJob(request, context) {
      const tenantId = tenantOf(context);
      const { state, progress, errorReason, errorMessage } = request;
      const response = await kernel.mutate(context, async (tx) => {
        const job = await jobsOf(tenantId, tx.queries).get(request.jobId);
        if (!job) throw fail("JOB_NOT_FOUND");
        const before = job.progress;
        const changed = tx.changing(JobSchema, "jobId", job);
        if (progress !== undefined && !isFinal(job.status)) job.progress = progress;
        if (state !== job.status) {
          const error =
            errorReason || errorMessage ? { reason: errorReason, message: errorMessage } : undefined;
          await changes.move(tx, tenantId, job, state, error);
        } else {
          if (job.progress !== before) await changes.save(tx, tenantId, job, "progressed");
          tx.minor();
        }
        changed(job);
        return { job };
      });
      kernel.presence.heard(tenantId, response.job.deviceGroupId);
      return response;
    },
  };
}

/** Lets a loop wait for a ring, for a time, or for the end. A ring while nobody waits is kept. */
function createBell(signal: AbortSignal) {
  let rung = false;
  let wake: (() => void) | undefined;
  signal.addEventListener("abort", () => wake?.());
  return {
    get closed(): boolean {
      return signal.aborted;
    },
    ring(): void {
      rung = true;
      wake?.();
    },
    /** Whether it was rung; false after the time or at the end. */
    async wait(ms: number): Promise<boolean> {
      if (!rung && !signal.aborted) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, ms);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        wake = undefined;
      }
      const was = rung;
      rung = false;
      return was;
    },
  };
}
