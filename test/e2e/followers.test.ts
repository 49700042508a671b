import { readFileSync, rmSync } from "node:fs";
import http2 from "node:http2";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { Http2SessionManager } from "@connectrpc/connect-node";
import { expect, it } from "vitest";
import {
  JobState,
  TrackKind,
  type TrackUpdate,
  TrackUpdateSchema,
} from "#gen/portolan/common/v1/track_pb.js";
import { JobService, TrackJobRequestSchema } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { flying, startDevice } from "../support/device.ts";
import { adminKey, grpcTransport, type SpawnedServer, spawnServer, until } from "../support/gateway.ts";
import { frame } from "../support/lanes.ts";

const followers = Number(process.env.PORTOLAN_FOLLOWERS ?? 50);
const seconds = Number(process.env.PORTOLAN_FOLLOW_SECONDS ?? 10);
const streamsPerConnection = 20;

const dock = "followers-dock";

/** A timer of this process that fires so late has met a stall of the machine. */
const stallMs = 200;
const stallLookMs = 50;

interface Arrival {
  readonly atMs: number;
  readonly update: TrackUpdate;
}

/** Resident memory of the server in bytes, where the system tells. */
function residentBytes(server: SpawnedServer): number | undefined {
  try {
    const [, kib] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${server.pid}/status`, "utf8")) ?? [];
    return Number(kib) * 1024;
  } catch {
    return undefined;
  }
}

/** How long the server's main thread has been ready to run and was not let to, in seconds; 0 where unknown. */
function heldBackSeconds(server: SpawnedServer): number {
  try {
    const [, waitedNs] = readFileSync(`/proc/${server.pid}/schedstat`, "utf8").split(" ");
    return Number(waitedNs) / 1e9;
  } catch {
    return 0;
  }
}

/**
 * Adds up for how long the machine kept this process or the server from running, in seconds. How
 * fast the server answers does not count: that is what is under test.
 */
function watchStalls(server: SpawnedServer): () => number {
  const heldBack = heldBackSeconds(server);
  let stalledMs = 0;
  let lastMs = performance.now();
  const look = () => {
    const lateMs = performance.now() - lastMs - stallLookMs;
    if (lateMs > stallMs) stalledMs += lateMs;
    lastMs = performance.now();
  };
  const timer = setInterval(look, stallLookMs);
  return () => {
    clearInterval(timer);
    look();
    return stalledMs / 1000 + heldBackSeconds(server) - heldBack;
  };
}

/** Followers on one connection that let the server send nothing until told otherwise. */
function deafFollowers(server: SpawnedServer, jobId: string, count: number) {
  const session = http2.connect(server.url);
  const requests = Array.from({ length: count }, () => {
    const stream = session.request({
      ":method": "POST",
      ":path": `/${JobService.typeName}/TrackJob`,
      "content-type": "application/grpc+proto",
      te: "trailers",
      "x-api-key": adminKey,
    });
    stream.end(frame(toBinary(TrackJobRequestSchema, create(TrackJobRequestSchema, { jobId }))));
    const updates: TrackUpdate[] = [];
    let pending = Buffer.alloc(0);
    stream.on("data", (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      while (pending.length >= 5 && pending.length >= 5 + pending.readUInt32BE(1)) {
        const end = 5 + pending.readUInt32BE(1);
        updates.push(fromBinary(TrackUpdateSchema, pending.subarray(5, end)));
        pending = pending.subarray(end);
      }
    });
    const ended = new Promise<string>((resolve) => {
      stream.once("trailers", (trailers) => resolve(String(trailers["grpc-status"])));
    });
    return { updates, ended };
  });
  const setWindow = (initialWindowSize: number) =>
    new Promise<void>((resolve, reject) =>
      session.settings({ initialWindowSize }, (error) => (error ? reject(error) : resolve())),
    );
  return {
    requests,
    stopReading: () => setWindow(0),
    readOn: () => setWindow(256 * 1024),
    close: () => session.destroy(),
  };
}

const strictlyIncreasing = (updates: readonly TrackUpdate[]) =>
  updates.every(({ sequence }, i) => i === 0 || sequence > (updates[i - 1] as TrackUpdate).sequence);

it(`${followers} followers of one job each get ${seconds} ± 1 messages in ${seconds} s, in order, and the last state`, {
  timeout: 180_000 + seconds * 3_000,
}, async () => {
  const server = await spawnServer();
  const device = await startDevice(grpcTransport(server.url), dock);
  const jobs = createClient(JobService, grpcTransport(server.url));
  const { job } = await jobs.createJob({ name: "Followed", deviceGroupId: dock });
  const jobId = job?.jobId ?? "";
  await device.launch(jobId);

  const sessions = Array.from(
    { length: Math.ceil(followers / streamsPerConnection) },
    () => new Http2SessionManager(server.url),
  );
  const arrivals: Arrival[][] = [];
  const ends = Array.from({ length: followers }, async (_, i) => {
    const session = sessions[i % sessions.length] as Http2SessionManager;
    const mine: Arrival[] = [];
    arrivals.push(mine);
    const client = createClient(JobService, grpcTransport(server.url, adminKey, session));
    for await (const update of client.trackJob({ jobId })) mine.push({ atMs: performance.now(), update });
  });
  await until(() => arrivals.every((mine) => mine.length > 0));
  const deaf = deafFollowers(server, jobId, 20);
  await until(() => deaf.requests.every(({ updates }) => updates.length > 0));

  let flight = true;
  const publishing = (async () => {
    for (let i = 0; flight; i++) {
      await device.publish(flying(dock, jobId, [14.5 + i / 10_000, 46, 300]));
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  })();

  const stalls = watchStalls(server);
  await deaf.stopReading();
  const heardBefore = deaf.requests.map(({ updates }) => updates.length);
  const memoryBefore = residentBytes(server);
  const beginMs = performance.now();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const endMs = performance.now();
  const stalledSeconds = stalls();
  const memoryAfter = residentBytes(server);

  // What was already on its way when the window closed may still arrive.
  for (const [i, { updates }] of deaf.requests.entries()) {
    expect(updates.length - (heardBefore[i] as number)).toBeLessThanOrEqual(1);
  }
  const newest = arrivals[0]?.at(-1)?.update.sequence as bigint;
  await deaf.readOn();
  await until(() => deaf.requests.every(({ updates }) => (updates.at(-1)?.sequence ?? 0n) >= newest));

  flight = false;
  await publishing;
  await device.report(jobId, JobState.COMPLETED);
  await Promise.all(ends);
  const statuses = await Promise.all(deaf.requests.map(({ ended }) => ended));
  deaf.close();
  for (const session of sessions) session.abort();
  await device.stop();
  await server.kill();
  rmSync(server.dataDir, { recursive: true, force: true });

  // Ticks that a stall of the machine swallowed or bunched are not the server's.
  const allowed = 1 + Math.ceil(stalledSeconds);
  const expected = (endMs - beginMs) / 1000;
  const counts = arrivals.map((mine) => mine.filter(({ atMs }) => atMs >= beginMs && atMs < endMs).length);
  console.log(
    `${followers} followers: ${Math.min(...counts)} to ${Math.max(...counts)} messages in ` +
      `${expected.toFixed(1)} s, ${stalledSeconds.toFixed(1)} s of stalls, memory ` +
      `${Math.round((memoryBefore ?? 0) / 2 ** 20)} to ${Math.round((memoryAfter ?? 0) / 2 ** 20)} MiB`,
  );
  for (const count of counts) {
    expect(count).toBeGreaterThanOrEqual(expected - allowed);
    expect(count).toBeLessThanOrEqual(expected + allowed);
  }
  for (const updates of [
    ...arrivals.map((mine) => mine.map(({ update }) => update)),
    ...deaf.requests.map((request) => request.updates),
  ]) {
    expect(strictlyIncreasing(updates)).toBe(true);
    expect(updates.filter(({ kind }) => kind === TrackKind.FINAL)).toHaveLength(1);
    expect(updates.at(-1)).toMatchObject({ kind: TrackKind.FINAL, jobState: JobState.COMPLETED, jobId });
  }
  expect(statuses.every((status) => status === "0")).toBe(true);
  // A queue without bound would hold far more; so much the collector may leave lying about.
  if (memoryBefore && memoryAfter) expect(memoryAfter - memoryBefore).toBeLessThan(96 * 2 ** 20);
});
