import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";
import { mediaType, preferences } from "./http.ts";

/** A content coding that responses can have. */
export type Coding = "br" | "gzip";

/** Below this size a response gains nothing from being compressed. */
const COMPRESS_FROM = 1024;

const gzipped = promisify(gzip);
const brotlied = promisify(brotliCompress);

/** Compresses. Brotli's quality 4 costs about what gzip does. */
export function compress(data: Uint8Array, coding: Coding): Promise<Buffer> {
  return coding === "gzip"
    ? gzipped(data)
    : brotlied(data, { params: { [constants.BROTLI_PARAM_QUALITY]: 4 } });
}

/** Whether a response of this type and size is compressed for clients that can take it. */
export function isCompressible(contentType: string, size: number): boolean {
  return size >= COMPRESS_FROM && COMPRESSIBLE.test(mediaType(contentType).type);
}

const COMPRESSIBLE =
  /^(?:text\/.*|application\/(?:json|xml|javascript|x-ndjson|yaml|wasm|.*\+json|.*\+xml)|image\/svg\+xml)$/;

/** The coding a client likes best; brotli before gzip before none where it likes them the same. */
export function chooseCoding(acceptEncoding: string | undefined): Coding | undefined {
  const accepted = new Map(preferences(acceptEncoding).map(({ name, weight }) => [name, weight]));
  const any = accepted.get("*") ?? 0;
  const br = accepted.get("br") ?? any;
  const gz = accepted.get("gzip") ?? accepted.get("x-gzip") ?? any;
  // What is not named is the last resort, unless the client refuses it.
  const identity = accepted.get("identity") ?? 0;
  const best = Math.max(br, gz);
  if (best === 0 || identity > best) return undefined;
  return br === best ? "br" : "gzip";
}
