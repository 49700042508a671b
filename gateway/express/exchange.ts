import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { constants, type ServerHttp2Stream } from "node:http2";
import type { Readable } from "node:stream";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Fields } from "./headers.ts";

/** A request and the answer to it, over either version of HTTP. */
export interface Exchange {
  readonly method: string;
  /** Path with the query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  /** The whole URL. */
  readonly url: string;
  /** The connection that other exchanges may share. */
  readonly connection: object;
  readonly remoteAddress: string;
  /** Whether the client has gone, so that nothing more can be sent. */
  readonly gone: boolean;
  /** Calls back when the client has gone, or the answer has been sent. */
  onClose(listener: () => void): void;
  /** Reads the body. To be called once. */
  receive(onChunk: (chunk: Uint8Array) => void, onEnd: () => void): void;
  /** Sends the head of the answer, and takes the fields over. */
  begin(status: number, fields: Fields, options?: { trailers: boolean }): void;
  /** Sends a piece; false asks to await `drained` before the next one. */
  write(bytes: Uint8Array): boolean;
  /** Resolves when there is room again, or the client has gone. */
  drained(): Promise<void>;
  /** Sends the last piece, and the trailers if they were announced. */
  end(bytes: Uint8Array | undefined, trailers?: Fields): void;
  /** Breaks off. */
  destroy(): void;
}

/** Why a signal was aborted whose client has gone. */
export const clientGone = () => new ConnectError("the client went away", Code.Canceled);

/** An exchange straight on an HTTP/2 stream, without the objects that make it look like HTTP/1.1. */
export class Http2Exchange implements Exchange {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly #stream: ServerHttp2Stream;

  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders) {
    this.#stream = stream;
    this.headers = headers;
    this.method = headers[":method"] as string;
    this.path = headers[":path"] as string;
  }

  get url(): string {
    const { ":scheme": scheme, ":authority": authority, host } = this.headers;
    return new URL(this.path, `${scheme}://${authority ?? host}`).href;
  }

  get connection(): object {
    return this.#stream.session ?? this.#stream;
  }

  get remoteAddress(): string {
    return this.#stream.session?.socket.remoteAddress ?? "";
  }

  get gone(): boolean {
    return this.#stream.destroyed || this.#stream.closed;
  }

  onClose(listener: () => void): void {
    this.#stream.on("close", listener);
  }

  receive(onChunk: (chunk: Uint8Array) => void, onEnd: () => void): void {
    read(this.#stream, onChunk, onEnd);
  }

  begin(status: number, fields: Fields, options?: { trailers: boolean }): void {
    fields[":status"] = String(status);
    this.#stream.respond(fields, options?.trailers ? waitForTrailers : undefined);
  }

  write(bytes: Uint8Array): boolean {
    return this.#stream.write(bytes);
  }

  drained(): Promise<void> {
    return untilDrained(this.#stream);
  }

  end(bytes: Uint8Array | undefined, trailers?: Fields): void {
    const stream = this.#stream;
    if (trailers) stream.on("wantTrailers", () => stream.sendTrailers(trailers));
    if (bytes) stream.end(bytes);
    else stream.end();
  }

  destroy(): void {
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }
}

const waitForTrailers = { waitForTrailers: true };

/** An exchange over HTTP/1.1. */
export class Http1Exchange implements Exchange {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.#request = request;
    this.#response = response;
  }

  get method(): string {
    return this.#request.method as string;
  }

  get path(): string {
    return this.#request.url as string;
  }

  get headers(): IncomingHttpHeaders {
    return this.#request.headers;
  }

  get url(): string {
    const scheme = "encrypted" in this.#request.socket ? "https" : "http";
    return new URL(this.path, `${scheme}://${this.headers.host}`).href;
  }

  get connection(): object {
    return this.#request.socket;
  }

  get remoteAddress(): string {
    return this.#request.socket.remoteAddress ?? "";
  }

  get gone(): boolean {
    return this.#response.destroyed;
  }

  onClose(listener: () => void): void {
    this.#response.on("close", listener);
  }

  receive(onChunk: (chunk: Uint8Array) => void, onEnd: () => void): void {
    read(this.#request, onChunk, onEnd);
  }

  begin(status: number, fields: Fields): void {
    this.#response.writeHead(status, fields);
  }

  write(bytes: Uint8Array): boolean {
    return this.#response.write(bytes);
  }

  drained(): Promise<void> {
    return untilDrained(this.#response);
  }

  end(bytes: Uint8Array | undefined): void {
    this.#response.end(bytes);
  }

  destroy(): void {
    this.#response.destroy();
  }
}

function read(body: Readable, onChunk: (chunk: Uint8Array) => void, onEnd: () => void): void {
  body.on("data", onChunk);
  // An empty body may have ended before anybody listened.
  if (body.readableEnded) onEnd();
  else body.on("end", onEnd);
}

function untilDrained(stream: ServerHttp2Stream | ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      stream.off("drain", done);
      stream.off("close", done);
      resolve();
    };
    stream.on("drain", done);
    stream.on("close", done);
    if (stream.destroyed) done();
  });
}
