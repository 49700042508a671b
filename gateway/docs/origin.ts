import type { JsonObject } from "@bufbuild/protobuf";
import type { Request } from "../connect/lane.ts";

const HOST = /^(?:[\w.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?$/i;

/** The origin that a client reached the server by; undefined if its Host header is none. */
export function originOf(request: Request): string | undefined {
  const host = request.headers[":authority"] ?? request.headers.host;
  if (typeof host !== "string" || !HOST.test(host)) return undefined;
  const { encrypted } = request.socket as { encrypted?: boolean };
  const secure = encrypted === true || request.headers["x-forwarded-proto"] === "https";
  return `${secure ? "https" : "http"}://${host}`;
}

/** Puts an origin into an OpenAPI document. */
export const openApiAt = (document: JsonObject, origin: string): JsonObject => ({
  ...document,
  servers: [{ url: origin }],
});

/** Puts an origin into an AsyncAPI document. */
export function asyncApiAt(document: JsonObject, origin: string): JsonObject {
  const { host, protocol } = new URL(origin);
  const servers = Object.entries(document.servers as Record<string, JsonObject>).map(([name, server]) => [
    name,
    { ...server, host, protocol: protocol.slice(0, -1) },
  ]);
  return { ...document, servers: Object.fromEntries(servers) };
}

/** Puts an origin into a Postman collection. */
export function postmanAt(document: JsonObject, origin: string): JsonObject {
  const variables = document.variable as JsonObject[];
  return {
    ...document,
    variable: variables.map((each) => (each.key === "baseUrl" ? { ...each, value: origin } : each)),
  };
}

const LOOPBACK_ADDRESS = /^(?:::ffff:)?127\.|^::1$/;
const LOOPBACK_HOST = /^https?:\/\/(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?$/i;
const PROXY_HEADERS = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/**
 * Whether a request comes from a page of ours on this very machine: over loopback, to a name of it (a
 * foreign name would be DNS rebinding), not through a proxy, and not from a page of another origin.
 */
export function isOwnPageHere(request: Request): boolean {
  const { headers } = request;
  const origin = originOf(request);
  const site = headers["sec-fetch-site"];
  return (
    LOOPBACK_ADDRESS.test(request.socket?.remoteAddress ?? "") &&
    origin !== undefined &&
    LOOPBACK_HOST.test(origin) &&
    PROXY_HEADERS.every((name) => headers[name] === undefined) &&
    (headers.origin === undefined || headers.origin === origin) &&
    (site === undefined || site === "same-origin" || site === "none")
  );
}
