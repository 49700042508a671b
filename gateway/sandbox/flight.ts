import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TelemetrySampleSchema } from "#gen/portolan/streams/v1/telemetry_pb.js";
import { createAirframe } from "./airframe.ts";
import { cameraOf, dockStateOf, droneStateOf, type FlightPhase } from "./flight-report.ts";
import type { Place } from "./geo.ts";
import {
  CLIMB_MPS,
  type FlightPlan,
  type Leg,
  ORBIT_RADIUS_M,
  ORBIT_SPEED_MPS,
  type Route,
  routeOf,
} from "./plan.ts";
import { createWeather, round } from "./weather.ts";

/** How a job ended. */
export type FlightOutcome = "completed" | "cancelled" | "failed";

/** A drone and its dock at one moment. */
export interface FlightState {
  phase: FlightPhase;
  /** Progress of the last plan in percent; never falls until the next start. */
  progress: number;
  /** How the last plan ended: cancelled once the drone turns back, else once it descends to the dock. */
  done: FlightOutcome | undefined;
  /** Why the plan failed, for programs. */
  reason: string;
  /** Whether the drone is off the ground. */
  airborne: boolean;
  /** What the drone and the dock report. */
  sample: MessageInitShape<typeof TelemetrySampleSchema> & { batteryPercent: number };
}

/** A simulated drone with its dock. It has no clock: time passes by `step` alone. */
export interface Flight {
  /** Lets time pass. */
  step(dtSeconds: number): void;
  /** Opens the dock and flies a plan; throws unless the drone is in its dock. */
  start(plan: FlightPlan): void;
  /** Ends the plan and comes back; does nothing when there is none. */
  cancel(): void;
  state(): FlightState;
  /** Charge in percent that a plan needs to end without coming back early. */
  batteryNeededPercent(plan: FlightPlan): number;
}

const MAX_STEP_S = 0.1;
const OPENING_S = 4;
const PREFLIGHT_S = 3;
const LANDED_S = 2;
const CLOSING_S = 4;
const COOLING_S = 15;
const LOW_BATTERY_PERCENT = 25;
const CHARGE_PERCENT_S = 0.5;

const drainPercentS = (speedMps: number): number => 0.05 + 0.001 * speedMps;

/** Puts a drone into its dock at `home`. The same seed, plans and steps give the same flight. */
export function createFlight(options: { home: Place; seed: number; batteryPercent?: number }): Flight {
  const { home, seed } = options;
  const weather = createWeather(seed);
  const body = createAirframe(seed);
  let phase: FlightPhase = "docked";
  let phaseS = COOLING_S;
  let battery = options.batteryPercent ?? 100;
  let route: Route = { altitudeM: 0, speedMps: 0, legs: [], seconds: 1 };
  let legIndex = 0;
  let legS = 0;
  let orbitTurnedRad = 0;
  let taskS = 0;
  let outcome: FlightOutcome = "completed";
  let done: FlightOutcome | undefined;
  let progress = 0;
  let landingDistanceM = 1;
  let leftDock = false;

  function enter(next: FlightPhase): void {
    phase = next;
    phaseS = 0;
  }

  function enterAfter(seconds: number, next: FlightPhase): void {
    if (phaseS >= seconds) {
      enter(next);
    }
  }

  function start(plan: FlightPlan): void {
    if (phase !== "docked") {
      throw new Error("the drone is not in its dock");
    }
    route = routeOf(home, plan);
    legIndex = 0;
    legS = 0;
    orbitTurnedRad = 0;
    taskS = 0;
    progress = 0;
    outcome = "completed";
    done = undefined;
    leftDock = false;
    enter("opening");
  }

  function cancel(): void {
    if (phase === "docked" || done !== undefined) {
      return;
    }
    outcome = "cancelled";
    if (phase === "opening") {
      done = outcome;
      enter("closing");
    } else if (phase === "return") {
      done = outcome;
    }
    // From preflight on the engines run: the drone turns back as soon as it is off the ground.
  }

  function turnBack(): void {
    landingDistanceM = Math.max(1, Math.hypot(body.position.x, body.position.y));
    if (outcome === "cancelled") {
      done = outcome;
    }
    enter("return");
  }

  function advanceLeg(): void {
    taskS += route.legs[legIndex]?.seconds ?? 0;
    legIndex++;
    legS = 0;
    orbitTurnedRad = 0;
    if (legIndex >= route.legs.length) {
      turnBack();
    }
  }

  function flyLeg(leg: Leg, dt: number): void {
    const air = weather.now();
    legS += dt;
    if (leg.kind === "fly") {
      const distance = body.flyTo(leg.to, leg.speedMps, leg.cornerMps, dt, air);
      if (distance < (leg.cornerMps > 0 ? 2 : 1)) {
        advanceLeg();
      }
    } else if (leg.kind === "hold") {
      body.flyTo(leg.at, 3, 0, dt, air);
      if (legS >= leg.seconds) {
        advanceLeg();
      }
    } else {
      const speed = Math.min(ORBIT_SPEED_MPS, legS);
      const turned = (speed / ORBIT_RADIUS_M) * dt;
      orbitTurnedRad += turned;
      body.circle(leg.centre, ORBIT_RADIUS_M, speed, turned, dt, air);
      if (orbitTurnedRad >= leg.circles * 2 * Math.PI) {
        advanceLeg();
      }
    }
  }

  /** Whether the plan is to be given up, because it was cancelled or the battery is low. */
  function mustTurnBack(): boolean {
    if (battery < LOW_BATTERY_PERCENT && outcome === "completed") {
      outcome = "failed";
    }
    return outcome !== "completed";
  }

  function climb(dt: number): void {
    body.climbTo(route.altitudeM, CLIMB_MPS, dt, weather.now());
    if (body.position.z > 2 && mustTurnBack()) {
      turnBack();
    } else if (body.position.z >= route.altitudeM - 0.5) {
      enter("task");
    }
  }

  function workOnTask(dt: number): void {
    const leg = route.legs[legIndex];
    if (leg === undefined || mustTurnBack()) {
      turnBack();
    } else {
      flyLeg(leg, dt);
    }
  }

  function comeBack(dt: number): void {
    const above = { x: 0, y: 0, z: body.position.z };
    if (body.flyTo(above, route.speedMps, 0, dt, weather.now()) < 0.6) {
      done ??= outcome;
      enter("descent");
    }
  }

  function stepOnce(dt: number): void {
    weather.step(dt);
    phaseS += dt;
    switch (phase) {
      case "opening":
        enterAfter(OPENING_S, "preflight");
        break;
      case "preflight":
        leftDock = true;
        enterAfter(PREFLIGHT_S, "takeoff");
        break;
      case "takeoff":
        climb(dt);
        break;
      case "task":
        workOnTask(dt);
        break;
      case "return":
        comeBack(dt);
        break;
      case "descent":
        if (body.descendOnto(CLIMB_MPS, dt, weather.now())) {
          body.rest();
          enter("landed");
        }
        break;
      case "landed":
        enterAfter(LANDED_S, "closing");
        break;
      case "closing":
        enterAfter(CLOSING_S, "docked");
        break;
      case "docked":
        if (phaseS >= COOLING_S) {
          battery = Math.min(100, battery + CHARGE_PERCENT_S * dt);
        }
        break;
    }
  }

  const airborne = (): boolean => ["takeoff", "task", "return", "descent"].includes(phase);

  function updateProgress(): void {
    let now = progress;
    if (phase === "takeoff") {
      now = (8 * body.position.z) / route.altitudeM;
    } else if (phase === "task") {
      const leg = route.legs[legIndex];
      const share = leg === undefined ? 0 : Math.min(leg.seconds, legS);
      const total = route.legs.reduce((sum, one) => sum + one.seconds, 0);
      now = 8 + (72 * (taskS + share)) / total;
    } else if (phase === "return" && outcome === "completed") {
      const left = Math.hypot(body.position.x, body.position.y) / landingDistanceM;
      now = 80 + 19 * Math.max(0, 1 - left);
    } else if (done === "completed") {
      now = 100;
    }
    progress = Math.min(100, Math.max(progress, now));
  }

  function step(dtSeconds: number): void {
    const count = Math.max(1, Math.ceil(dtSeconds / MAX_STEP_S));
    for (let i = 0; i < count; i++) {
      const dt = dtSeconds / count;
      stepOnce(dt);
      if (airborne()) {
        battery = Math.max(0, battery - drainPercentS(body.groundSpeed()) * dt);
      }
      updateProgress();
    }
  }

  function state(): FlightState {
    const leg = phase === "task" ? route.legs[legIndex] : undefined;
    const charging = battery < 100 && phaseS >= COOLING_S;
    return {
      phase,
      progress: round(progress, 1),
      done,
      reason: outcome === "failed" ? "LOW_BATTERY" : "",
      airborne: airborne(),
      sample: {
        droneState: droneStateOf(phase, leg, leftDock),
        dockState: dockStateOf(phase, phaseS < COOLING_S, charging),
        navigation: body.navigation(home, airborne() ? weather.now() : undefined),
        sensorPayload: { camera: { orientation: cameraOf(leg, legS, body.headingDeg(), body.position.z) } },
        weather: weather.now().report,
        batteryPercent: round(battery, 1),
      },
    };
  }

  function batteryNeededPercent(plan: FlightPlan): number {
    const planned = routeOf(home, plan);
    return Math.min(100, LOW_BATTERY_PERCENT + 3 + planned.seconds * drainPercentS(planned.speedMps) * 1.15);
  }

  return { step, start, cancel, state, batteryNeededPercent };
}
