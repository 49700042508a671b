import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { ContextValues } from "@connectrpc/connect";
import type { Logger } from "pino";
import type { Endpoint } from "#kernel/endpoint.ts";
import type { ExpressCall, ExpressHooks } from "./call.ts";
import { type ConnectQuery, connectStream, parseQuery, serveUnary } from "./connect.ts";
import { type EnvelopedWire, serveEnveloped } from "./enveloped.ts";
import { type Exchange, Http1Exchange, Http2Exchange } from "./exchange.ts";
import { grpc } from "./grpc.ts";
import { grpcWeb, inBase64 } from "./grpc-web.ts";
import { type MethodPlan, planOf } from "./plan.ts";
import { createSilenceWatch } from "./silence.ts";

/** What the express lanes need. */
export interface ExpressLaneOptions extends ExpressHooks {
  readonly endpoints: readonly Endpoint[];
  readonly contextValues: (origin: Exchange) => ContextValues;
  readonly log: Logger;
  /** How long the body of a request may fall silent before its end, in milliseconds; 60 000 unless told. */
  readonly silentBodyMs?: number;
}

/** The express lanes. Each answers whether it took the request; if not, nothing has been read of it. */
export interface ExpressLane {
  /** Takes a request over HTTP/1.1. */
  request(request: IncomingMessage, response: ServerResponse): boolean;
  /** Takes a request over HTTP/2. */
  stream(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): boolean;
}

const defaultSilentBodyMs = 60_000;

/** How a content type is served. */
interface Route {
  /** Which kind of method it can call; both if not said. */
  readonly streams?: boolean;
  /** Over HTTP/2 alone. */
  readonly http2?: true;
  serve(call: ExpressCall): Promise<void>;
}

const enveloped = (wire: EnvelopedWire): Route => ({ serve: (call) => serveEnveloped(wire, call) });
const unary = (binary: boolean): Route => ({ streams: false, serve: (call) => serveUnary(binary, call) });

const routes: Record<string, Route> = {
  "application/grpc": { ...enveloped(grpc.proto), http2: true },
  "application/grpc+proto": { ...enveloped(grpc.proto), http2: true },
  "application/grpc+json": { ...enveloped(grpc.json), http2: true },
  "application/grpc-web": enveloped(grpcWeb.proto),
  "application/grpc-web+proto": enveloped(grpcWeb.proto),
  "application/grpc-web+json": enveloped(grpcWeb.json),
  "application/grpc-web-text": textRoute(),
  "application/grpc-web-text+proto": textRoute(),
  "application/connect+proto": { ...enveloped(connectStream.proto), streams: true },
  "application/connect+json": { ...enveloped(connectStream.json), streams: true },
  "application/proto": unary(true),
  "application/json": unary(false),
  "application/json; charset=utf-8": unary(false),
  "application/json;charset=utf-8": unary(false),
};

function textRoute(): Route {
  return { serve: (call) => serveEnveloped(grpcWeb.text, { ...call, exchange: inBase64(call.exchange) }) };
}

/**
 * gRPC, gRPC-Web and Connect, unary and server-streaming, straight on Node's streams. What they
 * do not speak they leave to the Connect lane, whose answers they give to the byte.
 */
export function createExpressLane(options: ExpressLaneOptions): ExpressLane {
  const { endpoints, contextValues, log, silentBodyMs = defaultSilentBodyMs } = options;
  const silence = createSilenceWatch(silentBodyMs);
  const plans = new Map<string, MethodPlan>();
  for (const endpoint of endpoints) {
    const plan = planOf(endpoint);
    if (plan) plans.set(`/${plan.method.parent.typeName}/${plan.method.name}`, plan);
  }

  function take(exchange: Exchange, plan: MethodPlan, serve: (call: ExpressCall) => Promise<void>): true {
    const values = contextValues(exchange);
    serve({ plan, exchange, values, silence, hooks: options }).catch((err: unknown) => {
      // A client that went away in mid-answer is no news.
      if (exchange.gone) return;
      log.warn({ err, method: plan.method.name }, "a response was not finished");
      exchange.destroy();
    });
    return true;
  }

  function offer(plan: MethodPlan, headers: IncomingHttpHeaders, method: string | undefined, path: string) {
    if (headers.expect !== undefined || !hasHost(headers)) return undefined;
    const type = headers["content-type"];
    if (method === "POST") {
      const route = type === undefined ? undefined : (routes[type] ?? routes[type.toLowerCase()]);
      return route && (route.streams === undefined || route.streams === plan.streams) ? route : undefined;
    }
    if (method !== "GET" || !plan.byGet || plan.streams || type !== undefined) return undefined;
    const query = parseQuery(path);
    return query && getRoute(query);
  }

  const planAt = (path: string): MethodPlan | undefined => {
    const end = path.indexOf("?");
    return plans.get(end < 0 ? path : path.slice(0, end));
  };

  return {
    request(request, response) {
      const path = request.url ?? "";
      const plan = planAt(path);
      const route = plan && offer(plan, request.headers, request.method, path);
      if (!route || route.http2) return false;
      return take(new Http1Exchange(request, response), plan, route.serve);
    },
    stream(stream, headers) {
      const path = headers[":path"] as string | undefined;
      const plan = path === undefined ? undefined : planAt(path);
      const route = plan && offer(plan, headers, headers[":method"] as string, path as string);
      if (!route) return false;
      return take(new Http2Exchange(stream, headers), plan, route.serve);
    },
  };
}

const getRoute = (query: ConnectQuery): Route => ({ serve: (call) => serveUnary(query.binary, call, query) });

const hosts = new Map<string, boolean>();
const hostsSize = 1000;

/** Whether the request has a URL; what has none is refused by the other lane. */
function hasHost({ ":authority": authority, host }: IncomingHttpHeaders): boolean {
  const name = authority ?? host;
  if (typeof name !== "string") return false;
  const found = hosts.get(name);
  if (found !== undefined) return found;
  const good = URL.canParse(`http://${name}`);
  if (hosts.size < hostsSize) hosts.set(name, good);
  return good;
}
