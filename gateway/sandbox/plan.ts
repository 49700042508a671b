import { clamp, createRandom, hashOf, type Place, toLocal, toRadians, type Vector } from "./geo.ts";

/** What a drone is asked to do. */
export type FlightPlan =
  | { kind: "mission"; missionId: string }
  | { kind: "hover"; target: Place }
  | { kind: "orbit"; target: Place };

/** One part of a route, after take-off and before the return. */
export type Leg =
  | { kind: "fly"; to: Vector; speedMps: number; cornerMps: number; seconds: number; survey: boolean }
  | { kind: "hold"; at: Vector; seconds: number }
  | { kind: "orbit"; centre: Vector; circles: number; seconds: number };

/** A route: how high to climb, how fast to come back, and what to do between. */
export interface Route {
  altitudeM: number;
  speedMps: number;
  legs: Leg[];
  /** Estimated time in the air. */
  seconds: number;
}

/** Farthest place a sandbox drone flies to. */
export const MAX_RANGE_M = 5000;
/** Radius of an orbit. */
export const ORBIT_RADIUS_M = 30;
/** Speed on an orbit. */
export const ORBIT_SPEED_MPS = 7;
/** Fastest a sandbox drone flies. */
export const MAX_SPEED_MPS = 20;
/** Climb and descent. */
export const CLIMB_MPS = 3;

const CRUISE_MPS = 12;
const CRUISE_HEIGHT_M = 30;
const HOVER_S = 15;
const NEAR_M = 400;

/** Horizontal distance of a plan's target from the dock, in metres. */
export function rangeM(home: Place, plan: FlightPlan): number {
  if (plan.kind === "mission") {
    return 0;
  }
  const target = toLocal(home, plan.target);
  return Math.hypot(target.x, target.y);
}

/**
 * Lays out the route of a plan. A target's height is kept between 15 and 120 m above the dock. The
 * survey pattern of a mission depends only on its id.
 */
export function routeOf(home: Place, plan: FlightPlan): Route {
  if (plan.kind === "mission") {
    return withTime(surveyLegs(plan.missionId), CRUISE_HEIGHT_M, CRUISE_MPS);
  }
  const local = toLocal(home, plan.target);
  const range = Math.hypot(local.x, local.y);
  const height = clamp(local.z, 15, 120);
  const speedMps =
    range > NEAR_M ? clamp(CRUISE_MPS + (range - NEAR_M) / 50, CRUISE_MPS, MAX_SPEED_MPS) : CRUISE_MPS;
  const centre = { x: local.x, y: local.y, z: height };
  if (plan.kind === "hover") {
    const hold: Leg = { kind: "hold", at: centre, seconds: HOVER_S };
    return withTime([fly({ x: 0, y: 0, z: height }, centre, speedMps), hold], height, speedMps);
  }
  // The circle is joined at its point nearest to the dock, and left there.
  const joinScale = range > 1 ? (range - ORBIT_RADIUS_M) / range : 0;
  const join =
    range > 1
      ? { x: local.x * joinScale, y: local.y * joinScale, z: height }
      : { x: local.x, y: local.y - ORBIT_RADIUS_M, z: height };
  const circles = range > 150 ? 1 : 2;
  const orbitSeconds = (circles * 2 * Math.PI * ORBIT_RADIUS_M) / ORBIT_SPEED_MPS + 5;
  return withTime(
    [
      fly({ x: 0, y: 0, z: height }, join, speedMps),
      { kind: "hold", at: join, seconds: 3 },
      { kind: "orbit", centre, circles, seconds: orbitSeconds },
    ],
    height,
    speedMps,
  );
}

function fly(from: Vector, to: Vector, speedMps: number, cornerMps = 0, survey = false): Leg {
  const seconds = Math.hypot(to.x - from.x, to.y - from.y) / speedMps + 4;
  return { kind: "fly", to, speedMps, cornerMps, seconds, survey };
}

/** Parallel lines, as in a photo survey, beside the dock. */
function surveyLegs(missionId: string): Leg[] {
  const random = createRandom(hashOf(missionId));
  const bearing = toRadians(360 * random());
  const [alongX, alongY] = [Math.sin(bearing), Math.cos(bearing)];
  const lines = 3 + Math.floor(2 * random());
  const lengthM = 45 + 20 * random();
  const spacingM = 10 + 4 * random();
  const offsetM = 20 + 20 * random();
  const legs: Leg[] = [];
  let from: Vector = { x: 0, y: 0, z: CRUISE_HEIGHT_M };
  for (let line = 0; line < lines; line++) {
    for (const end of line % 2 === 0 ? [-0.5, 0.5] : [0.5, -0.5]) {
      const along = end * lengthM;
      const across = offsetM + line * spacingM;
      const to = {
        x: along * alongX + across * alongY,
        y: along * alongY - across * alongX,
        z: CRUISE_HEIGHT_M,
      };
      legs.push(fly(from, to, CRUISE_MPS, 3, legs.length > 0));
      from = to;
    }
  }
  return legs;
}

function withTime(legs: Leg[], altitudeM: number, speedMps: number): Route {
  let at: Vector = { x: 0, y: 0, z: altitudeM };
  let seconds = (2 * altitudeM) / CLIMB_MPS + 15;
  for (const leg of legs) {
    seconds += leg.seconds;
    at = leg.kind === "fly" ? leg.to : at;
  }
  seconds += Math.hypot(at.x, at.y) / speedMps;
  return { altitudeM, speedMps, legs, seconds };
}
