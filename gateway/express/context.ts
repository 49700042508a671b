import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, type ContextValues, type HandlerContext } from "@connectrpc/connect";
import type { Exchange } from "./exchange.ts";
import { type Fields, LazyHeaders } from "./headers.ts";

/** What a context is made from. */
export interface ContextInit {
  readonly method: DescMethod;
  readonly protocolName: string;
  readonly exchange: Exchange;
  readonly values: ContextValues;
  /** Time until the deadline in milliseconds, if the client set one. */
  readonly timeoutMs: number | undefined;
  readonly responseHeader: Fields;
  readonly responseTrailer: Fields;
}

/**
 * The context of a call that makes the signal and the URL when somebody asks for them. Who wants
 * one that differs derives it by `Object.create`: a copy by spreading would lack both.
 */
export class ExpressContext implements HandlerContext {
  readonly method: DescMethod;
  readonly service: DescService;
  readonly protocolName: string;
  readonly requestMethod: string;
  readonly requestHeader: LazyHeaders;
  readonly responseHeader: LazyHeaders;
  readonly responseTrailer: LazyHeaders;
  readonly values: ContextValues;
  readonly lifetime: Lifetime;
  readonly exchange: Exchange;

  constructor({ method, protocolName, exchange, values, timeoutMs, ...response }: ContextInit) {
    this.method = method;
    this.service = method.parent;
    this.protocolName = protocolName;
    this.requestMethod = exchange.method;
    this.requestHeader = new LazyHeaders(exchange.headers);
    this.responseHeader = new LazyHeaders(response.responseHeader);
    this.responseTrailer = new LazyHeaders(response.responseTrailer);
    this.values = values;
    this.lifetime = new Lifetime(timeoutMs);
    this.exchange = exchange;
  }

  get url(): string {
    return this.exchange.url;
  }

  get signal(): AbortSignal {
    return this.lifetime.signal;
  }

  get timeoutMs(): () => number | undefined {
    return this.lifetime.timeoutMs;
  }
}

/** How long a call lives, and the signal that tells its end to those who ask. */
class Lifetime {
  readonly timeoutMs: () => number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #controller: AbortController | undefined;
  #ended: (() => unknown) | undefined;

  constructor(timeoutMs: number | undefined) {
    this.timeoutMs = noDeadline;
    if (timeoutMs === undefined) return;
    const deadline = Date.now() + timeoutMs;
    this.timeoutMs = () => deadline - Date.now();
    if (timeoutMs <= 0) this.end(timedOut);
    else this.#timer = setTimeout(() => this.end(timedOut), timeoutMs);
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#ended) this.#controller.abort(this.#ended());
    }
    return this.#controller.signal;
  }

  /** Ends the call, which has been answered or whose client has gone; a signal is given the reason. */
  end(reason: () => unknown = answered): void {
    if (this.#ended) return;
    this.#ended = reason;
    clearTimeout(this.#timer);
    this.#controller?.abort(reason());
  }
}

const noDeadline = () => undefined;
/** One for all calls: making an exception for each would cost more than the signal itself. */
const over = new DOMException("The call has been answered", "AbortError");
const answered = () => over;
const timedOut = () => new ConnectError("the operation timed out", Code.DeadlineExceeded);
