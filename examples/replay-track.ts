// Publishes a recorded track as if a drone flew it now. Run `node examples/replay-track.ts --help`.
import { readFile } from "node:fs/promises";
import { basename, extname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { DroneState } from "#gen/portolan/common/v1/track_pb.js";
import { DeviceType } from "#gen/portolan/streams/v1/resource_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { motionAt, parseTrack, type TrackFix } from "./lib/track-file.ts";

const HELP = `Publishes a recorded track as a device, at the pace it was recorded.

  node examples/replay-track.ts FILE.gpx|FILE.geojson [options]

  --speed N        times as fast; default 1
  --group ID       device group; default track-<file name>
  --url URL        server; default http://127.0.0.1:8080
  --key KEY        API key; default from PORTOLAN_API_KEY
  --max-gap S      shorten pauses in the record to this; default 60
  --loop           start over at the end
  --help           show this
`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    speed: { type: "string", default: "1" },
    group: { type: "string" },
    url: { type: "string", default: "http://127.0.0.1:8080" },
    key: { type: "string", default: process.env.PORTOLAN_API_KEY ?? "" },
    "max-gap": { type: "string", default: "60" },
    loop: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
const [file] = positionals;
const speed = Number(values.speed);
const maxGapS = Number(values["max-gap"]);
if (values.help || file === undefined || !(speed > 0) || !(maxGapS > 0)) {
  console.log(HELP);
  process.exit(values.help ? 0 : 2);
}

const fixes = parseTrack(await readFile(file, "utf8"));
const name = basename(file, extname(file));
const deviceGroupId = values.group ?? `track-${name.replace(/[^A-Za-z0-9._:-]+/g, "-")}`.slice(0, 120);
const deviceId = `${deviceGroupId}-drone`.slice(0, 128);
const transport = createGrpcTransport({
  baseUrl: values.url,
  interceptors: [
    (next) => (request) => {
      request.header.set("x-api-key", values.key);
      return next(request);
    },
  ],
});

const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort());
const unanswered = new AbortController();
let current = 0;

/** Yields the fixes as samples, each when it is due. */
async function* samples() {
  try {
    yield* pacedSamples();
  } finally {
    // When the connection is lost, the call takes no more samples and would wait for an answer.
    setTimeout(() => unanswered.abort(), 5000).unref();
  }
}

async function* pacedSamples() {
  do {
    let dueMs = performance.now();
    for (const [i, fix] of fixes.entries()) {
      const gapS = i === 0 ? 0 : fix.offsetS - (fixes[i - 1]?.offsetS ?? 0);
      dueMs += (Math.min(gapS, maxGapS) * 1000) / speed;
      await sleep(Math.max(0, dueMs - performance.now()), undefined, { signal: interrupted.signal }).catch(
        () => {},
      );
      if (interrupted.signal.aborted) {
        return;
      }
      current = i;
      yield { deviceGroupId, sample: sampleOf(fix, i) };
    }
  } while (values.loop);
}

function sampleOf(fix: TrackFix, index: number) {
  const { headingDeg, groundSpeedMps, verticalSpeedMps } = motionAt(fixes, index);
  const altitude = fix.altitudeM === undefined ? [] : [fix.altitudeM];
  return {
    deviceId,
    timestamp: timestampNow(),
    droneState: DroneState.WAYPOINT,
    navigation: {
      position: { type: "Point", coordinates: [fix.lon, fix.lat, ...altitude] },
      orientation: { heading: headingDeg },
      velocity: { groundSpeed: groundSpeedMps, verticalSpeed: verticalSpeedMps },
    },
  };
}

function printStatus(): void {
  const fix = fixes[current];
  const { headingDeg, groundSpeedMps } = motionAt(fixes, current);
  const place = `${fix?.lat.toFixed(5)} ${fix?.lon.toFixed(5)} ${fix?.altitudeM?.toFixed(0) ?? "-"} m`;
  const motion = `${groundSpeedMps.toFixed(1)} m/s toward ${headingDeg.toFixed(0)}°`;
  console.log(`${current + 1}/${fixes.length}  ${place}  ${motion}`);
}

try {
  await createClient(ResourceService, transport).registerResource({
    deviceGroupId,
    name: `Track ${name}`.slice(0, 200),
    devices: [{ deviceId, name: "Recorded drone", type: DeviceType.DRONE }],
  });
} catch (error) {
  if (ConnectError.from(error).code !== Code.AlreadyExists) {
    console.error(`cannot register ${deviceGroupId}: ${ConnectError.from(error).message}`);
    process.exit(1);
  }
}
console.log(`${fixes.length} fixes as ${deviceGroupId}. Follow along with:`);
console.log(
  `  curl -N -H "x-api-key: $PORTOLAN_API_KEY" -H "Accept: application/x-ndjson" ${values.url}/v3/devices/${deviceGroupId}/status/ws`,
);
const status = setInterval(printStatus, 1000);
try {
  const { accepted } = await createClient(TelemetryService, transport).publishTelemetry(samples(), {
    signal: unanswered.signal,
  });
  console.log(`${accepted} samples stored`);
} catch (error) {
  console.error(`publishing ended: ${ConnectError.from(error).message}`);
  process.exitCode = 1;
} finally {
  clearInterval(status);
}
process.exit();
