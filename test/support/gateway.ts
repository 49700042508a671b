import { type ChildProcessByStdio, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import pino from "pino";
import type { Documents } from "#gateway/docs/serve.ts";
import type { Load } from "#gateway/gate/admission/load.ts";
import { startServer } from "#gateway/server.ts";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import type { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { readConfig } from "#kernel/config.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { adminKey as adminKeyName, ensureKey } from "#services/identity/index.ts";

/** The key that test servers give to their administrator. */
export const adminKey = "sk_test_administrator";

/** The folder of the repository. */
export const root = join(import.meta.dirname, "../..");

/** Where a server listens, however it runs. */
export interface TestAddress {
  readonly url: string;
  readonly port: number;
}

/** A server in this process. */
export interface TestServer extends TestAddress {
  readonly kernel: Kernel;
  readonly documents: Documents;
  readonly dataDir: string;
  /** A gRPC transport over a connection of its own, closed with the server. */
  grpc(key?: string): Transport;
  /** Makes an API key and gives its secret. */
  createKey(role: Role, tenantId?: string): Promise<string>;
  stop(): Promise<void>;
}

/** Starts a server in this process, on a free port and a folder of its own. */
export async function startTestServer(env: Record<string, string> = {}, load?: Load): Promise<TestServer> {
  const dataDir = mkdtempSync(join(tmpdir(), "portolan-"));
  const config = readConfig({
    PORT: "0",
    PORTOLAN_DATA_DIR: dataDir,
    PORTOLAN_LOG_LEVEL: "error",
    ...env,
  });
  const server = await startServer(config, pino({ level: config.logLevel }, pino.destination(2)), load);
  await ensureKey(server.kernel, adminKeyName, adminKey);
  const connections: Http2SessionManager[] = [];
  const grpc = (key: string = adminKey): Transport => {
    const sessionManager = new Http2SessionManager(server.url);
    connections.push(sessionManager);
    return grpcTransport(server.url, key, sessionManager);
  };
  return {
    url: server.url,
    port: Number(new URL(server.url).port),
    kernel: server.kernel,
    documents: server.documents,
    dataDir: config.dataDir,
    grpc,
    async createKey(role, tenantId = "") {
      const keys = createClient(ApiKeyService, grpc());
      return (await keys.createApiKey({ name: "test", role, tenantId, plan: "unlimited" })).secret;
    },
    async stop() {
      for (const connection of connections) connection.abort();
      await server.stop();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** Sends an API key with every call. */
export const withKey =
  (key: string): Interceptor =>
  (next) =>
  (request) => {
    request.header.set("x-api-key", key);
    return next(request);
  };

/** A gRPC transport, over the given connection or one of its own. */
export const grpcTransport = (
  baseUrl: string,
  key: string = adminKey,
  sessionManager?: Http2SessionManager,
): Transport =>
  createGrpcTransport({ baseUrl, interceptors: [withKey(key)], ...(sessionManager && { sessionManager }) });

/** A REST answer. */
export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests read what they expect
  readonly json: any;
}

/** Asks over REST, as the administrator. */
export function get({ port }: TestAddress, path: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = { "x-api-key": adminKey };
    const request = http.get({ port, host: "127.0.0.1", path, agent: false, headers }, (response) => {
      let text = "";
      response.on("data", (chunk) => {
        text += chunk;
      });
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, json: JSON.parse(text) }));
    });
    request.on("error", reject);
  });
}

/** How a process ended. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A running program. */
export interface Program {
  readonly child: ChildProcessByStdio<null, Readable, Readable>;
  readonly exited: Promise<Exit>;
  readonly stdout: () => string;
  readonly stderr: () => string;
}

/** Runs the program, as `npm start` does, with these settings and no others. */
export function runMain(env: Record<string, string> = {}, args: string[] = []): Program {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(PORTOLAN_|VITEST|NODE_OPTIONS$|PORT$|HOST$)/.test(name),
  );
  const child = spawn(process.execPath, ["gateway/main.ts", ...args], {
    cwd: root,
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
  });
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
  });
  const exited = new Promise<Exit>((resolve) => {
    child.once("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  return { child, exited, stdout: () => stdout, stderr: () => stderr };
}

/** A server in a process of its own. */
export interface SpawnedServer extends TestAddress, Omit<Program, "child"> {
  readonly pid: number;
  readonly dataDir: string;
  /** From the start of the process until it served, in milliseconds. */
  readonly startMs: number;
  /** Sends a signal and waits for the end of the process. */
  kill(signal?: NodeJS.Signals): Promise<Exit>;
}

/** Starts a server in a process of its own and waits until it serves. */
export async function spawnServer(env: Record<string, string> = {}): Promise<SpawnedServer> {
  const dataDir = env.PORTOLAN_DATA_DIR ?? mkdtempSync(join(tmpdir(), "portolan-"));
  const began = performance.now();
  const { child, exited, stdout, stderr } = runMain({
    PORT: "0",
    PORTOLAN_DATA_DIR: dataDir,
    PORTOLAN_SANDBOX: "off",
    PORTOLAN_LOG_LEVEL: "warn",
    PORTOLAN_ADMIN_API_KEY: adminKey,
    ...env,
  });
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.on("data", () => {
      const [, found] = /Portolan serves .* on (https?:\S+)\n/.exec(stdout()) ?? [];
      // The last line of the banner: all of it is there.
      if (found && stdout().includes("--help")) resolve(found);
    });
    void exited.then(({ code, signal }) =>
      reject(new Error(`the server ended at start with ${code ?? signal}: ${stderr()}`)),
    );
  });
  return {
    url,
    port: Number(new URL(url).port),
    pid: child.pid as number,
    dataDir,
    startMs: performance.now() - began,
    stdout,
    stderr,
    exited,
    kill(signal = "SIGKILL") {
      child.kill(signal);
      return exited;
    },
  };
}

/** Waits until a condition holds; the test's own timeout is the limit. */
export async function until<T>(look: () => T | Promise<T>): Promise<NonNullable<Awaited<T>>> {
  for (;;) {
    const found = await look();
    if (found) return found as NonNullable<Awaited<T>>;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
