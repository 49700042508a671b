import { type Dispatch, DispatchCommand } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import { ActionOnArrival, type Job } from "#gen/portolan/jobs/v1/job_pb.js";
import type { Place } from "./geo.ts";
import { type FlightPlan, MAX_RANGE_M, rangeM } from "./plan.ts";

/** A job that a dock has taken on. */
export interface Order {
  jobId: string;
  plan: FlightPlan;
  /** Whether the server knows that it was taken on; it is not flown before. */
  acknowledged: boolean;
}

/** What a dock is busy with. */
export interface Desk {
  /** The job being flown; undefined once it has ended, even if the drone is still on its way. */
  flying: Order | undefined;
  /** The job that follows as soon as the drone is ready. */
  waiting: Order | undefined;
  /** Whether this dock has ended the job before. */
  hasEnded(jobId: string): boolean;
}

/** What to do about an order. */
export type Decision =
  | { kind: "take"; order: Order }
  | { kind: "reject"; message: string }
  | { kind: "cancel"; jobId: string }
  | { kind: "repeat-outcome"; jobId: string }
  | { kind: "ignore" };

/** The flight that a job asks for: its mission, else its place, else a hover above the dock. */
export function planOf(home: Place, job: Job): FlightPlan {
  const action = job.actionOnArrival;
  if (
    action === ActionOnArrival.MISSION ||
    (action === ActionOnArrival.UNSPECIFIED && job.missionId !== "")
  ) {
    return { kind: "mission", missionId: job.missionId };
  }
  const [lon = home.lon, lat = home.lat, altitudeM = home.altitudeM + 30] =
    job.desiredLocation?.coordinates ?? [];
  return { kind: action === ActionOnArrival.ORBIT ? "orbit" : "hover", target: { lon, lat, altitudeM } };
}

/** Decides about an order that was not seen before; changes nothing. */
export function decide(home: Place, desk: Desk, dispatch: Dispatch): Decision {
  const job = dispatch.job;
  if (job === undefined) {
    return { kind: "reject", message: "The order names no job" };
  }
  const { jobId } = job;
  const present = [desk.flying?.jobId, desk.waiting?.jobId];
  if (dispatch.command === DispatchCommand.CANCEL) {
    return desk.hasEnded(jobId) ? { kind: "ignore" } : { kind: "cancel", jobId };
  }
  if (dispatch.command !== DispatchCommand.START) {
    return { kind: "reject", message: "The command is not known" };
  }
  if (present.includes(jobId)) {
    return { kind: "ignore" };
  }
  if (desk.hasEnded(jobId)) {
    return { kind: "repeat-outcome", jobId };
  }
  const busyWith = present.find((id) => id !== undefined);
  if (busyWith !== undefined) {
    return { kind: "reject", message: `The drone is busy with ${busyWith}` };
  }
  const plan = planOf(home, job);
  const range = rangeM(home, plan);
  if (range > MAX_RANGE_M) {
    const message = `The place is ${(range / 1000).toFixed(1)} km from the dock; the drone flies up to ${MAX_RANGE_M / 1000} km`;
    return { kind: "reject", message };
  }
  return { kind: "take", order: { jobId, plan, acknowledged: false } };
}
