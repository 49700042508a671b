import http from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { create, type DescMethod, type Message } from "@bufbuild/protobuf";
import type { ConnectRouter, HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import type { Request, Response } from "../http.ts";
import { createTranscoder, type RestEndpoint, type Transcoder } from "../index.ts";
import { echoEndpoints } from "./echo.ts";
import { exampleResponse } from "./examples.ts";
import type { Image } from "./image.ts";

/** How a mock answers, and where. */
export interface MockOptions {
  readonly image: Image;
  /** Whether it answers with the request that was bound; then over REST alone. */
  readonly echo?: boolean;
  /** 0, the default, takes any free port. */
  readonly port?: number;
  /** 127.0.0.1 if not given. */
  readonly host?: string;
  /** How many messages a stream has; 3 if not given. */
  readonly messages?: number;
  /** The time between two messages of a stream; 0, the default, for none. */
  readonly intervalMs?: number;
}

/** A running mock. */
export interface Mock {
  readonly url: string;
  readonly routes: Transcoder["routes"];
  close(): Promise<void>;
}

/**
 * Serves a contract with examples, over HTTP/1.1: REST by its annotations, and Connect and gRPC-Web for
 * every method. Rejects if its rules are not valid or the port is taken.
 */
export async function startMock(options: MockOptions): Promise<Mock> {
  const { image, echo = false, port = 0, host = "127.0.0.1" } = options;
  const transcoder = createTranscoder({
    registry: image.registry,
    ...(echo
      ? echoEndpoints(image)
      : { endpoints: image.methods.map((method) => endpoint(method, options)) }),
  });
  const rest = async (req: Request, res: Response) => {
    if (!(await transcoder.handle(req, res))) transcoder.notFound(req, res);
  };
  const routes = connectRoutes(options);
  const listener: http.RequestListener = echo
    ? rest
    : connectNodeAdapter({ routes, fallback: (req, res) => void rest(req as Request, res as Response) });
  const server = http.createServer((req, res) => {
    allowAnyOrigin(req, res);
    listener(req, res);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  const { port: taken } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${taken}`,
    routes: transcoder.routes,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

function endpoint(method: DescMethod, options: MockOptions): RestEndpoint {
  const isStreamOut = method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming";
  return {
    method,
    invoke: (input, { signal }) =>
      isStreamOut ? stream(method, input, options, signal) : reply(method, input),
  };
}

/** Every method over Connect and gRPC-Web, whether REST can reach it or not. */
function connectRoutes(options: MockOptions): (router: ConnectRouter) => void {
  return (router) => {
    for (const service of options.image.services) {
      const methods = service.methods.map((method) => {
        const { invoke } = endpoint(method, options);
        return [method.localName, (input: Message, context: HandlerContext) => invoke(input, context)];
      });
      router.service(service, Object.fromEntries(methods) as ServiceImpl<typeof service>);
    }
  };
}

async function reply(method: DescMethod, input: Message | AsyncIterable<Message>): Promise<Message> {
  return exampleResponse(await lastOf(method, input), method.input, method.output);
}

async function* stream(
  method: DescMethod,
  input: Message | AsyncIterable<Message>,
  { messages = 3, intervalMs = 0 }: MockOptions,
  signal: AbortSignal,
): AsyncGenerator<Message> {
  const request = await lastOf(method, input);
  for (let i = 0; i < messages; i++) {
    if (i > 0 && intervalMs > 0) await sleep(intervalMs, undefined, { signal });
    yield exampleResponse(request, method.input, method.output, i);
  }
}

/** The request, or the last of a stream of them. */
async function lastOf(
  { input: desc }: DescMethod,
  input: Message | AsyncIterable<Message>,
): Promise<Message> {
  if (!(Symbol.asyncIterator in input)) return input;
  let last: Message = create(desc);
  for await (const each of input) last = each;
  return last;
}

/** Web pages under development may call it. */
function allowAnyOrigin(req: http.IncomingMessage, res: http.ServerResponse): void {
  res.setHeader("access-control-allow-origin", "*");
  res.setHeader("access-control-expose-headers", "*");
  if (req.method !== "OPTIONS") return;
  res.setHeader("access-control-allow-methods", req.headers["access-control-request-method"] ?? "*");
  res.setHeader("access-control-allow-headers", req.headers["access-control-request-headers"] ?? "*");
}
