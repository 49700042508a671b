import type { TraceContext } from "#kernel/call.ts";

/** Version 00 of W3C Trace Context; ids of zeros alone are not valid. */
const valid = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?$/;

/** The trace context that a request carries; undefined if there is none or it is malformed. */
export function readTraceContext(
  header: (name: string) => string | null | undefined,
): TraceContext | undefined {
  const traceparent = header("traceparent")?.trim();
  if (!traceparent || !valid.test(traceparent)) return undefined;
  // Version 00 has exactly these four fields; later ones may add some.
  if (traceparent.startsWith("00-") && traceparent.length !== 55) return undefined;
  const tracestate = header("tracestate");
  return { traceparent: traceparent.slice(0, 55), ...(tracestate && { tracestate }) };
}
