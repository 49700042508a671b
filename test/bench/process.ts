import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The folder of the repository. */
export const root = join(import.meta.dirname, "../..");

/** The administrator's key of the server under test. */
export const benchKey = "sk_bench_administrator";

const canPin = spawnSync("taskset", ["-c", "1", "true"]).status === 0;

/** A command that runs on one core, so that server and load do not take it from each other. */
export const pinned = (core: number, command: string[]): string[] =>
  canPin ? ["taskset", "-c", String(core), ...command] : command;

/** Whether a program can be run. */
export const has = (program: string): boolean => spawnSync("which", [program]).status === 0;

/** A server under test, on a core of its own. */
export interface Server {
  readonly url: string;
  readonly port: number;
  /** From the start of the process until it was ready, in milliseconds. */
  readonly startMs: number;
  /** CPU time used so far, in seconds. */
  cpu(): number;
  /** Resident memory, in bytes. */
  memory(): number;
  stop(): Promise<void>;
}

/** Starts ours, with the whole stack on and nothing that flies. */
export async function startPortolan(env: Record<string, string> = {}): Promise<Server> {
  const folder = mkdtempSync(join(tmpdir(), "portolan-bench-"));
  const server = await start("gateway/main.ts", / on (https?:\S+)\n/, {
    PORTOLAN_DATA_DIR: folder,
    PORTOLAN_ADMIN_API_KEY: benchKey,
    PORTOLAN_SANDBOX: "off",
    PORTOLAN_LOG_LEVEL: "warn",
    ...env,
  });
  return {
    ...server,
    async stop() {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Starts one of `peers/`; it prints the URL that it serves. */
export const startPeer = (name: string): Promise<Server> =>
  start(`test/bench/peers/${name}.ts`, /(http:\S+)\n/, {});

async function start(program: string, ready: RegExp, env: Record<string, string>): Promise<Server> {
  const [command = "", ...args] = pinned(0, [process.execPath, program]);
  const began = performance.now();
  const child: ChildProcess = spawn(command, args, {
    cwd: root,
    env: { ...process.env, PORT: "0", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    let text = "";
    child.stdout?.on("data", (chunk) => {
      text += chunk;
      const [, found] = ready.exec(text) ?? [];
      if (found) resolve(found);
    });
    exited.then(() => reject(new Error(`${program} ended: ${text}`)));
  });
  const pid = child.pid as number;
  return {
    url,
    port: Number(new URL(url).port),
    startMs: performance.now() - began,
    cpu() {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
      // User and system time in ticks of 10 ms.
      return (Number(fields[11]) + Number(fields[12])) / 100;
    },
    memory() {
      const [, kib] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
      return Number(kib) * 1024;
    },
    async stop() {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
      await exited;
      clearTimeout(timer);
    },
  };
}
