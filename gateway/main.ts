import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import pino from "pino";
import { type Config, ConfigError, describeSettings, readConfig } from "#kernel/config.ts";
import { newSecret } from "#kernel/ids.ts";
import { adminKey, ensureKey, sandboxKey } from "#services/identity/index.ts";
import { banner } from "./banner.ts";
import { startSandbox } from "./sandbox/index.ts";
import { type Server, startServer } from "./server.ts";

if (process.argv.includes("--help") || process.argv.includes("-h")) {
  console.log(`Usage: npm start\n\n${describeSettings()}`);
} else {
  await main();
}

async function main(): Promise<void> {
  const config = settings();
  const log = pino({ level: config.logLevel }, pino.destination({ fd: 2, sync: true }));
  const server = await startServer(config, log).catch((error: NodeJS.ErrnoException) => {
    console.error(`Portolan cannot start: ${error.message}`);
    if (error.code === "EADDRINUSE") console.error(`Set PORT to a free port, or to 0 to take any.`);
    process.exit(1);
  });
  const secret = await adminSecret(config, server);
  const sandbox = config.sandbox ? await openSandbox(server, config) : undefined;
  console.log(
    banner({
      url: server.url,
      apiKey: secret,
      keyIsGiven: config.adminApiKey !== undefined,
      sandbox: sandbox !== undefined,
    }),
  );

  let stopping = false;
  const stop = async (signal: string) => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, "stopping");
    await sandbox?.stop();
    await server.stop();
    process.exit(0);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

function settings(): Config {
  try {
    return readConfig(process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    console.error(`${error.message}\n\n${describeSettings()}`);
    process.exit(2);
  }
}

/** The administrator's key: as set, as generated before, or generated now and kept in the data folder. */
async function adminSecret(config: Config, server: Server): Promise<string> {
  const file = join(config.dataDir, "admin-api-key");
  const secret = config.adminApiKey ?? readIfThere(file) ?? newSecret("sk_");
  await ensureKey(server.kernel, adminKey, secret);
  if (!config.adminApiKey) {
    mkdirSync(config.dataDir, { recursive: true });
    writeFileSync(file, `${secret}\n`, { mode: 0o600 });
  }
  return secret;
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return undefined;
  }
}

async function openSandbox(server: Server, config: Config) {
  const apiKey = newSecret("sk_");
  await ensureKey(server.kernel, sandboxKey, apiKey);
  const onError = (error: unknown) => server.kernel.log.debug({ err: error }, "sandbox");
  return startSandbox({
    baseUrl: server.url,
    apiKey,
    onError,
    ...(config.tls && { certificate: config.tls.cert }),
  });
}
