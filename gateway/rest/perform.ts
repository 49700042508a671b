import type { IncomingHttpHeaders } from "node:http";
import type { DescMethod, JsonValue } from "@bufbuild/protobuf";
import {
  type ConnectError,
  type ContextValues,
  createContextValues,
  type HandlerContext,
} from "@connectrpc/connect";
import { type Body, requireJson } from "./body.ts";
import type { Refusals } from "./errors.ts";
import type { Sink } from "./exchange.ts";
import type { Incoming } from "./http.ts";

/** A request that comes over no socket. */
export interface Operation {
  /** Upper case. */
  readonly method: string;
  /** Path with its query, percent-encoded. */
  readonly path: string;
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: JsonValue | undefined;
}

/** How an operation is served. */
export interface Performing {
  readonly contextValues?: ContextValues;
  /** Ends the call, as the client's going away does. */
  readonly signal?: AbortSignal;
  /** Time that the call has, in milliseconds. */
  readonly timeoutMs?: number | undefined;
  /** Headers of the answer to begin with, names in lower case. */
  readonly responseHeaders?: Readonly<Record<string, string>>;
  /** Gives an error to answer instead of calling the method. Server streams are always refused. */
  refuse?(method: DescMethod): ConnectError | undefined;
}

/** The answer to an operation. */
export interface Outcome {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** JSON as a value; undefined if there is none, or it is not JSON. */
  readonly json?: JsonValue | undefined;
  /** A body that is not JSON. */
  readonly bytes?: Uint8Array | undefined;
}

/** What the transcoder reads of an operation. */
export function requestOf(
  { method, path, headers, body }: Operation,
  refusals: Refusals,
): { req: Incoming; body: Body } {
  const incoming: IncomingHttpHeaders = { ...headers };
  return {
    req: { method, url: path, headers: incoming, resume() {} },
    body: new GivenBody(incoming["content-type"] ?? "application/json", body, refusals),
  };
}

/**
 * The context of a call within another. It ends with that one, and so does without the controllers and
 * timers of a call that came by itself, which cost as much as a small call.
 */
export function innerContext(
  init: Pick<HandlerContext, "service" | "method" | "protocolName" | "requestMethod" | "url"> & {
    readonly requestHeader: Record<string, string>;
    readonly requestSignal: AbortSignal;
    readonly contextValues?: ContextValues;
  },
): HandlerContext & { abort(): void } {
  const { service, method, protocolName, requestMethod, url, requestSignal: signal } = init;
  return {
    ...{ service, method, protocolName, requestMethod, url, signal },
    timeoutMs: () => undefined,
    requestHeader: new Headers(init.requestHeader),
    responseHeader: new Headers(),
    responseTrailer: new Headers(),
    values: init.contextValues ?? createContextValues(),
    abort() {},
  };
}

/** A body that is there already, as JSON. */
class GivenBody implements Body {
  readonly contentType: string;
  readonly #json: JsonValue | undefined;
  readonly #refusals: Refusals;

  constructor(contentType: string, json: JsonValue | undefined, refusals: Refusals) {
    this.contentType = contentType;
    this.#json = json;
    this.#refusals = refusals;
  }

  async json(): Promise<JsonValue | undefined> {
    requireJson(this.contentType, this.#refusals);
    return this.#json;
  }

  async bytes(): Promise<Buffer> {
    return Buffer.from(this.#json === undefined ? "" : JSON.stringify(this.#json));
  }

  async *chunks(): AsyncGenerator<Buffer> {
    yield await this.bytes();
  }

  async *lines(): AsyncGenerator<JsonValue> {
    if (this.#json !== undefined) yield this.#json;
  }

  isForm(): boolean {
    return false;
  }

  async form(): Promise<never> {
    throw this.#refusals.of("unsupported-media-type", "a form needs a connection of its own");
  }

  /** A request stream comes as one array of its messages. */
  isLines(): boolean {
    return false;
  }
}

/** Keeps an answer; JSON stays a value. */
export class OutcomeSink implements Sink {
  statusCode = 200;
  readonly #headers = new Map<string, string>();
  #json: JsonValue | undefined;
  #bytes: Uint8Array | undefined;
  #ended = false;

  constructor(headers: Readonly<Record<string, string>> = {}) {
    for (const name of Object.keys(headers)) this.#headers.set(name, headers[name] as string);
  }

  get headersSent(): boolean {
    return this.#ended;
  }

  get writableEnded(): boolean {
    return this.#ended;
  }

  get destroyed(): boolean {
    return false;
  }

  getHeader(name: string): string | undefined {
    return this.#headers.get(name.toLowerCase());
  }

  setHeader(name: string, value: string | number | readonly string[]): void {
    this.#headers.set(name.toLowerCase(), Array.isArray(value) ? value.join(", ") : String(value));
  }

  flushHeaders(): void {}

  write(): boolean {
    return true;
  }

  end(chunk?: string | Uint8Array): void {
    if (chunk !== undefined) this.#bytes = Buffer.from(chunk as Uint8Array);
    this.#ended = true;
  }

  endJson(json: JsonValue): void {
    this.#json = json;
    this.#ended = true;
  }

  once(): void {}

  off(): void {}

  destroy(): void {}

  outcome(): Outcome {
    return {
      status: this.statusCode,
      headers: Object.fromEntries(this.#headers),
      json: this.#json,
      bytes: this.#bytes,
    };
  }
}
