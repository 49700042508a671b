import type { Readable } from "node:stream";
import { createBrotliDecompress, createGunzip, createInflate } from "node:zlib";
import type { JsonValue } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Refusals } from "./errors.ts";
import { type Form, parseForm } from "./form.ts";
import { mediaType, type Request } from "./http.ts";

const MAX_DEPTH = 100;

/** Where a call reads the body of its request. */
export type Body = Pick<
  BodyReader,
  "contentType" | "bytes" | "chunks" | "form" | "isForm" | "json" | "lines" | "isLines"
>;

/** Reads request bodies: the coding undone, the size limited, the JSON strict. */
export class BodyReader {
  readonly #req: Request;
  readonly #maxBytes: number;
  readonly #refusals: Refusals;

  constructor(req: Request, maxBytes: number, refusals: Refusals) {
    this.#req = req;
    this.#maxBytes = maxBytes;
    this.#refusals = refusals;
  }

  /** The content type as the client sent it. */
  get contentType(): string {
    return this.#req.headers["content-type"] ?? "";
  }

  /** The whole body. */
  async bytes(): Promise<Buffer> {
    const { headers } = this.#req;
    if (!isEncoded(this.#req) && Number(headers["content-length"] ?? 0) > this.#maxBytes)
      throw this.#tooLarge();
    const stream = this.#decoded();
    return new Promise<Buffer>((resolve, reject) => {
      const chunks: Buffer[] = [];
      let size = 0;
      stream.on("data", (chunk: Buffer) => {
        size += chunk.length;
        if (size > this.#maxBytes) {
          reject(this.#tooLarge());
          this.#drain(stream);
        } else chunks.push(chunk);
      });
      stream.on("end", () => {
        if (this.#req.aborted) reject(canceled());
        else resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks));
      });
      stream.on("error", (error) => reject(this.#readError(error)));
      this.#onCut(() => reject(canceled()));
    });
  }

  /** The body as it arrives, in chunks of any size; the whole may be larger than the limit. */
  async *chunks(): AsyncGenerator<Buffer> {
    const stream = this.#decoded();
    try {
      // The request must outlive an early end of the iteration, to be answered.
      for await (const chunk of stream.iterator({ destroyOnReturn: false })) yield chunk as Buffer;
      if (this.#req.aborted) throw canceled();
    } catch (error) {
      throw this.#readError(error);
    } finally {
      this.#drain(stream);
    }
  }

  /** The whole body as JSON; undefined if it is empty. */
  async json(): Promise<JsonValue | undefined> {
    requireJson(this.contentType, this.#refusals);
    const bytes = await this.bytes();
    return bytes.length === 0 ? undefined : this.parse(bytes, "the body");
  }

  /** The JSON of each line that is not blank, as it arrives. */
  async *lines(): AsyncGenerator<JsonValue> {
    let pending: Buffer[] = [];
    let size = 0;
    let number = 0;
    const take = (tail: Buffer): JsonValue | undefined => {
      number++;
      const line = pending.length > 0 ? Buffer.concat([...pending, tail]) : tail;
      pending = [];
      size = 0;
      if (line.length > this.#maxBytes) throw this.#tooLarge();
      return isBlank(line) ? undefined : this.parse(line, `line ${number}`);
    };
    for await (const chunk of this.chunks()) {
      let from = 0;
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
        const json = take(chunk.subarray(from, at));
        from = at + 1;
        if (json !== undefined) yield json;
      }
      const rest = chunk.subarray(from);
      size += rest.length;
      if (size > this.#maxBytes) throw this.#tooLarge();
      if (rest.length > 0) pending.push(rest);
    }
    const json = take(Buffer.alloc(0));
    if (json !== undefined) yield json;
  }

  /** Whether the body is a form that can hold files. */
  isForm(): boolean {
    return mediaType(this.contentType).type === "multipart/form-data";
  }

  /** The whole body as a form. */
  async form(): Promise<Form> {
    const form = await parseForm(await this.bytes(), this.contentType);
    if (form) return form;
    throw this.#refusals.of("malformed", "the body is not a valid multipart/form-data form");
  }

  /** Whether a stream of messages comes as lines of JSON rather than as one JSON document. */
  isLines(): boolean {
    const { type, charset } = mediaType(this.contentType);
    if (!["", "application/x-ndjson", "application/ndjson", "application/jsonl"].includes(type)) return false;
    requireUtf8(charset, this.#refusals);
    return true;
  }

  /** Parses one JSON document. */
  parse(bytes: Uint8Array, what: string): JsonValue {
    const refuse = (kind: "malformed" | "bad-encoding", description: string) =>
      this.#refusals.of(kind, `${what} ${description}`, [{ field: "", description }]);
    let text: string;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      throw refuse("bad-encoding", "is not UTF-8");
    }
    if (isDeeperThan(bytes, MAX_DEPTH)) {
      throw refuse("malformed", `is nested deeper than ${MAX_DEPTH} levels`);
    }
    try {
      return JSON.parse(text) as JsonValue;
    } catch {
      throw refuse("malformed", "is not valid JSON");
    }
  }

  #decoded(): Readable {
    const req = this.#req as Readable;
    if (!isEncoded(this.#req)) return req;
    const coding = String(this.#req.headers["content-encoding"]).trim().toLowerCase();
    const decoder =
      coding === "gzip" || coding === "x-gzip"
        ? createGunzip()
        : coding === "br"
          ? createBrotliDecompress()
          : coding === "deflate"
            ? createInflate()
            : undefined;
    if (!decoder)
      throw this.#unsupported(`${coding} is not a known content encoding; use gzip, br or deflate`);
    req.on("error", (error) => decoder.destroy(error));
    this.#onCut(() => decoder.destroy(canceled()));
    return req.pipe(decoder);
  }

  /** Calls back if the client goes away before the end of the body. */
  #onCut(listener: () => void): void {
    const req = this.#req;
    req.on("close", () => {
      if (!req.readableEnded) listener();
    });
    if (req.destroyed && !req.readableEnded) listener();
  }

  #drain(stream: Readable): void {
    const req = this.#req as Readable;
    if (stream !== req) {
      req.unpipe();
      stream.destroy();
    }
    req.resume();
  }

  #readError(error: unknown): ConnectError {
    if (error instanceof ConnectError) return error;
    const code = (error as { code?: string }).code ?? "";
    return /^(Z_|ERR__?ZLIB|ERR_BROTLI|ERR__ERROR)/.test(code)
      ? this.#refusals.of("bad-encoding", "the body cannot be decoded by its content encoding")
      : canceled();
  }

  #tooLarge(): ConnectError {
    return this.#refusals.of("too-large", `a body can have ${this.#maxBytes} bytes at most`);
  }

  #unsupported(message: string): ConnectError {
    return this.#refusals.of("unsupported-media-type", message);
  }
}

/** Refuses a content type that is not JSON; none at all counts as JSON. */
export function requireJson(contentType: string, refusals: Refusals): void {
  const { type, charset } = mediaType(contentType);
  if (type !== "" && type !== "application/json" && !/^application\/[^/]+\+json$/.test(type)) {
    const message = `${type} is not a content type of this method; use application/json`;
    throw refusals.of("unsupported-media-type", message);
  }
  requireUtf8(charset, refusals);
}

function requireUtf8(charset: string | undefined, refusals: Refusals): void {
  if (charset && charset !== "utf-8" && charset !== "utf8" && charset !== "us-ascii") {
    throw refusals.of("unsupported-media-type", `JSON is UTF-8, not ${charset}`);
  }
}

function canceled(): ConnectError {
  return new ConnectError("the client went away", Code.Canceled);
}

function isEncoded(req: Request): boolean {
  const coding = req.headers["content-encoding"];
  return coding !== undefined && coding !== "" && coding !== "identity";
}

function isBlank(line: Buffer): boolean {
  return line.every((byte) => byte === 32 || byte === 9 || byte === 13);
}

/** Counts brackets outside of strings, so that a deep document is refused before anything recurses. */
function isDeeperThan(bytes: Uint8Array, limit: number): boolean {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (inString) {
      if (byte === 0x5c) i++;
      else if (byte === 0x22) inString = false;
    } else if (byte === 0x22) inString = true;
    else if (byte === 0x7b || byte === 0x5b) {
      if (++depth > limit) return true;
    } else if (byte === 0x7d || byte === 0x5d) depth--;
  }
  return false;
}
