import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { DispatchCommand } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import { type Job, JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { fail } from "#kernel/errors.ts";
import type { Tx } from "#kernel/events.ts";
import { newId } from "#kernel/ids.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { canMove, isFinal } from "./job-state.ts";
import { jobsOf } from "./store.ts";

/** The last part of the event type for each state that a job can move to. */
const verbs: Partial<Record<JobState, string>> = {
  [JobState.QUEUED]: "queued",
  [JobState.INPROGRESS]: "started",
  [JobState.COMPLETED]: "completed",
  [JobState.FAILED]: "failed",
  [JobState.CANCELLED]: "cancelled",
};

/** The event type of an order to a device group; its subject is the group. */
export const dispatchEvent = "dispatch.created";

/** Changes of jobs inside a transaction: row, history, dispatches and event go together. */
export function createChanges(kernel: Kernel) {
  const { nowMs, nextSequence } = kernel;

  const emit = (tx: Tx, tenantId: string, verb: string, job: Job, sequence?: bigint) =>
    tx.emit({ tenantId, type: `job.${verb}`, subject: job.jobId, timeMs: nowMs(), sequence }, JobSchema, job);

  /** Writes a job read in this transaction, and states the fact. */
  async function save(tx: Tx, tenantId: string, job: Job, verb = "updated"): Promise<void> {
    job.updatedAt = timestampFromMs(nowMs());
    const sequence = nextSequence();
    if (!(await jobsOf(tenantId, tx.queries).update(job, sequence))) throw fail("CONCURRENT_UPDATE");
    await emit(tx, tenantId, verb, job, sequence);
  }

  return {
    emit,
    save,

    /** Moves a job to a state; what that implies for its times and dispatches happens with it. */
    async move(
      tx: Tx,
      tenantId: string,
      job: Job,
      to: JobState,
      error?: { reason: string; message: string },
    ) {
      if (!canMove(job.status, to)) {
        throw fail("ILLEGAL_JOB_STATE", { metadata: { state: JobState[job.status], wanted: JobState[to] } });
      }
      const now = timestampFromMs(nowMs());
      job.status = to;
      if (to === JobState.INPROGRESS) job.startedAt = now;
      if (to === JobState.COMPLETED) job.progress = 100;
      if (to === JobState.CANCELLED) job.cancelledAt = now;
      if (error) {
        job.errorReason = error.reason;
        job.errorMessage = error.message;
      }
      if (isFinal(to)) {
        job.endedAt = now;
        await this.closeDispatches(tx, tenantId, job.jobId);
      }
      await save(tx, tenantId, job, verbs[to]);
    },

    /** Gives an order to the job's device group. */
    async order(tx: Tx, tenantId: string, job: Job, command: DispatchCommand): Promise<void> {
      const dispatch = {
        dispatchId: newId("dispatch", nowMs()),
        jobId: job.jobId,
        command,
        createdAt: nowMs(),
      };
      await jobsOf(tenantId, tx.queries).insertDispatch(job.deviceGroupId, dispatch);
      await tx.emit(
        { tenantId, type: dispatchEvent, subject: job.deviceGroupId, timeMs: nowMs() },
        JobSchema,
        job,
      );
    },

    /** Withdraws a job's orders; tells whether the device had been given a START. */
    async closeDispatches(tx: Tx, tenantId: string, jobId: string): Promise<boolean> {
      const store = jobsOf(tenantId, tx.queries);
      const dispatches = await store.dispatchesOfJob(jobId);
      for (const { dispatchId, closedAt } of dispatches) {
        if (closedAt === null) await store.closeDispatch(dispatchId, nowMs());
      }
      return dispatches.some(({ command }) => command === DispatchCommand.START);
    },
  };
}
