import type { MessageInitShape } from "@bufbuild/protobuf";
import type { NavigationSchema } from "#gen/portolan/common/v1/geo_pb.js";
import {
  bearingOf,
  clamp,
  compassDeg,
  createRandom,
  type Place,
  signedDeg,
  toDegrees,
  toPlace,
  toRadians,
  type Vector,
} from "./geo.ts";
import { MAX_SPEED_MPS } from "./plan.ts";
import { round, type Weather } from "./weather.ts";

/** A multicopter as a point with limits on speed and acceleration, pushed about by gusts. */
export interface Airframe {
  /** Metres east, north and up of the dock. */
  readonly position: Readonly<Vector>;
  /** Flies toward a point so as to pass it at `cornerMps`; returns the distance left, height included. */
  flyTo(to: Vector, speedMps: number, cornerMps: number, dt: number, weather: Weather): number;
  /** Circles a point clockwise, looking at it, having turned by so much. */
  circle(
    centre: Vector,
    radiusM: number,
    speedMps: number,
    turnedRad: number,
    dt: number,
    weather: Weather,
  ): void;
  /** Climbs above the dock. */
  climbTo(height: number, speedMps: number, dt: number, weather: Weather): void;
  /** Descends onto the dock; true on touchdown. */
  descendOnto(speedMps: number, dt: number, weather: Weather): boolean;
  /** Stands still in the dock. */
  rest(): void;
  groundSpeed(): number;
  headingDeg(): number;
  /** What it reports; without weather it stands on the ground. */
  navigation(home: Place, weather: Weather | undefined): MessageInitShape<typeof NavigationSchema>;
}

const GRAVITY = 9.81;
const ACCELERATION = 2.5;
const BRAKING = 1.8;
const VERTICAL_ACCELERATION = 1.5;
const TURN_DEG_S = 60;
/** Share of a gust that the autopilot does not hold back. */
const DRIFT = 0.06;
/** Tilt, as acceleration, that holds against one metre a second of wind. */
const DRAG = 0.11;

/** Puts an airframe at rest into the dock. */
export function createAirframe(seed: number): Airframe {
  const position: Vector = { x: 0, y: 0, z: 0 };
  const velocity: Vector = { x: 0, y: 0, z: 0 };
  const acceleration = { x: 0, y: 0 };
  const drift = { x: 0, y: 0 };
  let heading = Math.floor(360 * createRandom(seed)());

  function accelerate(wantX: number, wantY: number, wantZ: number, dt: number, weather: Weather): void {
    const [dx, dy] = [wantX - velocity.x, wantY - velocity.y];
    const scale = Math.min(1, (ACCELERATION * dt) / Math.max(1e-9, Math.hypot(dx, dy)));
    acceleration.x = (dx * scale) / dt;
    acceleration.y = (dy * scale) / dt;
    velocity.x += dx * scale;
    velocity.y += dy * scale;
    velocity.z += clamp(wantZ - velocity.z, -VERTICAL_ACCELERATION * dt, VERTICAL_ACCELERATION * dt);
    drift.x = DRIFT * weather.gustX;
    drift.y = DRIFT * weather.gustY;
    const speed = Math.hypot(velocity.x + drift.x, velocity.y + drift.y);
    if (speed > MAX_SPEED_MPS) {
      drift.x = drift.y = 0;
      const slow = Math.min(1, MAX_SPEED_MPS / Math.hypot(velocity.x, velocity.y));
      velocity.x *= slow;
      velocity.y *= slow;
    }
    position.x += (velocity.x + drift.x) * dt;
    position.y += (velocity.y + drift.y) * dt;
    position.z = Math.max(0, position.z + velocity.z * dt);
  }

  function face(bearing: number, dt: number): void {
    heading = compassDeg(heading + clamp(signedDeg(bearing - heading), -TURN_DEG_S * dt, TURN_DEG_S * dt));
  }

  // The fastest speed from which the drone still comes down to `endMps` within the distance.
  const braked = (distance: number, endMps: number): number =>
    Math.sqrt(endMps ** 2 + 2 * BRAKING * distance);

  const vertical = (toZ: number, speedMps: number): number =>
    Math.sign(toZ - position.z) * Math.min(speedMps, 0.8 * Math.abs(toZ - position.z));

  function flyTo(to: Vector, speedMps: number, cornerMps: number, dt: number, weather: Weather): number {
    const [dx, dy] = [to.x - position.x, to.y - position.y];
    const distance = Math.hypot(dx, dy);
    // Close to a stop, the approach is proportional, which does not overshoot.
    const near = cornerMps > 0 ? Number.POSITIVE_INFINITY : 0.9 * distance;
    const speed = Math.min(speedMps, braked(distance, cornerMps), near);
    const unit = distance > 1e-9 ? speed / distance : 0;
    accelerate(dx * unit, dy * unit, vertical(to.z, 2), dt, weather);
    if (distance > 3) {
      face(bearingOf(dx, dy), dt);
    }
    return Math.hypot(distance, to.z - position.z);
  }

  function circle(
    centre: Vector,
    radiusM: number,
    speedMps: number,
    turnedRad: number,
    dt: number,
    weather: Weather,
  ): void {
    const bearing = Math.atan2(position.x - centre.x, position.y - centre.y) + turnedRad;
    const outward = Math.hypot(position.x - centre.x, position.y - centre.y) - radiusM;
    const pull = clamp(-outward, -2, 2);
    accelerate(
      speedMps * Math.cos(bearing) + pull * Math.sin(bearing),
      -speedMps * Math.sin(bearing) + pull * Math.cos(bearing),
      vertical(centre.z, 1),
      dt,
      weather,
    );
    face(bearingOf(centre.x - position.x, centre.y - position.y), dt);
  }

  function climbTo(height: number, speedMps: number, dt: number, weather: Weather): void {
    const wantZ = Math.min(speedMps, 0.3 + 0.8 * Math.max(0, height - position.z));
    accelerate(-0.5 * position.x, -0.5 * position.y, wantZ, dt, weather);
  }

  function descendOnto(speedMps: number, dt: number, weather: Weather): boolean {
    const wantZ = -Math.min(speedMps, 0.4 + 0.5 * position.z);
    accelerate(-0.9 * position.x, -0.9 * position.y, wantZ, dt, weather);
    return position.z < 0.05;
  }

  function rest(): void {
    Object.assign(position, { x: 0, y: 0, z: 0 });
    Object.assign(velocity, { x: 0, y: 0, z: 0 });
    Object.assign(acceleration, { x: 0, y: 0 });
    Object.assign(drift, { x: 0, y: 0 });
  }

  const groundSpeed = (): number => Math.hypot(velocity.x + drift.x, velocity.y + drift.y);

  function navigation(home: Place, weather: Weather | undefined): MessageInitShape<typeof NavigationSchema> {
    const place = toPlace(home, position);
    let [pitch, roll] = [0, 0];
    if (weather !== undefined) {
      const pushX = acceleration.x + DRAG * (velocity.x - weather.windX);
      const pushY = acceleration.y + DRAG * (velocity.y - weather.windY);
      const [sin, cos] = [Math.sin(toRadians(heading)), Math.cos(toRadians(heading))];
      pitch = -toDegrees(Math.atan2(pushX * sin + pushY * cos, GRAVITY));
      roll = toDegrees(Math.atan2(pushX * cos - pushY * sin, GRAVITY));
    }
    return {
      position: {
        type: "Point",
        coordinates: [round(place.lon, 7), round(place.lat, 7), round(place.altitudeM, 2)],
      },
      orientation: { heading: round(heading, 1) % 360, pitch: round(pitch, 1), roll: round(roll, 1) },
      velocity: { groundSpeed: round(groundSpeed(), 2), verticalSpeed: round(velocity.z, 2) },
    };
  }

  return {
    position,
    flyTo,
    circle,
    climbTo,
    descendOnto,
    rest,
    groundSpeed,
    headingDeg: () => heading,
    navigation,
  };
}
