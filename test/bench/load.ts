import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pinned, type Server } from "./process.ts";

/** What a load did to a server. */
export interface Sample {
  readonly perSecond: number;
  /** CPU time of the server for each request, in microseconds. */
  readonly cpuMicros: number;
}

/** A request to repeat. */
export interface Shot {
  readonly path: string;
  readonly headers?: Record<string, string>;
  readonly body?: Uint8Array;
  /** Bytes of the smallest body that counts as an answer. */
  readonly minBytes?: number;
}

/** How the requests come. */
export interface Volley {
  readonly requests: number;
  readonly connections: number;
  /** Requests in flight on each connection; 1 over HTTP/1.1. */
  readonly streams: number;
  readonly http1?: boolean;
}

/** Repeats a request with h2load from the other core. */
export async function h2load(server: Server, shot: Shot, volley: Volley): Promise<Sample> {
  const { requests, connections, streams, http1 } = volley;
  const args = ["-n", String(requests), "-c", String(connections), "-m", String(streams), "-t", "1"];
  if (http1) args.push("--h1");
  for (const [name, value] of Object.entries(shot.headers ?? {})) args.push("-H", `${name}: ${value}`);
  if (shot.body) {
    const file = join(tmpdir(), `portolan-bench-${process.pid}.bin`);
    writeFileSync(file, shot.body);
    args.push("-d", file);
  }
  const before = server.cpu();
  const text = await run("h2load", [...args, server.url + shot.path]);
  const cpu = server.cpu() - before;
  const succeeded = Number(/(\d+) succeeded/.exec(text)?.[1]);
  const perSecond = Number(/, ([\d.]+) req\/s/.exec(text)?.[1]);
  const bytes = Number(/\((\d+)\) data/.exec(text)?.[1]);
  // gRPC answers errors with 200 and no body.
  if (succeeded !== requests || bytes / requests < (shot.minBytes ?? 1)) {
    throw new Error(`${succeeded} of ${requests} succeeded, ${bytes} bytes:\n${text}`);
  }
  return { perSecond, cpuMicros: (cpu / requests) * 1e6 };
}

/** Repeats a GET with wrk over 64 connections of HTTP/1.1 from the other core. */
export async function wrk(server: Server, shot: Shot, seconds: number): Promise<Sample> {
  const args = ["-t", "1", "-c", "64", "-d", `${seconds}s`];
  for (const [name, value] of Object.entries(shot.headers ?? {})) args.push("-H", `${name}: ${value}`);
  const before = server.cpu();
  const text = await run("wrk", [...args, server.url + shot.path]);
  const cpu = server.cpu() - before;
  const requests = Number(/(\d+) requests in/.exec(text)?.[1]);
  if (/Non-2xx/.test(text) || !requests) throw new Error(text);
  return {
    perSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(text)?.[1]),
    cpuMicros: (cpu / requests) * 1e6,
  };
}

function run(program: string, args: string[]): Promise<string> {
  const [command = "", ...rest] = pinned(1, [program, ...args]);
  return new Promise((resolve, reject) => {
    execFile(command, rest, { maxBuffer: 1e7 }, (error, stdout, stderr) =>
      error ? reject(new Error(`${error.message}\n${stdout}${stderr}`)) : resolve(stdout),
    );
  });
}
