import type { JsonValue, Registry } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Coding, chooseCoding, compress, isCompressible } from "./compression.ts";
import type { Dialect } from "./dialect.ts";
import { httpStatusOf, retryAfter, statusJson } from "./errors.ts";
import type { Incoming } from "./http.ts";

/** What responses over HTTP/1.1 and HTTP/2, and such that go over no socket, have in common. */
export interface Sink {
  statusCode: number;
  readonly headersSent: boolean;
  readonly writableEnded: boolean;
  readonly destroyed: boolean;
  getHeader(name: string): unknown;
  setHeader(name: string, value: string | number | readonly string[]): unknown;
  flushHeaders(): void;
  write(chunk: string | Uint8Array): boolean;
  end(chunk?: string | Uint8Array): unknown;
  /** Takes a body of JSON as it is, where nobody needs its bytes. */
  endJson?(json: JsonValue): void;
  once(event: string, listener: () => void): unknown;
  off(event: string, listener: () => void): unknown;
  destroy(): unknown;
}

const CLIENT_GONE_STATUS = 499;

/** Headers that describe the bytes on the wire, which is not for handlers to say. */
const OWN_HEADERS = new Set([
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "keep-alive",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** One request and its response; writes the response, whatever the HTTP version. */
export class Exchange {
  readonly req: Incoming;
  /** The media type of JSON bodies. */
  jsonType = "application/json";
  /** The error that was answered, or that ended the stream. */
  error: ConnectError | undefined;
  readonly #sink: Sink;
  readonly #dialect: Dialect;
  readonly #registry: Registry | undefined;
  readonly #headOnly: boolean;
  readonly #gone = new AbortController();
  #brokenOff = false;

  constructor(req: Incoming, sink: Sink, dialect: Dialect, registry: Registry | undefined) {
    this.req = req;
    this.#sink = sink;
    this.#dialect = dialect;
    this.#registry = registry;
    this.#headOnly = req.method === "HEAD";
    sink.once("close", () => {
      if (!this.#sink.writableEnded)
        this.#gone.abort(new ConnectError("the client went away", Code.Canceled));
    });
  }

  /** The status that was answered; 499 if the client did not stay for it. */
  get status(): number {
    return this.#gone.signal.aborted && !this.#brokenOff ? CLIENT_GONE_STATUS : this.#sink.statusCode;
  }

  get headOnly(): boolean {
    return this.#headOnly;
  }

  /** Whether the client may keep the answer and ask for it under conditions. */
  get isRead(): boolean {
    return this.req.method === "GET" || this.#headOnly;
  }

  get headersSent(): boolean {
    return this.#sink.headersSent;
  }

  /** Whether nobody can be answered any more. */
  get isOver(): boolean {
    return this.#gone.signal.aborted || this.#sink.destroyed || this.#sink.writableEnded;
  }

  /** Aborted when the client goes away before the response was ended. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Whether a body of JSON is taken as a value, which has no coding. */
  get takesJson(): boolean {
    return this.#sink.endJson !== undefined;
  }

  /** Adds headers that a handler set. */
  addHeaders(headers: Headers): void {
    for (const [name, value] of headers) {
      if (!OWN_HEADERS.has(name) && name !== "set-cookie")
        this.#sink.setHeader(name, this.#joined(name, value));
    }
    const cookies = headers.getSetCookie();
    if (cookies.length > 0) this.#sink.setHeader("set-cookie", cookies);
  }

  /** The value beside those of the same header that stay true with it. */
  #joined(name: string, value: string): string {
    const there = name === "link" ? this.#sink.getHeader(name) : undefined;
    return there === undefined || there === value ? value : `${there}, ${value}`;
  }

  setHeader(name: string, value: string): void {
    this.#sink.setHeader(name, value);
  }

  /** Sets a header that nobody set before. */
  setDefaultHeader(name: string, value: string): void {
    if (this.#sink.getHeader(name) === undefined) this.#sink.setHeader(name, value);
  }

  /** A header of the response so far. */
  header(name: string): unknown {
    return this.#sink.getHeader(name);
  }

  /** Says that the response depends on a request header. */
  addVary(name: string): void {
    const there = String(this.#sink.getHeader("vary") ?? "");
    const names = there.toLowerCase().split(/\s*,\s*/);
    if (names.includes(name.toLowerCase()) || names.includes("*")) return;
    this.#sink.setHeader("vary", there === "" ? name : `${there}, ${name}`);
  }

  /** Answers without a body. */
  sendEmpty(status: number): void {
    this.#sink.statusCode = status;
    this.setDefaultHeader("cache-control", "no-store");
    this.#sink.end();
  }

  /** Answers with a body of bytes. */
  sendBytes(status: number, contentType: string, data: Uint8Array): void {
    this.#sink.statusCode = status;
    this.#sink.setHeader("content-type", contentType);
    this.#sink.setHeader("content-length", data.length);
    if (this.#headOnly) this.#sink.end();
    else this.#sink.end(data);
  }

  /** Answers with JSON that is not to be kept, compressed if it is large and the client can take it. */
  async sendJson(status: number, json: JsonValue, contentType = this.jsonType): Promise<void> {
    if (this.#sink.endJson) {
      this.#sink.statusCode = status;
      this.#sink.setHeader("content-type", contentType);
      this.setDefaultHeader("cache-control", "no-store");
      if (this.#headOnly) this.#sink.end();
      else this.#sink.endJson(json);
      return;
    }
    const data = Buffer.from(JSON.stringify(json));
    this.setDefaultHeader("cache-control", "no-store");
    await this.sendCoded(status, contentType, data, this.chooseCoding(contentType, data.length));
  }

  /** Answers with a body in a content coding. */
  async sendCoded(
    status: number,
    contentType: string,
    data: Uint8Array,
    coding: Coding | undefined,
  ): Promise<void> {
    if (!coding) return this.sendBytes(status, contentType, data);
    const compressed = await compress(data, coding);
    this.#sink.setHeader("content-encoding", coding);
    this.sendBytes(status, contentType, compressed);
  }

  /** The coding for a body, by what the client takes; says so in `Vary`. */
  chooseCoding(contentType: string, size: number): Coding | undefined {
    if (!isCompressible(contentType, size)) return undefined;
    this.addVary("Accept-Encoding");
    return chooseCoding(this.req.headers["accept-encoding"]?.toString());
  }

  /** Answers with an error. */
  async sendError(error: ConnectError): Promise<void> {
    this.error = error;
    if (this.isOver) return;
    const status = this.#statusOf(error);
    this.addHeaders(error.metadata);
    if (status === 401 && !this.#sink.getHeader("www-authenticate"))
      this.setHeader("www-authenticate", "Bearer");
    const retry = retryAfter(error);
    if (retry !== undefined) this.setHeader("retry-after", String(retry));
    this.setHeader("cache-control", "no-store");
    await this.sendJson(status, this.errorBody(error), error.metadata.get("content-type") ?? undefined);
  }

  #statusOf(error: ConnectError): number {
    return httpStatusOf(error, this.#dialect, this.req.headers["if-match"] !== undefined);
  }

  /** The id that the answer carries, or else the request. */
  get requestId(): string | undefined {
    const requestId = this.#sink.getHeader("x-request-id") ?? this.req.headers["x-request-id"];
    return typeof requestId === "string" ? requestId : undefined;
  }

  /** The body of an error in the dialect. */
  errorBody(error: ConnectError): JsonValue {
    if (!this.#dialect.errorBody) return statusJson(error, this.#registry);
    try {
      return this.#dialect.errorBody(error, {
        httpStatus: this.#statusOf(error),
        requestId: this.requestId,
      });
    } catch {
      // A dialect that fails must not leave the request unanswered.
      return statusJson(error, this.#registry);
    }
  }

  /** Sends the headers of a stream at once. */
  startStream(contentType: string): void {
    this.#sink.statusCode = 200;
    this.#sink.setHeader("content-type", contentType);
    this.#sink.setHeader("cache-control", "no-store");
    this.#sink.setHeader("x-accel-buffering", "no");
    this.#sink.flushHeaders();
  }

  /** Writes to a stream; the promise, if there is one, is for the client having taken what was written. */
  write(chunk: string | Uint8Array): Promise<void> | undefined {
    if (chunk.length === 0 || this.#sink.write(chunk) || this.isOver) return undefined;
    const sink = this.#sink;
    return new Promise((resolve) => {
      const done = () => {
        sink.off("drain", done);
        sink.off("close", done);
        resolve();
      };
      sink.once("drain", done);
      sink.once("close", done);
    });
  }

  end(chunk?: string): void {
    if (chunk) this.#sink.end(chunk);
    else this.#sink.end();
  }

  /** Breaks the response off, which is the only way to tell of an error in a stream of raw bytes. */
  breakOff(): void {
    this.#brokenOff = true;
    const { stream } = this.#sink as { stream?: { close(code: number): void } };
    const HTTP2_INTERNAL_ERROR = 2;
    if (stream) stream.close(HTTP2_INTERNAL_ERROR);
    else this.#sink.destroy();
  }
}
