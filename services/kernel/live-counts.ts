/**
 * What live tracking has counted since the process started. Plain numbers, so that counting costs
 * nothing; whoever shows them reads them.
 */
export interface LiveCounts {
  /** Waiters that were woken in their slot of the second. */
  ticks: number;
  /** Of these, the ones that were woken more than `lateMs` after their slot. */
  lateTicks: number;
  /** Frames that a follower missed because it was still taking the one before. */
  droppedFrames: number;
}

/** How long after its slot a tick counts as late, in milliseconds. */
export const lateMs = 100;

/** Counts that begin at zero. */
export const createLiveCounts = (): LiveCounts => ({ ticks: 0, lateTicks: 0, droppedFrames: 0 });
