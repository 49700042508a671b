import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Job } from "#gen/portolan/jobs/v1/job_pb.js";
import type { Kernel } from "#kernel/kernel.ts";
import { timeOfSequence } from "#kernel/sequence.ts";
import { createEnd, type OpenSubject, type TrackState } from "#kernel/topics.ts";
import { isFinal } from "./job-state.ts";
import { jobsOf } from "./store.ts";

/** Opens jobs for topics: the job's own state over that of its device group. */
export function createLiveJobs(kernel: Kernel): OpenSubject {
  return async (tenantId, jobId) => {
    const store = jobsOf(tenantId, kernel.database.read);
    const end = createEnd();
    let job: Job | undefined;
    let deleted = false;
    let sequence = 0n;
    /** The group's state when the job ended: what it does afterwards is not the job's. */
    let lastGroupState: TrackState = {};
    let groupState = (): TrackState => ({});

    // Heard before the first read, so that no change between the two is missed.
    const unlisten = kernel.bus.listen("job.", (event) => {
      if (event.tenantId !== tenantId || event.subject !== jobId) return;
      take(event.data as Job, event.sequence ?? kernel.nextSequence(), event.type === "job.deleted");
    });
    function take(next: Job, at: bigint, gone: boolean): void {
      job = next;
      if (at > sequence) sequence = at;
      deleted ||= gone;
      if (end.over || !(gone || isFinal(next.status))) return;
      lastGroupState = groupState();
      end.end();
    }

    const read = await store.get(jobId);
    const readSequence = await store.lastSequence(jobId);
    if (!job && read) take(read, readSequence, false);
    if (!job || deleted) {
      unlisten();
      return undefined;
    }
    const group = await kernel.topics.join("resource", tenantId, job.deviceGroupId);

    groupState = () => (end.over ? lastGroupState : (group?.subject.state() ?? {}));
    return {
      sequence() {
        const groupSequence = end.over ? 0n : (group?.subject.sequence() ?? 0n);
        return groupSequence > sequence ? groupSequence : sequence;
      },
      state: () => ({
        ...groupState(),
        ...(end.over && { timestamp: timestampFromMs(timeOfSequence(sequence)) }),
        ...jobFields(job as Job, deleted),
      }),
      ended: () => end.over,
      onEnd: (wake) => end.onEnd(wake),
      close() {
        unlisten();
        group?.leave();
      },
      async *history(after) {
        const all = await store.changes(jobId, 0n);
        const changes = all.filter((change) => change.sequence > after);
        let current = all.findLast((change) => change.sequence <= after)?.job ?? (job as Job);
        /** The changes up to a sample, or all that are left. */
        function* changesBefore(sequence?: bigint) {
          while (changes[0] && (sequence === undefined || changes[0].sequence < sequence)) {
            const [change] = changes.splice(0, 1) as [(typeof changes)[number]];
            current = change.job;
            // The last change of an ended job is the final message, which follows.
            if (isFinal(current.status)) return;
            const state = { deviceGroupId: current.deviceGroupId, ...jobFields(current, false) };
            yield { sequence: change.sequence, state };
          }
        }
        for await (const recorded of group?.subject.history?.(after) ?? []) {
          yield* changesBefore(recorded.sequence);
          if (isFinal(current.status)) return;
          if (recorded.state.jobId !== jobId) continue;
          yield { sequence: recorded.sequence, state: { ...recorded.state, ...jobFields(current, false) } };
        }
        yield* changesBefore();
      },
    };
  };
}

const jobFields = (job: Job, deleted: boolean): TrackState => ({
  deviceGroupId: job.deviceGroupId,
  jobId: job.jobId,
  jobState: job.status,
  progress: job.progress,
  message: deleted ? "The job was deleted" : job.errorMessage,
});
