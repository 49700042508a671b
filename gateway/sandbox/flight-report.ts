import { DockState, DroneState } from "#gen/portolan/common/v1/track_pb.js";
import { compassDeg, toDegrees } from "./geo.ts";
import { type Leg, ORBIT_RADIUS_M } from "./plan.ts";
import { round } from "./weather.ts";

/** Where a drone is in its job. */
export type FlightPhase =
  | "docked"
  | "opening"
  | "preflight"
  | "takeoff"
  | "task"
  | "return"
  | "descent"
  | "landed"
  | "closing";

/** The drone state of a phase; the leg is that of the task, and unset outside it. */
export function droneStateOf(phase: FlightPhase, leg: Leg | undefined, leftDock: boolean): DroneState {
  switch (phase) {
    case "docked":
    case "opening":
      return DroneState.DOCKED;
    case "preflight":
      return DroneState.GPS_NORMAL;
    case "takeoff":
      return DroneState.WAYPOINT;
    case "task":
      return LEG_STATES[leg?.kind ?? "fly"];
    case "return":
    case "descent":
      return DroneState.RETURNING;
    case "landed":
      return DroneState.LANDED;
    case "closing":
      // An order cancelled before the engines ran never took the drone out of its dock.
      return leftDock ? DroneState.LANDED : DroneState.DOCKED;
  }
}

const LEG_STATES = { fly: DroneState.WAYPOINT, hold: DroneState.HOVER, orbit: DroneState.ORBIT };

/** The dock state of a phase. */
export function dockStateOf(phase: FlightPhase, cooling: boolean, charging: boolean): DockState {
  switch (phase) {
    case "opening":
      return DockState.OPENING;
    case "closing":
      return DockState.CLOSING;
    case "task":
    case "return":
      return DockState.TASK_INPROGRESS;
    case "docked":
      return cooling ? DockState.COOLING : charging ? DockState.CHARGING : DockState.CLOSED;
    default:
      return DockState.OPEN;
  }
}

/** Where the camera looks: down on a survey, at the centre of an orbit, slowly around while holding. */
export function cameraOf(leg: Leg | undefined, legSeconds: number, headingDeg: number, heightM: number) {
  const yaw = round(compassDeg(headingDeg + (leg?.kind === "hold" ? 12 * legSeconds : 0)), 1);
  let pitch = 0;
  if (leg?.kind === "fly") {
    pitch = leg.survey ? -90 : -15;
  } else if (leg?.kind === "orbit") {
    pitch = round(-toDegrees(Math.atan2(heightM, ORBIT_RADIUS_M)), 1);
  } else if (leg?.kind === "hold") {
    pitch = -30;
  }
  return { pitch, yaw, roll: 0 };
}
