import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import type { Request, Response } from "./connect/lane.ts";

/** How long a browser may remember the answer to a preflight, in seconds; Chromium's own limit. */
const maxAgeSeconds = 7200;

/** Request headers that some protocol of ours reads. */
const requestHeaders = [
  "accept",
  "accept-language",
  "api-version",
  "authorization",
  "cache-control",
  "connect-accept-encoding",
  "connect-content-encoding",
  "connect-protocol-version",
  "connect-timeout-ms",
  "content-encoding",
  "content-type",
  "grpc-accept-encoding",
  "grpc-encoding",
  "grpc-timeout",
  "idempotency-key",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "last-event-id",
  "range",
  "traceparent",
  "tracestate",
  "x-api-key",
  "x-api-version",
  "x-grpc-web",
  "x-http-method-override",
  "x-request-id",
  "x-server-timeout",
  "x-user-agent",
];

/** Response headers that a page may read, beside those that it always may. */
const responseHeaders = [
  "api-version",
  "connect-content-encoding",
  "content-encoding",
  "content-range",
  "deprecation",
  "etag",
  "grpc-encoding",
  "grpc-message",
  "grpc-status",
  "grpc-status-details-bin",
  "idempotency-replayed",
  "link",
  "location",
  "retry-after",
  "sunset",
  "traceresponse",
  "warning",
  "www-authenticate",
  "x-api-version",
  "x-ratelimit-limit",
  "x-ratelimit-remaining",
  "x-ratelimit-reset",
  "x-ratelimit-window",
  "x-request-id",
  "x-total-count",
];

/** Where headers of an answer are set. */
export interface HeaderSink {
  setHeader(name: string, value: string): unknown;
}

/** The headers that are set, with names in lower case. */
export function collectHeaders(set: (sink: HeaderSink) => void): Record<string, string> {
  const fields: Record<string, string> = {};
  set({
    setHeader(name, value) {
      fields[name] = value;
    },
  });
  return fields;
}

/** What a server lets pages of other origins do. */
export interface CorsOptions {
  /** Origins, or `*` alone; none turns it off. */
  readonly origins: readonly string[];
  /** The methods that are called by their name in the path. */
  readonly methods: Iterable<DescMethod>;
  /** The HTTP methods of any other path; undefined if there is nothing. */
  allow(path: string): readonly string[] | undefined;
}

/**
 * Tells browsers which pages may call: adds the headers of the Fetch standard to an answer, and
 * answers OPTIONS of every known path, for all protocols alike. Credentials that a browser would
 * add by itself are never allowed: keys and tokens stand in headers that a page sets.
 * @returns a function that tells whether it has answered
 */
export function createCors({ origins, methods, allow }: CorsOptions) {
  const known = new Set(origins);
  const any = known.has("*");
  const exposed = responseHeaders.join(", ");
  const accepted = requestHeaders.join(", ");
  const calls = new Map<string, readonly string[]>();
  for (const method of methods) calls.set(`/${method.parent.typeName}/${method.name}`, callMethods(method));

  /** Adds the headers that every answer carries; tells whether the page may call. */
  function mark({ headers }: Pick<Request, "headers">, response: HeaderSink): boolean {
    const { origin } = headers;
    const isAllowed = origin !== undefined && (any || known.has(origin));
    if (known.size > 0 && !any) response.setHeader("vary", "Origin");
    if (isAllowed) {
      response.setHeader("access-control-allow-origin", any ? "*" : origin);
      response.setHeader("access-control-expose-headers", exposed);
    }
    return isAllowed;
  }

  function answer(path: string, request: Request, response: Response): boolean {
    const isAllowed = mark(request, response);
    if (request.method !== "OPTIONS") return false;
    const httpMethods = calls.get(path) ?? allow(path);
    if (!httpMethods) return false;
    response.setHeader("allow", httpMethods.join(", "));
    if (isAllowed && request.headers["access-control-request-method"]) {
      response.setHeader("access-control-allow-methods", httpMethods.join(", "));
      response.setHeader("access-control-allow-headers", accepted);
      response.setHeader("access-control-max-age", String(maxAgeSeconds));
    }
    response.statusCode = 204;
    request.resume();
    response.end();
    return true;
  }

  return Object.assign(answer, { mark });
}

/** Connect takes calls without side effects by GET as well. */
const callMethods = ({ idempotency, methodKind }: DescMethod): readonly string[] =>
  idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS && methodKind === "unary"
    ? ["GET", "OPTIONS", "POST"]
    : ["OPTIONS", "POST"];
