import { create } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DockState, DroneState } from "#gen/portolan/common/v1/track_pb.js";
import { TelemetrySampleSchema } from "#gen/portolan/streams/v1/telemetry_pb.js";
import { createFlight, type Flight, type FlightState } from "./flight.ts";
import { distanceM, type Place, toPlace } from "./geo.ts";
import { type FlightPlan, MAX_SPEED_MPS } from "./plan.ts";

const LJUBLJANA: Place = { lon: 14.5058, lat: 46.0569, altitudeM: 298 };
const TABLE: Partial<Record<DroneState, DroneState[]>> = {
  [DroneState.DOCKED]: [DroneState.GPS_NORMAL],
  [DroneState.GPS_NORMAL]: [DroneState.WAYPOINT, DroneState.HOVER, DroneState.ORBIT],
  [DroneState.WAYPOINT]: [DroneState.HOVER, DroneState.RETURNING],
  [DroneState.HOVER]: [DroneState.WAYPOINT, DroneState.ORBIT, DroneState.RETURNING],
  [DroneState.ORBIT]: [DroneState.HOVER, DroneState.RETURNING],
  [DroneState.RETURNING]: [DroneState.LANDED],
  [DroneState.LANDED]: [DroneState.DOCKED],
};
const validator = createValidator();

interface Log {
  states: DroneState[];
  docks: DockState[];
  last: FlightState;
  seconds: number;
  maxSpeedMps: number;
}

/** Steps a flight until the drone is docked again, checking every sample on the way. */
function run(flight: Flight, options: { cancelAtS?: number; stepS?: number } = {}): Log {
  const stepS = options.stepS ?? 0.5;
  const log: Log = { states: [], docks: [], last: flight.state(), seconds: 0, maxSpeedMps: 0 };
  let progress = 0;
  for (;;) {
    if (options.cancelAtS !== undefined && log.seconds >= options.cancelAtS) {
      flight.cancel();
    }
    flight.step(stepS);
    log.seconds += stepS;
    const now = flight.state();
    const droneState = now.sample.droneState ?? DroneState.UNSPECIFIED;
    const before = log.last.sample.droneState ?? DroneState.UNSPECIFIED;
    if (droneState !== before) {
      expect(TABLE[before], `${DroneState[before]} to ${DroneState[droneState]}`).toContain(droneState);
      log.states.push(droneState);
    }
    const dockState = now.sample.dockState ?? DockState.UNSPECIFIED;
    if (log.docks.at(-1) !== dockState) {
      log.docks.push(dockState);
    }
    if (Math.round(log.seconds / stepS) % 5 === 0) {
      const checked = validator.validate(TelemetrySampleSchema, create(TelemetrySampleSchema, now.sample));
      expect(checked.kind, String(checked.error)).toBe("valid");
    }
    log.maxSpeedMps = Math.max(log.maxSpeedMps, now.sample.navigation?.velocity?.groundSpeed ?? 0);
    expect(now.progress).toBeGreaterThanOrEqual(progress);
    expect(now.sample.batteryPercent).toBeGreaterThan(0);
    progress = now.progress;
    log.last = now;
    if (now.phase === "docked") {
      return log;
    }
    expect(log.seconds, `stuck in ${now.phase}`).toBeLessThan(1500);
  }
}

const home = fc.record({
  lon: fc.double({ min: -180, max: 180, noNaN: true }),
  lat: fc.double({ min: -85, max: 85, noNaN: true }),
  altitudeM: fc.double({ min: -400, max: 5000, noNaN: true }),
});
const offset = fc.record({
  x: fc.double({ min: -2000, max: 2000, noNaN: true }),
  y: fc.double({ min: -2000, max: 2000, noNaN: true }),
  z: fc.double({ min: -50, max: 300, noNaN: true }),
});
const kind = fc.constantFrom("mission" as const, "hover" as const, "orbit" as const);

describe("flight", () => {
  it("ends any plan inside the drone table and the limits of the contract", () => {
    fc.assert(
      fc.property(
        home,
        offset,
        kind,
        fc.string(),
        fc.integer(),
        fc.option(fc.double({ min: 0, max: 150, noNaN: true }), { nil: undefined }),
        (at, vector, what, missionId, seed, cancelAtS) => {
          const plan: FlightPlan =
            what === "mission" ? { kind: what, missionId } : { kind: what, target: toPlace(at, vector) };
          const flight = createFlight({ home: at, seed });
          flight.start(plan);
          const log = run(flight, { cancelAtS });
          expect(["completed", "cancelled"]).toContain(log.last.done);
          expect(log.last.progress === 100).toBe(log.last.done === "completed");
          expect(log.maxSpeedMps).toBeLessThanOrEqual(MAX_SPEED_MPS + 0.01);
          const coordinates = log.last.sample.navigation?.position?.coordinates ?? [];
          expect(coordinates[1]).toBeCloseTo(at.lat, 5);
        },
      ),
      { numRuns: 40 },
    );
  });

  it("flies a mission in 45 to 90 seconds, the same for the same id", () => {
    for (const missionId of ["inspect-roof", "7f0c2f1e-0e2d-4d53-8f5e-0b1ad0b8d1c2", "a", ""]) {
      const [first, second] = [1, 1].map((seed) => {
        const flight = createFlight({ home: LJUBLJANA, seed });
        flight.start({ kind: "mission", missionId });
        return run(flight);
      });
      expect(first?.states).toEqual([
        DroneState.GPS_NORMAL,
        DroneState.WAYPOINT,
        DroneState.RETURNING,
        DroneState.LANDED,
        DroneState.DOCKED,
      ]);
      expect(first?.seconds).toBeGreaterThan(45);
      expect(first?.seconds).toBeLessThan(100);
      expect(second?.last).toEqual(first?.last);
    }
  });

  it("circles a place at 30 m, looking at it", () => {
    const target = toPlace(LJUBLJANA, { x: 100, y: 60, z: 40 });
    const flight = createFlight({ home: LJUBLJANA, seed: 3 });
    flight.start({ kind: "orbit", target });
    const distances: number[] = [];
    for (let s = 0; s < 120; s++) {
      flight.step(1);
      const { droneState, navigation } = flight.state().sample;
      if (droneState === DroneState.ORBIT) {
        const [lon = 0, lat = 0] = navigation?.position?.coordinates ?? [];
        distances.push(distanceM({ lon, lat }, target));
      }
    }
    expect(distances.length).toBeGreaterThan(25);
    expect(Math.min(...distances)).toBeGreaterThan(27);
    expect(Math.max(...distances)).toBeLessThan(33);
  });

  it("opens, closes, cools and charges the dock", () => {
    const flight = createFlight({ home: LJUBLJANA, seed: 9 });
    flight.start({ kind: "hover", target: toPlace(LJUBLJANA, { x: 30, y: 0, z: 30 }) });
    const { docks } = run(flight);
    const after: (DockState | undefined)[] = [];
    for (let s = 0; s < 60; s++) {
      flight.step(1);
      const { dockState } = flight.state().sample;
      if (after.at(-1) !== dockState) {
        after.push(dockState);
      }
    }
    expect(docks).toEqual([
      DockState.OPENING,
      DockState.OPEN,
      DockState.TASK_INPROGRESS,
      DockState.OPEN,
      DockState.CLOSING,
      DockState.COOLING,
    ]);
    expect(after).toEqual([DockState.COOLING, DockState.CHARGING, DockState.CLOSED]);
    expect(flight.state().sample.batteryPercent).toBe(100);
  });

  it("comes back and lands when cancelled in the air", () => {
    const flight = createFlight({ home: LJUBLJANA, seed: 5 });
    flight.start({ kind: "hover", target: toPlace(LJUBLJANA, { x: 300, y: 100, z: 40 }) });
    flight.step(30);
    flight.cancel();
    flight.step(0.5);
    expect(flight.state()).toMatchObject({ done: "cancelled", airborne: true });
    const log = run(flight);
    expect(log.states).toEqual([DroneState.LANDED, DroneState.DOCKED]);
    expect(log.last.progress).toBeLessThan(100);
  });

  it("stays in the dock when cancelled while the dock opens", () => {
    const flight = createFlight({ home: LJUBLJANA, seed: 5 });
    flight.start({ kind: "mission", missionId: "m" });
    flight.step(1);
    flight.cancel();
    expect(flight.state().done).toBe("cancelled");
    expect(run(flight).states).toEqual([]);
  });

  it("returns early and fails when the battery is low", () => {
    const flight = createFlight({ home: LJUBLJANA, seed: 7, batteryPercent: 26 });
    const plan: FlightPlan = { kind: "hover", target: toPlace(LJUBLJANA, { x: 900, y: 0, z: 50 }) };
    expect(flight.batteryNeededPercent(plan)).toBeGreaterThan(26);
    flight.start(plan);
    const log = run(flight);
    expect(log.last).toMatchObject({ done: "failed", reason: "LOW_BATTERY" });
    expect(log.states).not.toContain(DroneState.HOVER);
  });

  it("refuses to start in the air", () => {
    const flight = createFlight({ home: LJUBLJANA, seed: 7 });
    flight.start({ kind: "mission", missionId: "m" });
    expect(() => flight.start({ kind: "mission", missionId: "n" })).toThrow("not in its dock");
  });
});
