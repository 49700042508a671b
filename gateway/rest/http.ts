import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";

/** A request over HTTP/1.1 or HTTP/2. */
export type Request = IncomingMessage | Http2ServerRequest;
/** A response over HTTP/1.1 or HTTP/2. */
export type Response = ServerResponse | Http2ServerResponse;

/** What is read of a request beside its body, whether it came over a socket or not. */
export interface Incoming {
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly socket?: unknown;
  /** Lets go of what has not been read of the body. */
  resume(): unknown;
}

/** A request's raw path and raw query, without the question mark. */
export function splitTarget(target: string): { path: string; query: string } {
  const origin = /^https?:\/\/[^/?#]*/i.exec(target);
  const rest = origin ? target.slice(origin[0].length) : target;
  const hash = rest.indexOf("#");
  const bare = hash < 0 ? rest : rest.slice(0, hash);
  const mark = bare.indexOf("?");
  return mark < 0 ? { path: bare, query: "" } : { path: bare.slice(0, mark), query: bare.slice(mark + 1) };
}

/** The HTTP method asked for: `X-HTTP-Method-Override` counts on POST. */
export function methodOf(req: Incoming): string {
  const method = req.method ?? "GET";
  const override = method === "POST" ? req.headers["x-http-method-override"] : undefined;
  return typeof override === "string" && override !== "" ? override.toUpperCase() : method;
}

/** The absolute URL of a request. */
export function urlOf(req: Incoming, target: string): string {
  if (!target.startsWith("/")) return target;
  const secure = (req.socket as { encrypted?: boolean } | undefined)?.encrypted === true;
  const host = req.headers[":authority"] ?? req.headers.host ?? "localhost";
  return `${secure ? "https" : "http"}://${host}${target}`;
}

/** The headers of a request without the pseudo-headers of HTTP/2. */
export function plainHeaders(headers: IncomingHttpHeaders): Record<string, string> {
  const plain: Record<string, string> = {};
  for (const name of Object.keys(headers)) {
    const value = headers[name];
    if (value === undefined || name.startsWith(":")) continue;
    plain[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  return plain;
}

const GRPC_UNITS: Record<string, number> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

/** The longest that a timer can wait. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** The timeout in milliseconds that a client asks for, by any of three headers. */
export function timeoutOf(headers: IncomingHttpHeaders): number | undefined {
  const timeout = requestedTimeout(headers);
  return timeout === undefined ? undefined : Math.min(timeout, MAX_TIMEOUT_MS);
}

function requestedTimeout(headers: IncomingHttpHeaders): number | undefined {
  const milliseconds = number(headers["connect-timeout-ms"]);
  if (milliseconds !== undefined) return milliseconds;
  const seconds = number(headers["x-server-timeout"]);
  if (seconds !== undefined) return seconds * 1000;
  const grpc = /^(\d{1,8})([HMSmun])$/.exec(String(headers["grpc-timeout"] ?? ""));
  return grpc ? Number(grpc[1]) * (GRPC_UNITS[grpc[2] ?? ""] ?? 0) : undefined;
}

function number(value: string | string[] | undefined): number | undefined {
  return typeof value === "string" && /^\d{1,10}(\.\d+)?$/.test(value) ? Number(value) : undefined;
}

/** A media type without its parameters, in lower case, and its charset. */
export function mediaType(header: string): { type: string; charset: string | undefined } {
  const [type = "", ...parameters] = header.split(";");
  const charset = parameters.map((p) => /^\s*charset\s*=\s*"?([^"\s]+)"?\s*$/i.exec(p)?.[1]).find(Boolean);
  return { type: type.trim().toLowerCase(), charset: charset?.toLowerCase() };
}

/** The entries of a header such as `Accept`, best first; those of equal weight in the order given. */
export function preferences(header: string | undefined): { name: string; weight: number }[] {
  return (header ?? "")
    .split(",")
    .map((entry) => {
      const [name = "", ...parameters] = entry.split(";");
      const q = parameters.map((p) => /^\s*q\s*=\s*([\d.]+)\s*$/i.exec(p)?.[1]).find(Boolean);
      const weight = q === undefined ? 1 : Number(q);
      return { name: name.trim().toLowerCase(), weight: Number.isFinite(weight) ? weight : 0 };
    })
    .filter(({ name }) => name !== "")
    .sort((a, b) => b.weight - a.weight);
}
