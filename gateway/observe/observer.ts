import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { reasonOf } from "#kernel/errors.ts";
import { requestIdOf } from "../call-context.ts";
import type { Request } from "../connect/lane.ts";
import { toFailure } from "../wire-error.ts";
import { statusName, type Tallies, type Tally } from "./tally.ts";

/** Where the methods are counted that do not exist. */
const noMethod = "_OTHER";

/** What is told of a call, while it runs and when it is over. */
export interface Call {
  readonly method: DescMethod;
  /** How the call came: `grpc`, `grpc-web`, `connect`, `rest`, or `local` from another service. */
  readonly protocol: string;
  readonly context: HandlerContext;
  /** Messages handed to the lane so far; only streams count them. */
  readonly messages: number;
  /** How long it took, in milliseconds; once it is over. */
  readonly durationMs: number;
  /** How it failed, if it did; once it is over. */
  readonly error: ConnectError | undefined;
}

/** A request that was refused before any method was called. */
export interface Refusal {
  readonly protocol: string;
  /** The method that was meant, if there is one. */
  readonly method?: DescMethod;
  readonly error: ConnectError;
  readonly requestId: string;
  /** A header of the request. */
  header(name: string): string | undefined;
}

/** Somebody who wants to be told of calls: the log, traces. */
export interface CallListener {
  began?(call: Call): void;
  ended(call: Call): void;
  refused(refusal: Refusal): void;
}

/** What the gate holds of a call that it lets happen under observation. */
export interface ObservedCall {
  /** Says that a message of a stream was handed to the lane. */
  sent(): void;
  /** Says that the call is over; only the first time counts. */
  end(error?: ConnectError): void;
}

/** Sees every call once, whichever lane it came by. */
export interface Observer {
  begin(method: DescMethod, context: HandlerContext): ObservedCall;
  /** Says that a request was refused before the gate; errors of observed calls are passed over. */
  refuse(refusal: Refusal): void;
}

/** An observer that counts into `tallies` and tells the listeners. */
export function createObserver(tallies: Tallies, listeners: readonly CallListener[]): Observer {
  const seen = new WeakSet<ConnectError>();
  const names = new Map<DescMethod, string>();

  function nameOf(method: DescMethod | undefined): string {
    if (!method) return noMethod;
    const name = names.get(method) ?? methodName(method);
    names.set(method, name);
    return name;
  }

  class Observed implements Call, ObservedCall {
    readonly method: DescMethod;
    readonly context: HandlerContext;
    messages = 0;
    durationMs = 0;
    error: ConnectError | undefined;
    readonly #tally: Tally;
    readonly #began = performance.now();
    #over = false;

    constructor(method: DescMethod, context: HandlerContext) {
      this.method = method;
      this.context = context;
      this.#tally = tallies.of(nameOf(method), context.protocolName);
      if (isStream(method)) this.#tally.opened();
      for (const listener of listeners) listener.began?.(this);
    }

    get protocol(): string {
      return this.context.protocolName;
    }

    sent(): void {
      this.messages += 1;
      this.#tally.messagesSent += 1;
    }

    end(error = abortOf(this.context)): void {
      if (this.#over) return;
      this.#over = true;
      this.error = error;
      this.durationMs = performance.now() - this.#began;
      this.#tally.ended(error ? statusName(error.code) : "OK", this.durationMs / 1000);
      if (error) {
        seen.add(error);
        this.#tally.failed(statusName(error.code), reasonOf(error) ?? "INTERNAL");
      }
      for (const listener of listeners) listener.ended(this);
    }
  }

  return {
    begin: (method, context) => new Observed(method, context),
    refuse(refusal) {
      const { code } = refusal.error;
      // A lane gives up at the deadline, or when the client has gone, on calls that are observed.
      if (seen.has(refusal.error) || code === Code.Canceled || code === Code.DeadlineExceeded) return;
      const error = toFailure(refusal.error);
      tallies
        .of(nameOf(refusal.method), refusal.protocol)
        .failed(statusName(error.code), reasonOf(error) ?? "INTERNAL");
      for (const listener of listeners) listener.refused({ ...refusal, error });
    },
  };
}

/** `package.Service/Method`. */
export const methodName = (method: DescMethod): string => `${method.parent.typeName}/${method.name}`;

/** The refusal of a request, with its id and headers. */
export function refusalOf(
  request: Pick<Request, "headers">,
  protocol: string,
  error: ConnectError,
  method?: DescMethod,
): Refusal {
  return {
    protocol,
    error,
    requestId: requestIdOf(request),
    header: (name) => request.headers[name]?.toString(),
    ...(method && { method }),
  };
}

/** Whether the method answers with a stream. */
export const isStream = ({ methodKind }: DescMethod): boolean =>
  methodKind === "server_streaming" || methodKind === "bidi_streaming";

/** Whether an error tells of a fault of the server rather than of the caller. */
export function isServerFault({ code }: ConnectError): boolean {
  return [Code.Internal, Code.Unknown, Code.DataLoss, Code.Unavailable].includes(code);
}

/** How a call ended whose handler did not fail, but whose caller was no longer there to see it. */
function abortOf({ signal }: HandlerContext): ConnectError | undefined {
  if (!signal.aborted) return undefined;
  const { reason } = signal;
  return toFailure(reason instanceof ConnectError ? reason : new ConnectError("", Code.Canceled));
}
