import type { Logger } from "pino";
import { callInfo, type TraceContext, traceIdOf } from "#kernel/call.ts";
import { reasonOf } from "#kernel/errors.ts";
import { type Call, type CallListener, isServerFault, isStream, methodName } from "./observer.ts";
import { statusName } from "./tally.ts";
import { readTraceContext } from "./trace-context.ts";

/**
 * One line a call. Faults of the server are errors (with their cause) and warnings; everything else
 * is written at level info if `all` is set and at debug otherwise: at full speed a line a call costs
 * more than the call. What a line says is fixed, so that nothing of a request can slip into it.
 */
export function createAccessLog(log: Logger, all: boolean): CallListener {
  const ordinary = all ? "info" : "debug";
  const levelOf = ({ error }: Pick<Call, "error">) => {
    if (!error || !isServerFault(error)) return ordinary;
    return reasonOf(error) === "INTERNAL" ? "error" : "warn";
  };

  return {
    ended(call) {
      const level = levelOf(call);
      if (!log.isLevelEnabled(level)) return;
      const { method, protocol, context, durationMs, messages, error } = call;
      const { requestId, principal, trace } = context.values.get(callInfo);
      const line = {
        requestId,
        method: methodName(method),
        protocol,
        ...outcome(error),
        durationMs: Math.round(durationMs * 1000) / 1000,
        ...(isStream(method) && { messages }),
        ...(principal && { tenant: principal.tenantId, subject: principal.subject }),
        ...traced(trace ?? readTraceContext((name) => context.requestHeader.get(name))),
        ...(level === "error" && { err: error?.cause }),
      };
      log[level](line, level === ordinary ? "call" : "call failed");
    },
    refused({ protocol, method, error, requestId, header }) {
      const level = levelOf({ error });
      if (!log.isLevelEnabled(level)) return;
      const line = {
        requestId,
        ...(method && { method: methodName(method) }),
        protocol,
        ...outcome(error),
        ...traced(readTraceContext(header)),
        ...(level === "error" && { err: error.cause }),
      };
      log[level](line, "request refused");
    },
  };
}

const outcome = (error: Call["error"]) => ({
  code: error ? statusName(error.code) : "OK",
  ...(error && { reason: reasonOf(error) }),
});

const traced = (trace: TraceContext | undefined) => trace && { traceId: traceIdOf(trace) };
