import type { DescField, DescMessage, Message } from "@bufbuild/protobuf";
import type { ConnectError, HandlerContext } from "@connectrpc/connect";
import { toConnectError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { isHttpBody } from "./fields.ts";
import { preferences } from "./http.ts";
import type { Spelling } from "./spelling.ts";

/** How the messages of a stream are laid out in a response body. */
interface Format {
  readonly contentType: string;
  readonly open: string;
  message(json: string, id: string | undefined, isFirst: boolean): string;
  error(json: string, isFirst: boolean): string;
  readonly close: string;
  /** What means nothing, for a stream that is silent. */
  readonly keepAlive?: string;
}

const EVENTS: Format = {
  contentType: "text/event-stream",
  // Some proxies hold the headers back until the first byte of the body.
  open: ":\n\n",
  message: (json, id) => (id === undefined ? `data: ${json}\n\n` : `id: ${id}\ndata: ${json}\n\n`),
  error: (json) => `event: error\ndata: ${json}\n\n`,
  close: "event: end\ndata: {}\n\n",
  keepAlive: ":\n\n",
};

const LINES: Format = {
  contentType: "application/x-ndjson",
  open: "",
  message: (json) => `${json}\n`,
  error: (json) => `{"error":${json}}\n`,
  close: "",
};

const ARRAY: Format = {
  contentType: "application/json",
  open: "[",
  message: (json, _id, isFirst) => (isFirst ? json : `,\n${json}`),
  error: (json, isFirst) => `${isFirst ? "" : ",\n"}{"error":${json}}]\n`,
  close: "]\n",
};

/** The content types that a stream can be had in; the first is the default, the last is one array. */
export const streamContentTypes: readonly string[] = [LINES, EVENTS, ARRAY].map((f) => f.contentType);

const FORMATS = new Map<string, Format>([
  ["text/event-stream", EVENTS],
  ["application/x-ndjson", LINES],
  ["application/ndjson", LINES],
  ["application/jsonl", LINES],
  ["application/json", ARRAY],
  ["*/*", LINES],
  ["application/*", LINES],
  ["text/*", EVENTS],
]);

/** The format a client accepts best; lines of JSON if it accepts none of them. */
export function chooseFormat(accept: string | undefined): Format {
  for (const { name, weight } of preferences(accept)) {
    const format = weight > 0 ? FORMATS.get(name) : undefined;
    if (format) return format;
  }
  return LINES;
}

/** How long the first message may take before the headers are sent without it. */
const HEADERS_AFTER_MS = 2_000;

interface Streaming {
  readonly exchange: Exchange;
  readonly context: HandlerContext;
  readonly messages: AsyncIterable<Message>;
  readonly output: DescMessage;
  readonly responseBody: DescField | undefined;
  readonly spelling: Spelling;
  /** How long a stream may be silent, where its format has words for that; 0 for any time. */
  readonly keepAliveMs: number;
}

/**
 * Answers with a stream of messages, pulling each one only after the client took the one before. An
 * error before the first message is an HTTP error; one after it ends the stream in the format's own way.
 */
export async function sendStream(streaming: Streaming): Promise<void> {
  const { exchange, context, messages } = streaming;
  const source = new AbortableIterator(messages, context.signal);
  const layout = isHttpBody(streaming.responseBody?.message ?? streaming.output)
    ? new RawLayout(streaming)
    : new JsonLayout(streaming);
  const timer = layout.canStartEarly ? setTimeout(() => layout.start(), HEADERS_AFTER_MS) : undefined;
  try {
    let next = await source.next().finally(() => clearTimeout(timer));
    if (!exchange.headersSent) layout.start(next.done ? undefined : next.value);
    for (; !next.done && !exchange.headOnly; next = await source.next()) {
      const drained = layout.message(next.value);
      if (drained) await drained;
      if (exchange.isOver) break;
    }
    source.stop();
    if (!exchange.isOver) layout.close();
  } catch (reason) {
    source.stop();
    const error = toConnectError(reason);
    exchange.error = error;
    if (exchange.isOver) return;
    if (exchange.headersSent) layout.error(error);
    else {
      exchange.addHeaders(context.responseHeader);
      await exchange.sendError(error);
    }
  } finally {
    layout.stop();
  }
}

class JsonLayout {
  readonly canStartEarly = true;
  readonly #format: Format;
  readonly #streaming: Streaming;
  readonly #hasSequence: boolean;
  #sent = 0;
  #keepAlive: NodeJS.Timeout | undefined;
  #isSilent = true;

  constructor(streaming: Streaming) {
    this.#streaming = streaming;
    this.#format = chooseFormat(streaming.exchange.req.headers.accept);
    this.#hasSequence = streaming.output.field.sequence?.fieldKind === "scalar";
  }

  start(): void {
    const { exchange, context, keepAliveMs } = this.#streaming;
    exchange.addHeaders(context.responseHeader);
    exchange.addVary("Accept");
    exchange.startStream(this.#format.contentType);
    if (exchange.headOnly) return;
    exchange.write(this.#format.open);
    const { keepAlive } = this.#format;
    if (keepAlive && keepAliveMs > 0) {
      this.#keepAlive = setInterval(() => {
        if (this.#isSilent && !exchange.isOver) exchange.write(keepAlive);
        this.#isSilent = true;
      }, keepAliveMs).unref();
    }
  }

  stop(): void {
    clearInterval(this.#keepAlive);
  }

  message(message: Message): Promise<void> | undefined {
    const { exchange, spelling, output, responseBody } = this.#streaming;
    const json = spelling.text(output, message, responseBody);
    const isFirst = this.#sent++ === 0;
    this.#isSilent = false;
    return exchange.write(this.#format.message(json, this.#id(message), isFirst));
  }

  /** A message without a sequence has no id, so that a client resumes from the one before it. */
  #id(message: Message): string | undefined {
    if (!this.#hasSequence) return String(this.#sent);
    const { sequence } = message as Message & { sequence?: bigint | number | string };
    return sequence ? String(sequence) : undefined;
  }

  close(): void {
    const { exchange } = this.#streaming;
    exchange.end(exchange.headOnly ? undefined : this.#format.close);
  }

  error(error: ConnectError): void {
    const { exchange } = this.#streaming;
    const json = JSON.stringify(exchange.errorBody(error));
    exchange.end(this.#format.error(json, this.#sent === 0));
  }
}

/** A stream of `google.api.HttpBody`: its bytes one after the other, under the first content type. */
class RawLayout {
  readonly canStartEarly = false;
  readonly #streaming: Streaming;

  constructor(streaming: Streaming) {
    this.#streaming = streaming;
  }

  start(first?: Message): void {
    const { exchange, context } = this.#streaming;
    exchange.addHeaders(context.responseHeader);
    exchange.startStream((first && this.#body(first)?.contentType) || "application/octet-stream");
  }

  message(message: Message): Promise<void> | undefined {
    const data = this.#body(message)?.data;
    return data && this.#streaming.exchange.write(data);
  }

  close(): void {
    this.#streaming.exchange.end();
  }

  error(): void {
    this.#streaming.exchange.breakOff();
  }

  stop(): void {}

  #body(message: Message) {
    return httpBodyOf(message, this.#streaming.responseBody);
  }
}

/** The `google.api.HttpBody` that a response is, or that its body field holds. */
export function httpBodyOf(
  message: Message,
  field: DescField | undefined,
): { contentType: string; data: Uint8Array } | undefined {
  if (!field) return message as Message & { contentType: string; data: Uint8Array };
  const values = message as unknown as Record<string, unknown>;
  if (!field.oneof) return values[field.localName] as ReturnType<typeof httpBodyOf>;
  const oneof = values[field.oneof.localName] as { case?: string; value?: ReturnType<typeof httpBodyOf> };
  return oneof.case === field.localName ? oneof.value : undefined;
}

/**
 * An iterator that fails at once when the signal is aborted, even while the source is silent. A race of
 * promises would do, but one that never settles keeps every loser in memory.
 */
class AbortableIterator {
  readonly #iterator: AsyncIterator<Message>;
  readonly #signal: AbortSignal;
  #reject: ((reason: unknown) => void) | undefined;
  #stopped = false;

  constructor(source: AsyncIterable<Message>, signal: AbortSignal) {
    this.#iterator = source[Symbol.asyncIterator]();
    this.#signal = signal;
    signal.addEventListener("abort", this.#onAbort);
  }

  next(): Promise<IteratorResult<Message, unknown>> {
    return new Promise((resolve, reject) => {
      if (this.#signal.aborted) {
        reject(this.#signal.reason);
        return;
      }
      this.#reject = reject;
      this.#iterator.next().then(
        (result) => {
          if (result.done) this.#stopped = true;
          resolve(result);
        },
        (reason) => {
          this.#stopped = true;
          reject(reason);
        },
      );
    });
  }

  /** Tells the source, unless it ended by itself, that nobody listens any more. */
  stop(): void {
    this.#signal.removeEventListener("abort", this.#onAbort);
    if (this.#stopped) return;
    this.#stopped = true;
    // Not awaited: a silent generator settles this only after its pending step.
    this.#iterator.return?.().then(undefined, () => {});
  }

  readonly #onAbort = (): void => this.#reject?.(this.#signal.reason);
}
