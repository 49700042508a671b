/**
 * What a batch of 100 reads costs the server, against 100 requests: CPU time of its process and time
 * on the clock, over one keep-alive HTTP/1.1 connection and over one HTTP/2 connection. The server
 * runs in a process of its own, this one.
 *
 *   npm run bench:batch [-- slices]
 */
import { fork } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import http2 from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { startServer } from "#gateway/server.ts";

const reads = 100;
const apiKey = "sk_bench_admin";
const sliceRounds = 10;
/** Slices that are not counted. */
const warmUp = 5;

if (process.argv[2] === "serve") await serve(process.argv[3] as string);
else await measure(Number(process.argv[2] ?? 15));

/** The server's side: tells its URL, and its CPU time in microseconds whenever it is asked. */
async function serve(dataDir: string): Promise<void> {
  const config = {
    port: 0,
    host: "127.0.0.1",
    dataDir,
    databaseUrl: undefined,
    adminApiKey: apiKey,
    sandbox: false,
    logLevel: "silent",
    tls: undefined,
  } as Parameters<typeof startServer>[0];
  const server = await startServer(config, pino({ level: "silent" }));
  process.on("message", () => {
    const { user, system } = process.cpuUsage();
    process.send?.({ cpu: user + system });
  });
  process.on("disconnect", () => process.exit());
  process.send?.({ url: server.url });
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

type Send = (method: string, path: string, body?: unknown) => Promise<Answer>;

interface Client {
  readonly send: Send;
  close(): void;
}

async function measure(slices: number): Promise<void> {
  const dataDir = mkdtempSync(join(tmpdir(), "portolan-bench-"));
  const child = fork(import.meta.filename, ["serve", dataDir]);
  const next = <T>() =>
    new Promise<T>((resolve) => child.once("message", (message) => resolve(message as T)));
  const cpuMs = async () => {
    const answer = next<{ cpu: number }>();
    child.send("cpu");
    return (await answer).cpu / 1000;
  };
  try {
    const { url } = await next<{ url: string }>();
    const http1 = overHttp1(url);
    const paths = await fill(http1.send);
    const operations = paths.map((path) => ({ method: "GET", path }));

    const byRequests = (send: Send) => async () => {
      for (const { status } of await Promise.all(paths.map((path) => send("GET", path))))
        demand(status === 200);
    };
    const byBatch = (send: Send) => async () => {
      const { status, text } = await send("POST", "/api/v1/batch", { operations });
      demand(status === 200);
      const { results } = JSON.parse(text) as { results: { status: number }[] };
      demand(results.length === reads && results.every((result) => result.status === 200));
    };

    async function slice(round: () => Promise<void>): Promise<Cost> {
      const cpu = await cpuMs();
      const started = performance.now();
      for (let i = 0; i < sliceRounds; i++) await round();
      const clockMs = performance.now() - started;
      return { cpuMs: ((await cpuMs()) - cpu) / sliceRounds, clockMs: clockMs / sliceRounds };
    }

    /** The medians of both, taken in turns, so that what else the machine does falls on both. */
    async function compare(one: () => Promise<void>, other: () => Promise<void>): Promise<[Cost, Cost]> {
      const costs: [Cost, Cost][] = [];
      for (let i = -warmUp; i < slices; i++) {
        const pair: [Cost, Cost] = [await slice(one), await slice(other)];
        if (i >= 0) costs.push(pair);
      }
      return [medianOf(costs.map(([each]) => each)), medianOf(costs.map(([, each]) => each))];
    }

    console.log(`${reads} reads of a job; medians of ${slices} slices of ${sliceRounds} rounds\n`);
    console.log("                         CPU of the server        time    CPU ratio  time ratio");
    for (const [name, client] of [["HTTP/1.1", http1] as const, ["HTTP/2  ", overHttp2(url)] as const]) {
      const [single, batch] = await compare(byRequests(client.send), byBatch(client.send));
      print(`${reads} requests, ${name}`, single);
      print(`one batch,    ${name}`, batch, single);
      client.close();
    }
  } finally {
    child.disconnect();
    await new Promise((resolve) => child.once("exit", resolve));
    rmSync(dataDir, { recursive: true });
  }
}

interface Cost {
  readonly cpuMs: number;
  readonly clockMs: number;
}

function print(name: string, cost: Cost, against?: Cost): void {
  const ms = (value: number) => `${value.toFixed(2)} ms`.padStart(10);
  const ratio = (part: number, whole: number) => `${((part / whole) * 100).toFixed(0)} %`.padStart(12);
  const ratios = against ? ratio(cost.cpuMs, against.cpuMs) + ratio(cost.clockMs, against.clockMs) : "";
  console.log(`${name.padEnd(24)}${ms(cost.cpuMs)}      ${ms(cost.clockMs)}${ratios}`);
}

function medianOf(costs: readonly Cost[]): Cost {
  const middle = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] ?? 0;
  return {
    cpuMs: middle(costs.map((cost) => cost.cpuMs)),
    clockMs: middle(costs.map((cost) => cost.clockMs)),
  };
}

/** Makes the jobs to read, and gives their paths. */
async function fill(send: Send): Promise<string[]> {
  const deviceGroupId = "bench-dock";
  demand((await send("POST", "/v3/resources", { deviceGroupId, name: "Bench" })).status === 201);
  const create = async (_: unknown, at: number) => {
    const job = { name: `Survey ${at}`, deviceGroupId, scheduledAt: "2099-01-01T00:00:00Z" };
    const { status, text } = await send("POST", "/v3/jobs/create", job);
    demand(status === 201);
    return `/v3/jobs/${JSON.parse(text).job.jobId}`;
  };
  return Promise.all(Array.from({ length: reads }, create));
}

/** One connection that is kept: requests go one after the other, as HTTP/1.1 has it. */
function overHttp1(url: string): Client {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const send: Send = (method, path, body) =>
    new Promise((resolve, reject) => {
      const headers = { "x-api-key": apiKey, "content-type": "application/json" };
      const request = http.request(url + path, { method, agent, headers }, (response) => {
        collect(response, response.statusCode ?? 0).then(resolve, reject);
      });
      request.on("error", reject);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  return { send, close: () => agent.destroy() };
}

/** One connection, on which requests run together. */
function overHttp2(url: string): Client {
  const session = http2.connect(url);
  const send: Send = (method, path, body) =>
    new Promise((resolve, reject) => {
      const stream = session.request({
        ":method": method,
        ":path": path,
        "x-api-key": apiKey,
        "content-type": "application/json",
      });
      stream.on("response", (headers) => {
        collect(stream, Number(headers[":status"])).then(resolve, reject);
      });
      stream.on("error", reject);
      stream.end(body === undefined ? undefined : JSON.stringify(body));
    });
  return { send, close: () => session.close() };
}

async function collect(stream: AsyncIterable<Buffer>, status: number): Promise<Answer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return { status, text: Buffer.concat(chunks).toString() };
}

function demand(condition: boolean): asserts condition {
  if (!condition) throw new Error("the server did not answer as it should");
}
