import type { Request } from "./connect/lane.ts";
import type { HeaderSink } from "./cors.ts";

/** Of an API answer nothing is ever to be loaded, run or framed. */
const contentSecurityPolicy = "default-src 'none'; frame-ancestors 'none'";

const nativeGrpc = /^application\/grpc(?!-web)/;

/** A year, in seconds. */
const transportSecurity = "max-age=31536000";

/**
 * Sets what browsers need to know of every answer. Whoever serves a page sets its own
 * `Content-Security-Policy` afterwards. No browser speaks gRPC itself, so that its answers do
 * without.
 */
export function setSecurityHeaders(
  request: Pick<Request, "headers">,
  response: HeaderSink,
  isTls: boolean,
): void {
  if (nativeGrpc.test(request.headers["content-type"] ?? "")) return;
  response.setHeader("x-content-type-options", "nosniff");
  response.setHeader("referrer-policy", "no-referrer");
  response.setHeader("content-security-policy", contentSecurityPolicy);
  if (isTls) response.setHeader("strict-transport-security", transportSecurity);
}
