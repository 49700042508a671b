import { existsSync, globSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, it } from "vitest";
import { motionAt, parseTrack } from "../../examples/lib/track-file.ts";

const ROOT = join(import.meta.dirname, "../..");
const RECORDED = globSync("../shared/data/tracks/*.gpx", { cwd: ROOT })
  .map((name) => join(ROOT, name))
  .filter((path) => existsSync(path));

const point = (offsetS: number, lon: number, lat: number, altitudeM?: number) => ({
  lon,
  lat,
  altitudeM,
  offsetS,
});

describe("track file", () => {
  it("reads GPX, whatever the order of attributes, on one line, with an extension of the same name", () => {
    const text =
      `<?xml version="1.0"?><gpx xmlns="http://www.topografix.com/GPX/1/1"><trk><trkseg>` +
      `<trkpt lat="46.05" lon="14.5"><ele>300.5</ele><time>2024-05-01T10:00:00Z</time></trkpt>` +
      `<!-- <trkpt lat="1" lon="1"/> -->` +
      `<trkpt extra="x" lon='14.501' lat='46.05'><extensions><x:ele>9</x:ele></extensions><ele> 302 </ele><time>2024-05-01T10:00:05.500Z</time></trkpt>` +
      `<trkpt lat="bad" lon="14.5"/></trkseg></trk></gpx>`;
    expect(parseTrack(text)).toEqual([point(0, 14.5, 46.05, 300.5), point(5.5, 14.501, 46.05, 302)]);
  });

  it("reads namespaced GPX and puts a second between points without a time", () => {
    const text = `\uFEFF
      <g:gpx xmlns:g="http://www.topografix.com/GPX/1/1"><g:trk><g:trkseg>
        <g:trkpt lon="1" lat="2"><g:ele></g:ele></g:trkpt>
        <g:trkpt
          lat="2.001" lon="1" />
        <g:trkpt lat="2.002" lon="1"></g:trkpt>
      </g:trkseg></g:trk></g:gpx>`;
    expect(parseTrack(text)).toEqual([point(0, 1, 2), point(1, 1, 2.001), point(2, 1, 2.002)]);
  });

  it("drops points of the same time and goes on where the time steps back", () => {
    const at = (second: number, lat: number) =>
      `<trkpt lat="${lat}" lon="0"><time>2024-05-01T10:00:${String(second).padStart(2, "0")}Z</time></trkpt>`;
    const text = `<gpx>${at(10, 0)}${at(12, 1)}${at(12, 2)}${at(5, 3)}${at(8, 4)}</gpx>`;
    expect(parseTrack(text)).toEqual([point(0, 0, 0), point(2, 0, 1), point(3, 0, 3), point(6, 0, 4)]);
  });

  it("reads GeoJSON lines with coordTimes", () => {
    const line = {
      type: "Feature",
      properties: { coordTimes: ["2024-05-01T10:00:00Z", "2024-05-01T10:00:03Z"] },
      geometry: {
        type: "LineString",
        coordinates: [
          [14, 46, 300],
          [14, 46.001],
        ],
      },
    };
    expect(parseTrack(JSON.stringify(line))).toEqual([point(0, 14, 46, 300), point(3, 14, 46.001)]);
    const lines = {
      type: "Feature",
      properties: { coordTimes: [[0, 2000], [5000]] },
      geometry: {
        type: "MultiLineString",
        coordinates: [
          [
            [1, 2],
            [1, 3],
          ],
          [[1, 4]],
        ],
      },
    };
    const collection = { type: "FeatureCollection", features: [lines] };
    expect(parseTrack(JSON.stringify(collection)).map((fix) => fix.offsetS)).toEqual([0, 2, 5]);
  });

  it("reads GeoJSON points with time", () => {
    const features = ["2024-05-01T10:00:00Z", "2024-05-01T10:00:07Z", undefined].map((time, i) => ({
      type: "Feature",
      properties: time === undefined ? null : { time },
      geometry: { type: "Point", coordinates: [i, 10] },
    }));
    const text = JSON.stringify({ type: "FeatureCollection", features });
    expect(parseTrack(text)).toEqual([point(0, 0, 10), point(7, 1, 10), point(8, 2, 10)]);
  });

  it("refuses a file without points", () => {
    expect(() => parseTrack("<gpx></gpx>")).toThrow("no track points");
    expect(() => parseTrack('{"type":"FeatureCollection"}')).toThrow("no track points");
  });

  it("computes heading and speeds from one fix to the next", () => {
    const fixes = [point(0, 14, 46, 100), point(10, 14, 46.001, 80), point(11, 14, 46.001, 80)];
    expect(motionAt(fixes, 1).headingDeg).toBeCloseTo(0, 1);
    expect(motionAt(fixes, 1).groundSpeedMps).toBeCloseTo(11.12, 1);
    expect(motionAt(fixes, 1).verticalSpeedMps).toBe(-2);
    // Standing still, it goes on looking where it went.
    expect(motionAt(fixes, 2)).toMatchObject({
      headingDeg: motionAt(fixes, 1).headingDeg,
      groundSpeedMps: 0,
    });
    expect(motionAt(fixes, 0)).toEqual(motionAt(fixes, 1));
    expect(motionAt([point(0, 1, 1)], 0)).toEqual({ headingDeg: 0, groundSpeedMps: 0, verticalSpeedMps: 0 });
  });

  it.skipIf(RECORDED.length === 0)("reads recorded tracks", () => {
    for (const path of RECORDED) {
      const text = readFileSync(path, "utf8");
      const fixes = parseTrack(text);
      expect(fixes.length, basename(path)).toBeGreaterThan(text.split("<trkpt").length * 0.9);
      for (const i of fixes.keys()) {
        const motion = motionAt(fixes, i);
        expect(motion.headingDeg).toBeLessThan(360);
        expect(motion.groundSpeedMps).toBeLessThan(150);
        // Recorders write a wrong altitude now and then, so only the limit of the contract holds.
        expect(Math.abs(motion.verticalSpeedMps)).toBeLessThanOrEqual(1000);
      }
    }
  });
});
