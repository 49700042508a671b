import { parseArgs } from "node:util";
import { ImageError, readImage } from "./image.ts";
import { startMock } from "./server.ts";

const USAGE = `Usage: npm run mock -- --descriptors FILE [options]

Serves a compiled contract with example responses, as it is or for people who build clients.

  --descriptors FILE   a FileDescriptorSet, as \`buf build -o image.binpb\` writes it
  --echo               answer with the method and the request that was bound, over REST alone
  --port N             the port; 8080 if not given, 0 for any that is free
  --host NAME          the address to listen on; 127.0.0.1 if not given
  --messages N         how many messages a stream has; 3 if not given
  --interval MS        the time between two messages of a stream; 1000 if not given, 0 for none
  --help               this text
`;

/** A command line that cannot be understood. */
class UsageError extends Error {}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (error instanceof UsageError) fail(2, `${error.message}\n\n${USAGE}`);
  else if (error instanceof ImageError) fail(1, error.message);
  else fail(1, messageOf(error as NodeJS.ErrnoException));
}

async function main(args: readonly string[]): Promise<void> {
  const values = parse(args);
  if (values.help) {
    process.stdout.write(USAGE);
    return;
  }
  if (values.descriptors === undefined) throw new UsageError("--descriptors is missing");
  const image = await readImage(values.descriptors);
  const mock = await startMock({
    image,
    echo: values.echo,
    host: values.host,
    port: whole("port", values.port, 65_535),
    messages: whole("messages", values.messages, 1_000_000),
    intervalMs: whole("interval", values.interval, 2 ** 31 - 1),
  });
  const routes = mock.routes.map(({ httpMethod, template, method }) => {
    const stream = /^(server|bidi)_streaming$/.test(method.methodKind) ? "stream " : "";
    return [httpMethod, template, `${stream}${method.parent.typeName}.${method.name}`] as const;
  });
  const [first, second] = [0, 1].map((i) => Math.max(...routes.map((route) => (route[i] as string).length)));
  const lines = routes.map(
    ([kind, path, name]) => `${kind.padEnd(first ?? 0)} ${path.padEnd(second ?? 0)} ${name}`,
  );
  const others = values.echo ? "" : ", Connect and gRPC-Web";
  process.stdout.write(`${lines.join("\n")}\n\nREST${others} at ${mock.url}\n`);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void mock.close());
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        descriptors: { type: "string" },
        echo: { type: "boolean", default: false },
        port: { type: "string", default: "8080" },
        host: { type: "string", default: "127.0.0.1" },
        messages: { type: "string", default: "3" },
        interval: { type: "string", default: "1000" },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function whole(name: string, text: string, max: number): number {
  if (/^\d{1,10}$/.test(text) && Number(text) <= max) return Number(text);
  throw new UsageError(`--${name} must be a whole number up to ${max}, not "${text}"`);
}

function messageOf(error: NodeJS.ErrnoException): string {
  return error.code === "EADDRINUSE" ? "the port is taken: choose another with --port" : error.message;
}

function fail(code: number, message: string): void {
  process.stderr.write(`${message}\n`);
  process.exitCode = code;
}
