/**
 * What a tenant that goes on calling at many times its limit does to the latency of another one.
 *
 * The server, the noisy client and the quiet client are processes of their own. Windows with and
 * without noise follow each other in turn, so that what else the machine does falls on both.
 *
 *   npm run bench:noisy -- [--connections N | --rate CALLS_PER_SECOND] [--rounds N] [--seconds N] [--plan NAME]
 */
import { fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { createClient } from "@connectrpc/connect";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { grpcTransport, spawnServer } from "../support/gateway.ts";
import { openWire, type Wire } from "../support/wire.ts";

const quietPerSecond = 200;
const warmUpMs = 1500;

/** How a client's calls of one window ended, and how long those that were admitted took. */
interface Window {
  readonly latenciesMs: number[];
  readonly refused: number;
}

/** A client of one tenant. */
function clientOf(wire: Wire, key: string) {
  const latenciesMs: number[] = [];
  let refused = 0;
  const what = { method: JobService.method.listJobs, request: {}, headers: { "x-api-key": key } };
  const call = async () => {
    const began = performance.now();
    const { reason } = await wire.lanes.Connect(what);
    if (reason === "") latenciesMs.push(performance.now() - began);
    else if (reason === "RATE_LIMITED") refused++;
    else throw new Error(`unexpected: ${reason}`);
  };
  return {
    /** Calls at a steady pace, whether or not answers come. */
    async pace(perSecond: number, ms: number): Promise<Window> {
      const open: Promise<void>[] = [];
      const began = performance.now();
      for (let sent = 0; performance.now() - began < ms; ) {
        const due = Math.floor(((performance.now() - began) * perSecond) / 1000);
        for (; sent < due; sent++) open.push(call());
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      await Promise.all(open);
      return { latenciesMs, refused };
    },
    /** Calls again as soon as an answer is there, from so many connections at once. */
    async hammer(connections: number, ms: number): Promise<Window> {
      const end = performance.now() + ms;
      const one = async () => {
        while (performance.now() < end) await call();
      };
      await Promise.all(Array.from({ length: connections }, one));
      return { latenciesMs, refused };
    },
  };
}

/** Processor time that a process has used, in milliseconds; not a number where the system does not tell. */
function cpuMsOf(pid: number): number {
  if (process.platform !== "linux") return Number.NaN;
  const [, fields = ""] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ");
  const [user = 0, system = 0] = fields.split(" ").slice(11, 13).map(Number);
  const ticksPerSecond = 100;
  return ((user + system) * 1000) / ticksPerSecond;
}

const quantile = (values: readonly number[], q: number) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))] ?? Number.NaN;

if (process.send) await makeNoise();
else await measure();

/** The noisy client: told when and for how long, it tells what came of it. */
async function makeNoise(): Promise<void> {
  const [url = "", key = "", connections = "", perSecond = ""] = process.argv.slice(2);
  const wire = openWire(url);
  process.on("message", async (ms: number) => {
    const client = clientOf(wire, key);
    const work = perSecond ? client.pace(Number(perSecond), ms) : client.hammer(Number(connections), ms);
    const { latenciesMs, refused } = await work;
    process.send?.({ admitted: latenciesMs.length, refused });
  });
  process.on("disconnect", () => process.exit());
}

async function measure(): Promise<void> {
  const { values } = parseArgs({
    options: {
      connections: { type: "string", default: "32" },
      rate: { type: "string", default: "" },
      rounds: { type: "string", default: "6" },
      seconds: { type: "string", default: "5" },
      plan: { type: "string", default: "standard" },
    },
  });
  const windowMs = Number(values.seconds) * 1000;
  const server = await spawnServer();
  try {
    const keys = createClient(ApiKeyService, grpcTransport(server.url));
    const newKey = async (tenantId: string, plan: string) => {
      const { secret } = await keys.createApiKey({ name: tenantId, role: Role.ADMIN, tenantId, plan });
      await createClient(ResourceService, grpcTransport(server.url, secret)).registerResource({
        name: "Dock",
      });
      return secret;
    };
    const quiet = await newKey("quiet", "unlimited");
    const loud = await newKey("noisy", values.plan);
    const child = fork(import.meta.filename, [server.url, loud, values.connections, values.rate]);
    const wire = openWire(server.url);
    const noise = { admitted: 0, refused: 0 };
    const all: Record<"alone" | "beside", number[]> = { alone: [], beside: [] };
    const ratios: number[] = [];
    const cpuMs = { alone: 0, beside: 0 };

    await clientOf(wire, quiet).pace(quietPerSecond, warmUpMs * 2);
    for (let round = 0; round < Number(values.rounds); round++) {
      const p99: Partial<Record<keyof typeof all, number>> = {};
      // Each comes first in turn, so that neither gains by its place.
      for (const kind of round % 2 ? (["beside", "alone"] as const) : (["alone", "beside"] as const)) {
        let done: Promise<unknown> = Promise.resolve();
        if (kind === "beside") {
          done = new Promise((resolve) =>
            child.once("message", (told: typeof noise) => {
              noise.admitted += told.admitted;
              noise.refused += told.refused;
              resolve(undefined);
            }),
          );
          child.send(windowMs + warmUpMs);
          // The burst is spent, and the noisy tenant is at its limit.
          await clientOf(wire, quiet).pace(quietPerSecond, warmUpMs);
        }
        const cpuBeforeMs = cpuMsOf(server.pid);
        const { latenciesMs } = await clientOf(wire, quiet).pace(quietPerSecond, windowMs);
        cpuMs[kind] += cpuMsOf(server.pid) - cpuBeforeMs;
        await done;
        all[kind].push(...latenciesMs);
        p99[kind] = quantile(latenciesMs, 0.99);
      }
      const { alone = 0, beside = 0 } = p99;
      ratios.push(beside / alone);
      console.log(
        `round ${round + 1}: p99 ${alone.toFixed(2)} ms alone, ${beside.toFixed(2)} ms beside noise`,
      );
    }
    child.disconnect();
    wire.close();

    console.log(`\nquiet tenant, ${quietPerSecond} calls a second; noisy tenant, plan ${values.plan}:`);
    const how = values.rate
      ? `${values.rate} calls a second`
      : `hammering on ${values.connections} connections`;
    console.log(`${how}, ${noise.admitted} calls admitted, ${noise.refused} refused`);
    for (const kind of ["alone", "beside"] as const) {
      const busy = ((cpuMs[kind] / (windowMs * Number(values.rounds))) * 100).toFixed(1);
      const at = (q: number) => `${quantile(all[kind], q).toFixed(2)} ms`;
      console.log(
        `${kind.padEnd(7)} p50 ${at(0.5)}  p95 ${at(0.95)}  p99 ${at(0.99)}  (${all[kind].length} calls, server busy ${busy} %)`,
      );
    }
    const pooled = quantile(all.beside, 0.99) / quantile(all.alone, 0.99);
    console.log(
      `p99 beside / alone: ${pooled.toFixed(3)} of all calls, ${quantile(ratios, 0.5).toFixed(3)} median of rounds`,
    );
  } finally {
    await server.kill("SIGTERM");
  }
}
