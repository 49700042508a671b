import { Code, ConnectError, type ContextValues, type HandlerContext } from "@connectrpc/connect";
import { RequestInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { callInfo } from "#kernel/call.ts";
import { reasonOf } from "#kernel/errors.ts";
import { toFailure } from "../wire-error.ts";
import { ExpressContext } from "./context.ts";
import { clientGone, type Exchange } from "./exchange.ts";
import type { Fields } from "./headers.ts";
import type { MethodPlan } from "./plan.ts";
import type { SilenceWatch } from "./silence.ts";

/** What others have to do with each call of the express lanes. */
export interface ExpressHooks {
  /** Is told of an error that arose before the endpoint was called: of bytes, codings, deadlines. */
  refused?(error: ConnectError, call: ExpressCall): void;
  /** Headers of every answer, beside those of the call. */
  headers?(exchange: Exchange): Fields;
}

/** A call that has been recognized: which method, over which exchange. */
export interface ExpressCall {
  readonly plan: MethodPlan;
  readonly exchange: Exchange;
  readonly values: ContextValues;
  readonly silence: SilenceWatch;
  readonly hooks: ExpressHooks;
}

/** The id under which the call is known. */
export const requestIdOf = ({ values }: ExpressCall): string => values.get(callInfo).requestId;

/** What a deadline header says: a time in milliseconds, and what is wrong with it. */
export interface Timeout {
  readonly timeoutMs?: number | undefined;
  readonly error?: ConnectError | undefined;
}

/** The context of a call, which ends at its deadline or when its client goes. */
export function contextOf(
  { plan, exchange, values, silence }: ExpressCall,
  protocolName: string,
  { timeoutMs, error }: Timeout,
  responseHeader: Fields,
  responseTrailer: Fields,
): ExpressContext {
  const context = new ExpressContext({
    method: plan.method,
    protocolName,
    exchange,
    values,
    timeoutMs: error ? undefined : timeoutMs,
    responseHeader,
    responseTrailer,
  });
  exchange.onClose(() => {
    silence.done(exchange);
    context.lifetime.end(clientGone);
  });
  return context;
}

/** What is told of a body; whatever the first two throw ends the reading and goes to `fail`. */
export interface BodyReader {
  chunk(bytes: Uint8Array): void;
  end(): void;
  fail(error: unknown): void;
}

/** Reads the body. */
export function receive({ exchange, silence }: ExpressCall, reader: BodyReader): void {
  let failed = false;
  const fail = (error: unknown) => {
    failed = true;
    reader.fail(error);
  };
  silence.heard(exchange);
  exchange.receive(
    (bytes) => {
      silence.heard(exchange);
      if (failed) return;
      try {
        reader.chunk(bytes);
      } catch (error) {
        fail(error);
      }
    },
    () => {
      silence.done(exchange);
      if (failed) return;
      try {
        reader.end();
      } catch (error) {
        fail(error);
      }
    },
  );
}

/** Reads the body and drops it. */
export const discard = (call: ExpressCall): void => receive(call, { chunk() {}, end() {}, fail() {} });

/** Lets the call in, or fails before the body is read, which is then dropped. */
export async function admit(
  call: ExpressCall,
  context: HandlerContext,
  error: ConnectError | undefined,
): Promise<void> {
  try {
    await call.plan.endpoint.enter(context);
    if (error) throw error;
  } catch (thrown) {
    discard(call);
    throw thrown;
  }
}

/** What was thrown, as the error to be told: with a reason and the request id. */
export function failureOf(thrown: unknown, call: ExpressCall): ConnectError {
  const error =
    thrown instanceof ConnectError
      ? thrown
      : new ConnectError("internal error", Code.Internal, undefined, undefined, thrown);
  if (reasonOf(error)) return error;
  const explained = toFailure(error);
  explained.details.push({ desc: RequestInfoSchema, value: { requestId: requestIdOf(call) } });
  call.hooks.refused?.(explained, call);
  return explained;
}

/** The fields of an answer: those of the call after those of every answer. */
export function fieldsOf(call: ExpressCall, context: ExpressContext): Fields {
  const fields: Fields = { ...call.hooks.headers?.(call.exchange) };
  context.responseHeader.copyTo(fields);
  fields["x-request-id"] = requestIdOf(call);
  return fields;
}
