/** A place in WGS 84; the altitude is above mean sea level. */
export interface Place {
  lon: number;
  lat: number;
  altitudeM: number;
}

/** A vector in metres, or metres a second, east, north and up of the dock. */
export interface Vector {
  x: number;
  y: number;
  z: number;
}

const EARTH_RADIUS_M = 6_371_008.8;
const RADIANS = Math.PI / 180;

/** Degrees to radians. */
export const toRadians = (degrees: number): number => degrees * RADIANS;

/** Radians to degrees. */
export const toDegrees = (radians: number): number => radians / RADIANS;

/** Brings a number into a range. */
export function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}

/** Brings an angle in degrees into 0 (included) to 360 (excluded). */
export function compassDeg(degrees: number): number {
  const angle = ((degrees % 360) + 360) % 360;
  return angle >= 360 ? 0 : angle;
}

/** Brings an angle in degrees into -180 (included) to 180 (excluded). */
export function signedDeg(degrees: number): number {
  return compassDeg(degrees + 180) - 180;
}

/** Compass direction of a vector in degrees. */
export function bearingOf(x: number, y: number): number {
  return compassDeg(toDegrees(Math.atan2(x, y)));
}

/** The vector from `home` to `place` on a plane that touches the earth at `home`. */
export function toLocal(home: Place, place: Place): Vector {
  const metresADegree = EARTH_RADIUS_M * RADIANS;
  return {
    x: signedDeg(place.lon - home.lon) * metresADegree * lonScale(home),
    y: (place.lat - home.lat) * metresADegree,
    z: place.altitudeM - home.altitudeM,
  };
}

/** The place that lies at a vector from `home`; the inverse of `toLocal`. */
export function toPlace(home: Place, local: Vector): Place {
  const metresADegree = EARTH_RADIUS_M * RADIANS;
  return {
    lon: signedDeg(home.lon + local.x / (metresADegree * lonScale(home))),
    lat: clamp(home.lat + local.y / metresADegree, -90, 90),
    altitudeM: home.altitudeM + local.z,
  };
}

// Meridians meet at the poles; a floor keeps the division harmless there.
function lonScale(home: Place): number {
  return Math.max(1e-6, Math.cos(toRadians(home.lat)));
}

/** Great-circle distance in metres, altitude left out. */
export function distanceM(a: Omit<Place, "altitudeM">, b: Omit<Place, "altitudeM">): number {
  const sinLat = Math.sin(toRadians(b.lat - a.lat) / 2);
  const sinLon = Math.sin(toRadians(b.lon - a.lon) / 2);
  const chord = sinLat ** 2 + Math.cos(toRadians(a.lat)) * Math.cos(toRadians(b.lat)) * sinLon ** 2;
  return 2 * EARTH_RADIUS_M * Math.asin(Math.min(1, Math.sqrt(chord)));
}

/** Initial great-circle course from `a` to `b` in degrees. */
export function courseDeg(a: Omit<Place, "altitudeM">, b: Omit<Place, "altitudeM">): number {
  const dLon = toRadians(b.lon - a.lon);
  const [latA, latB] = [toRadians(a.lat), toRadians(b.lat)];
  return bearingOf(
    Math.sin(dLon) * Math.cos(latB),
    Math.cos(latA) * Math.sin(latB) - Math.sin(latA) * Math.cos(latB) * Math.cos(dLon),
  );
}

/** A number from 0 to 2³²-1 that depends on nothing but the text (FNV-1a). */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  }
  return hash >>> 0;
}

/** A generator of numbers from 0 (included) to 1 (excluded), the same for the same seed (mulberry32). */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
