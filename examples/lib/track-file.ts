import { courseDeg, distanceM } from "#gateway/sandbox/geo.ts";

/** One fix of a recorded track. */
export interface TrackFix {
  lon: number;
  lat: number;
  /** Above mean sea level; undefined when the recorder told none. */
  altitudeM: number | undefined;
  /** Seconds since the first fix; grows from fix to fix. */
  offsetS: number;
}

/** How a vehicle moved when it reached a fix. */
export interface Motion {
  headingDeg: number;
  groundSpeedMps: number;
  verticalSpeedMps: number;
}

interface RawFix {
  lon: number;
  lat: number;
  altitudeM: number | undefined;
  timeMs: number | undefined;
}

const DEFAULT_SPACING_S = 1;
/** Below this distance the position only trembles and tells no heading. */
const STANDING_M = 0.5;

/** Reads a track from the text of a GPX or GeoJSON file; throws when there is none in it. */
export function parseTrack(text: string): TrackFix[] {
  const content = text.replace(/^\uFEFF/, "").trimStart();
  const raw = content.startsWith("<") ? readGpx(content) : readGeoJson(content);
  const fixes = onTimeline(raw.filter(isOnEarth));
  if (fixes.length === 0) {
    throw new Error("the file holds no track points");
  }
  return fixes;
}

/** Heading and speeds at a fix, from the one before (the first: to the one after). */
export function motionAt(fixes: readonly TrackFix[], index: number): Motion {
  const at = Math.max(1, index);
  const [from, to] = [fixes[at - 1], fixes[at]];
  if (from === undefined || to === undefined) {
    return { headingDeg: 0, groundSpeedMps: 0, verticalSpeedMps: 0 };
  }
  const seconds = to.offsetS - from.offsetS;
  const climbM =
    from.altitudeM === undefined || to.altitudeM === undefined ? 0 : to.altitudeM - from.altitudeM;
  return {
    headingDeg: headingAt(fixes, at),
    // A jump in the record must not break the limits of the contract.
    groundSpeedMps: Math.min(1000, distanceM(from, to) / seconds),
    verticalSpeedMps: Math.min(1000, Math.max(-1000, climbM / seconds)),
  };
}

function headingAt(fixes: readonly TrackFix[], index: number): number {
  for (let at = index; at > 0; at--) {
    const [from, to] = [fixes[at - 1], fixes[at]];
    if (from !== undefined && to !== undefined && distanceM(from, to) >= STANDING_M) {
      return courseDeg(from, to);
    }
  }
  return 0;
}

function isOnEarth(fix: RawFix): boolean {
  return Math.abs(fix.lon) <= 180 && Math.abs(fix.lat) <= 90;
}

/** Fixes without a time come a second after the one before, as does a part that steps back in time. */
function onTimeline(raw: RawFix[]): TrackFix[] {
  const fixes: TrackFix[] = [];
  let offsetS = 0;
  let previousMs: number | undefined;
  for (const { lon, lat, altitudeM, timeMs } of raw) {
    if (fixes.length > 0) {
      const stepMs = timeMs === undefined || previousMs === undefined ? undefined : timeMs - previousMs;
      if (stepMs === 0) {
        continue;
      }
      offsetS += stepMs === undefined || stepMs < 0 ? DEFAULT_SPACING_S : stepMs / 1000;
    }
    fixes.push({ lon, lat, altitudeM, offsetS });
    previousMs = timeMs;
  }
  return fixes;
}

function readGpx(text: string): RawFix[] {
  const content = text.replace(/<!--[\s\S]*?-->/g, "");
  const fixes: RawFix[] = [];
  // An element ends at its own end tag, or at once.
  const element = /<((?:[\w.-]+:)?trkpt)\b([^>]*?)(?:\/>|>([\s\S]*?)<\/\1\s*>)/g;
  for (const [, , attributes = "", body = ""] of content.matchAll(element)) {
    // Extensions may bring elements of the same names.
    const own = body.replace(/<((?:[\w.-]+:)?extensions)\b[^>]*>[\s\S]*?<\/\1\s*>/g, "");
    fixes.push({
      lon: attributeOf(attributes, "lon"),
      lat: attributeOf(attributes, "lat"),
      altitudeM: numberOf(childOf(own, "ele")),
      timeMs: timeOf(childOf(own, "time")),
    });
  }
  return fixes;
}

function attributeOf(attributes: string, name: string): number {
  const found = new RegExp(`(?:^|\\s)${name}\\s*=\\s*(?:"([^"]*)"|'([^']*)')`).exec(attributes);
  return numberOf(found?.[1] ?? found?.[2]) ?? Number.NaN;
}

function childOf(body: string, name: string): string | undefined {
  return new RegExp(`<(?:[\\w.-]+:)?${name}\\b[^>]*>([^<]*)<`).exec(body)?.[1];
}

function numberOf(value: unknown): number | undefined {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  return typeof number === "number" && Number.isFinite(number) ? number : undefined;
}

/** Milliseconds of an ISO 8601 text or, as some recorders write, of a number of milliseconds. */
function timeOf(value: unknown): number | undefined {
  if (typeof value === "string") {
    const parsed = Date.parse(value.trim());
    return Number.isNaN(parsed) ? undefined : parsed;
  }
  return numberOf(value);
}

// GeoJSON as it comes from outside: anything may be missing.
interface GeoJson {
  type?: unknown;
  features?: unknown;
  geometries?: unknown;
  geometry?: unknown;
  coordinates?: unknown;
  properties?: {
    coordTimes?: unknown;
    times?: unknown;
    time?: unknown;
    timestamp?: unknown;
    coordinateProperties?: { times?: unknown };
  } | null;
}

function readGeoJson(text: string): RawFix[] {
  return collect(JSON.parse(text) as GeoJson, undefined);
}

function collect(node: GeoJson | null | undefined, properties: GeoJson["properties"]): RawFix[] {
  const times = properties?.coordTimes ?? properties?.coordinateProperties?.times ?? properties?.times;
  switch (node?.type) {
    case "FeatureCollection":
      return listOf(node.features).flatMap((feature) => collect(feature as GeoJson, undefined));
    case "Feature":
      return collect(node.geometry as GeoJson, node.properties);
    case "GeometryCollection":
      return listOf(node.geometries).flatMap((geometry) => collect(geometry as GeoJson, properties));
    case "Point":
      return [fixOf(node.coordinates, properties?.time ?? properties?.timestamp)];
    case "LineString":
      return lineOf(node.coordinates, times);
    case "MultiLineString":
      return listOf(node.coordinates).flatMap((line, i) => lineOf(line, listOf(times)[i]));
    default:
      return [];
  }
}

function lineOf(coordinates: unknown, times: unknown): RawFix[] {
  return listOf(coordinates).map((position, i) => fixOf(position, listOf(times)[i]));
}

function fixOf(position: unknown, time: unknown): RawFix {
  const [lon, lat, altitude] = listOf(position);
  return {
    lon: numberOf(lon) ?? Number.NaN,
    lat: numberOf(lat) ?? Number.NaN,
    altitudeM: numberOf(altitude),
    timeMs: timeOf(time),
  };
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}
