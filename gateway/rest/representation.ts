import type { JsonValue } from "@bufbuild/protobuf";
import {
  digestOf,
  hasTag,
  isSameForRange,
  isUnmodified,
  narrowed,
  quoted,
  type Range,
  rangeOf,
} from "./conditional.ts";
import type { Refusals } from "./errors.ts";
import type { Exchange } from "./exchange.ts";

/** The body of a unary response. */
export interface Representation {
  readonly status: number;
  readonly contentType: string;
  readonly data: Uint8Array;
  /** The body as a value, where it is JSON. */
  readonly json?: JsonValue;
  /** The tag of the resource it shows; that of the bytes if not given. */
  readonly etag?: string | undefined;
  /** Whether it shows more than that resource. */
  readonly hasOther?: boolean | undefined;
  /** What of it a tag is made of, where the bytes differ each time. */
  tagged?(): Uint8Array;
  /** Whether a part of it can be asked for. */
  readonly takesRanges?: boolean;
}

/**
 * Answers with a representation, or, as the conditions of a GET or HEAD request demand, with nothing or a
 * part of it. Throws a refusal for a range outside of it.
 */
export async function sendRepresentation(
  exchange: Exchange,
  refusals: Refusals,
  representation: Representation,
): Promise<void> {
  const { status, contentType, takesRanges = false } = representation;
  const { method, headers } = exchange.req;
  const isRead = status === 200 && exchange.isRead;
  // A range is one of the bytes as they are.
  const wantsPart = isRead && takesRanges && method === "GET" && headers.range !== undefined;
  const accepted = exchange.takesJson
    ? undefined
    : exchange.chooseCoding(contentType, representation.data.length);
  const coding = wantsPart ? undefined : accepted;

  let range: Range | undefined;
  if (isRead) {
    const plain = tagOf(exchange, representation);
    const tag = coding ? narrowed(plain, coding) : plain;
    exchange.setHeader("etag", tag);
    exchange.setDefaultHeader("cache-control", "private, no-cache");
    const lastModified = exchange.header("last-modified");
    if (isNotModified(exchange, tag, lastModified)) return exchange.sendEmpty(304);
    if (takesRanges) exchange.setHeader("accept-ranges", "bytes");
    if (wantsPart && isSameForRange(headers["if-range"]?.toString(), tag, lastModified)) {
      const { data } = representation;
      const asked = rangeOf(String(headers.range), data.length);
      if (asked === "none") {
        exchange.setHeader("content-range", `bytes */${data.length}`);
        const message = `the range lies outside of the ${data.length} bytes there are`;
        throw refusals.of("range-not-satisfiable", message);
      }
      range = asked;
    }
  }
  exchange.setDefaultHeader("cache-control", "no-store");

  if (exchange.takesJson && representation.json !== undefined) {
    return exchange.sendJson(status, representation.json, contentType);
  }
  const { data } = representation;
  if (range) {
    exchange.setHeader("content-range", `bytes ${range.first}-${range.last}/${data.length}`);
    return exchange.sendBytes(206, contentType, data.subarray(range.first, range.last + 1));
  }
  await exchange.sendCoded(status, contentType, data, coding);
}

/** The handler's own tag, else that of the resource, else that of the bytes. */
function tagOf(exchange: Exchange, representation: Representation): string {
  const { etag, hasOther, tagged } = representation;
  const own = exchange.header("etag");
  if (typeof own === "string") return quoted(own);
  if (etag !== undefined && !hasOther) return etag;
  const digest = digestOf(tagged ? tagged() : representation.data);
  if (etag !== undefined) return narrowed(etag, digest);
  return tagged ? `W/"${digest}"` : `"${digest}"`;
}

function isNotModified({ req }: Exchange, tag: string, lastModified: unknown): boolean {
  const noneMatch = req.headers["if-none-match"];
  if (noneMatch !== undefined) return hasTag(noneMatch, tag);
  const since = req.headers["if-modified-since"];
  return since !== undefined && isUnmodified(since, lastModified);
}
