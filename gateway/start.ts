import { type Config, ConfigError, describeSettings, readConfig } from "#kernel/config.ts";
import { newSecret } from "#kernel/ids.ts";
import { ensureKey, sandboxKey } from "#services/identity/index.ts";
import { banner } from "./banner.ts";
import { createLog } from "./observe/log.ts";
import { startSandbox } from "./sandbox/index.ts";
import { openPlayground } from "./sandbox/playground.ts";
import { type Server, startServer } from "./server.ts";

if (process.argv.includes("--help") || process.argv.includes("-h")) {
  console.log(`Usage: npm start\n\n${describeSettings()}`);
} else {
  await main();
}

async function main(): Promise<void> {
  const config = settings();
  const log = createLog(config.logLevel);
  const server = await startServer(config, log).catch((error: NodeJS.ErrnoException) => {
    console.error(`Portolan cannot start: ${error.message}`);
    if (error.code === "EADDRINUSE") console.error(`Set PORT to a free port, or to 0 to take any.`);
    process.exit(1);
  });
  const sandbox = config.sandbox ? await openSandbox(server, config) : undefined;
  console.log(
    banner({
      url: server.url,
      apiKey: config.adminApiKey ? undefined : server.adminKey,
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

async function openSandbox(server: Server, config: Config) {
  const apiKey = newSecret("sk_");
  await ensureKey(server.kernel, sandboxKey, apiKey);
  const onError = (error: unknown) => server.kernel.log.debug({ err: error }, "sandbox");
  const options = {
    baseUrl: server.url,
    onError,
    ...(config.tls && { certificate: config.tls.cert }),
  };
  const fleet = startSandbox({ ...options, apiKey });
  const playground = await openPlayground(server.kernel, options);
  server.documents.offerKey(playground);
  return { stop: () => Promise.all([fleet.stop(), playground.stop()]) };
}
