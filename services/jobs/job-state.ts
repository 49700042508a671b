import { JobState } from "#gen/portolan/common/v1/track_pb.js";

/**
 * Where a job can go from each state. PENDING waits for its time, QUEUED for its device group,
 * INPROGRESS flies; the rest is final.
 */
export const transitions: Readonly<Record<JobState, readonly JobState[]>> = {
  [JobState.UNSPECIFIED]: [],
  [JobState.PENDING]: [JobState.QUEUED, JobState.INPROGRESS, JobState.FAILED, JobState.CANCELLED],
  [JobState.QUEUED]: [JobState.INPROGRESS, JobState.FAILED, JobState.CANCELLED],
  [JobState.INPROGRESS]: [JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED],
  [JobState.COMPLETED]: [],
  [JobState.FAILED]: [],
  [JobState.CANCELLED]: [],
};

/** States of jobs that have not ended. */
export const openStates: readonly JobState[] = [JobState.PENDING, JobState.QUEUED, JobState.INPROGRESS];

/** Whether a job in this state has ended. */
export const isFinal = (state: JobState): boolean => transitions[state].length === 0;

/** Whether a job may go from one state to another. */
export const canMove = (from: JobState, to: JobState): boolean => transitions[from].includes(to);
