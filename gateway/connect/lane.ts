import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { Code, type ConnectError, type ContextValues, createConnectRouter } from "@connectrpc/connect";
import { errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import {
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import type { Logger } from "pino";
import { RequestInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { callInfo } from "#kernel/call.ts";
import type { Endpoint } from "#kernel/endpoint.ts";
import { fail } from "#kernel/errors.ts";
import type { Registration } from "#kernel/kernel.ts";
import { requestIdOf } from "../call-context.ts";
import { type Observer, refusalOf } from "../observe/observer.ts";
import { explainErrors, type OnRefused } from "./explain.ts";

export type Request = IncomingMessage | Http2ServerRequest;
export type Response = ServerResponse | Http2ServerResponse;

/** Largest message that is read or written, in bytes. */
export const maxMessageBytes = 4 * 1024 * 1024;

/** What every lane of gRPC, gRPC-Web and Connect allows. */
export const wireOptions = {
  acceptCompression: [compressionGzip, compressionBrotli],
  readMaxBytes: maxMessageBytes,
  writeMaxBytes: maxMessageBytes,
  /** Shorter messages are not worth compressing, in bytes. */
  compressMinBytes: 1024,
  /** Longest deadline that a client may set, in milliseconds. */
  maxTimeoutMs: 24 * 60 * 60 * 1000,
  jsonOptions: { ignoreUnknownFields: false },
};

/** Services with their endpoints, and such that answer for themselves, past the gate. */
export interface ConnectLaneOptions {
  readonly endpoints: readonly Endpoint[];
  readonly ungated: readonly Registration[];
  readonly contextValues: (request: Request) => ContextValues;
  readonly observer: Observer;
  /** What to tell on requests that are no call, see `TranscoderOptions.stray`. */
  readonly stray: (request: Request) => Promise<{ headers: Headers; error?: ConnectError }>;
  readonly log: Logger;
}

/**
 * gRPC, gRPC-Web and Connect by the Connect library.
 * @returns a function that serves a request and tells whether it was one of these
 */
export function createConnectLane(options: ConnectLaneOptions) {
  const { endpoints, ungated, contextValues, observer, stray, log } = options;
  const byMethod = new Map(endpoints.map((endpoint) => [endpoint.method, endpoint]));
  const router = createConnectRouter({
    ...wireOptions,
    requestGate: (context) => byMethod.get(context.method)?.enter(context),
  });
  for (const { method, invoke } of endpoints) router.rpc(method, invoke as never);
  for (const { service, handlers } of ungated) router.service(service, handlers as never);
  const handlers = new Map(
    router.handlers.map((handler) => {
      const refused: OnRefused = (error, { header, contextValues: values }) =>
        observer.refuse({
          protocol: protocolOf(header.get("content-type")),
          method: handler.method,
          error,
          requestId: values?.get(callInfo).requestId ?? "",
          header: (name) => header.get(name) ?? undefined,
        });
      return [handler.requestPath, explainErrors(handler, refused)];
    }),
  );

  return function serve(request: Request, response: Response): boolean {
    const path = request.url?.split("?", 1)[0] ?? "";
    const handler = handlers.get(path);
    if (!handler) {
      const protocol = protocolOf(request.headers["content-type"]);
      return refuseUnknown(path, request, response, stray, (error) =>
        observer.refuse(refusalOf(request, protocol, error)),
      );
    }
    discardRest(request);
    const universal = universalRequestFromNodeRequest(request, response, undefined, contextValues(request));
    handler(universal)
      .then(async (answer) => {
        // Without headers it was refused before it became a call, for content type or HTTP method.
        const header = answer.header ?? (await stray(request)).headers;
        await universalResponseToNodeResponse({ ...answer, header }, response);
      })
      .catch((err) => {
        // A client that went away in mid-answer is no news.
        if (!response.destroyed && !request.destroyed) log.warn({ err, path }, "a response was not finished");
      });
    return true;
  };
}

/**
 * Reads and drops what an HTTP/2 client still sends after its answer, as Node does for HTTP/1.1.
 * Unread, it would use up the window, and neither side would ever close the stream.
 */
function discardRest(request: Request): void {
  if (!("stream" in request)) return;
  const { stream } = request;
  stream.once("finish", () => {
    if (stream.readableEnded || stream.destroyed) return;
    stream.removeAllListeners("data");
    stream.resume();
  });
}

/** The protocol of a request on the path of a method. */
export function protocolOf(contentType: string | null | undefined): string {
  const [, isGrpc, isWeb] = /^application\/(grpc)(-web)?/.exec(contentType ?? "") ?? [];
  return isGrpc ? (isWeb ? "grpc-web" : "grpc") : "connect";
}

/** Answers a call of a method that does not exist in the protocol's own form; false if it is no call. */
function refuseUnknown(
  path: string,
  request: Request,
  response: Response,
  stray: ConnectLaneOptions["stray"],
  onRefused: (error: ConnectError) => void,
): boolean {
  if (!/^\/[\w.]+\/\w+$/.test(path) || !path.includes(".")) return false;
  const type = request.headers["content-type"] ?? "";
  const isGrpc = type.startsWith("application/grpc");
  const isConnect = request.method === "POST" && /^application\/(json|proto|connect\+)/.test(type);
  if (!isGrpc && !isConnect) return false;
  request.resume();
  const requestId = requestIdOf(request);
  const unknown = fail("UNKNOWN_METHOD", { message: `There is no method ${path.slice(1)}` });
  const answer = ({ headers, error = unknown }: { headers: Headers; error?: ConnectError }) => {
    onRefused(error);
    error.details.push({ desc: RequestInfoSchema, value: { requestId } });
    const common = { ...Object.fromEntries(headers), "x-request-id": requestId };
    if (isGrpc) {
      const status = setTrailerStatus(new Headers(), error);
      const header = { ...common, "content-type": type, ...Object.fromEntries(status) };
      (response as ServerResponse).writeHead(200, header).end();
    } else {
      (response as ServerResponse)
        .writeHead(httpStatusOf(error), { ...common, "content-type": "application/json" })
        .end(errorToJsonBytes(error, undefined));
    }
  };
  void stray(request).then(answer);
  return true;
}

const httpStatusOf = ({ code }: ConnectError) =>
  code === Code.Unimplemented ? 404 : code === Code.ResourceExhausted ? 429 : 503;
