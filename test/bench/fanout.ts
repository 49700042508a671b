import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { HealthCheckRequestSchema } from "#gen/grpc/health/v1/health_pb.js";
import { TrackJobRequestSchema } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { benchKey, pinned, type Server, startPeer, startPortolan } from "./process.ts";
import { median, print, short } from "./table.ts";
import { framed, newJob, transport } from "./unary.ts";

interface Follow {
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
}

interface Report {
  readonly received: number;
  readonly expected: number;
  readonly closed: number;
  /** How late messages came, in milliseconds. */
  readonly p50: number;
  readonly p99: number;
}

interface Result extends Report {
  readonly cpuMicros: number;
  readonly bytesEach: number;
  readonly cpuPart: number;
}

const grpc = { "content-type": "application/grpc", te: "trailers" };

/** Follows from a process on the other core and measures what that costs the server. */
async function follow(
  server: Server,
  request: Follow,
  connections: number,
  streams: number,
  seconds: number,
): Promise<Result> {
  const idle = server.memory();
  const args = [
    join(import.meta.dirname, "follower.ts"),
    server.url,
    request.path,
    JSON.stringify(request.headers),
    Buffer.from(request.body).toString("base64"),
    ...[connections, streams, seconds].map(String),
  ];
  const [command = "", ...rest] = pinned(1, [process.execPath, ...args]);
  const child = spawn(command, rest, { stdio: ["pipe", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (chunk) => {
    text += chunk;
  });
  await once(child.stdout, "data");
  // All have had their first messages, and the garbage of their arrival is gone.
  await new Promise((resolve) => setTimeout(resolve, 6_000));
  const bytesEach = (server.memory() - idle) / (connections * streams);
  const before = server.cpu();
  child.stdin.write("go\n");
  await once(child, "close");
  const cpu = server.cpu() - before;
  const report = JSON.parse(text.split("\n").at(-2) ?? "") as Report;
  return { ...report, bytesEach, cpuMicros: (cpu / report.received) * 1e6, cpuPart: cpu / seconds };
}

/** A job whose device publishes once a second, and how to follow it. */
async function trackJob(server: Server): Promise<Follow & { stop(): void }> {
  const jobId = await newJob(server);
  const telemetry = createClient(TelemetryService, transport(server));
  const publish = () =>
    telemetry
      .publishSample({ deviceGroupId: "bench-dock", sample: { batteryPercent: 50 } })
      .catch((error) => console.error(`telemetry: ${error}`));
  await publish();
  const timer = setInterval(publish, 1000);
  return {
    path: "/portolan.jobs.v1.JobService/TrackJob",
    headers: { ...grpc, "x-api-key": benchKey },
    body: framed(toBinary(TrackJobRequestSchema, create(TrackJobRequestSchema, { jobId }))),
    stop: () => clearInterval(timer),
  };
}

const watch: Follow = {
  path: "/grpc.health.v1.Health/Watch",
  headers: grpc,
  body: framed(toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema))),
};

/** Fan-out at 1 Hz over gRPC: what a message and a subscriber cost, ours against peers. */
export async function benchFanout(rounds: number, size: number): Promise<void> {
  const connections = 20 * size;
  const cases = [
    { name: "Portolan TrackJob", start: startPortolan, follow: trackJob },
    { name: "bare Connect", start: () => startPeer("fanout-connect"), follow: async () => watch },
    {
      name: "raw node:http2, shared bytes",
      start: () => startPeer("fanout-http2"),
      follow: async () => watch,
    },
  ];
  const results = new Map<string, Result[]>(cases.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const each of cases) {
      const server = await each.start();
      const request: Follow & { stop?(): void } = await each.follow(server);
      results.get(each.name)?.push(await follow(server, request, connections, 100, 10));
      request.stop?.();
      await server.stop();
    }
  }
  const middle = (all: readonly Result[], pick: (result: Result) => number) => median(all.map(pick));
  print(
    `Fan-out at 1 Hz, ${connections * 100} gRPC streams over ${connections} connections`,
    ["server", "CPU µs a message", "bytes a subscriber", "late p50 ms", "late p99 ms", "came of expected"],
    [...results].map(([name, all]) => [
      name,
      middle(all, ({ cpuMicros }) => cpuMicros).toFixed(1),
      short(middle(all, ({ bytesEach }) => bytesEach)),
      middle(all, ({ p50 }) => p50).toFixed(1),
      middle(all, ({ p99 }) => p99).toFixed(1),
      `${((middle(all, ({ received }) => received) / (all[0]?.expected ?? 1)) * 100).toFixed(1)} %`,
    ]),
  );
}

/** How far one process of ours goes: from 100 followers upwards, until it no longer keeps up. */
export async function benchFollowers(_: number, size: number): Promise<void> {
  const rows: string[][] = [];
  for (const connections of [1, 10, 100, 250, 500, 1000, 2000, 3000].filter((each) => each <= 1000 * size)) {
    const server = await startPortolan();
    const request = await trackJob(server);
    const result = await follow(server, request, connections, 100, 10);
    request.stop();
    await server.stop();
    rows.push([
      short(connections * 100),
      result.cpuMicros.toFixed(1),
      `${(result.cpuPart * 100).toFixed(0)} %`,
      short(result.bytesEach),
      result.p50.toFixed(1),
      result.p99.toFixed(1),
      `${((result.received / result.expected) * 100).toFixed(1)} %`,
      String(result.closed),
    ]);
  }
  print(
    "Followers of one job in one process, 100 gRPC streams a connection",
    [
      "followers",
      "CPU µs a message",
      "CPU",
      "bytes a follower",
      "late p50 ms",
      "late p99 ms",
      "came of expected",
      "closed",
    ],
    rows,
  );
}
