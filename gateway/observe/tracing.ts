import { setTimeout } from "node:timers/promises";
import type { DescMethod } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import {
  type Attributes,
  type Context,
  createTraceState,
  DiagLogLevel,
  diag,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes,
} from "@opentelemetry/resources";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import * as semantic from "@opentelemetry/semantic-conventions";
import type { Logger } from "pino";
import { callInfo, type TraceContext } from "#kernel/call.ts";
import { reasonOf } from "#kernel/errors.ts";
import { httpStatusOf } from "../rest/index.ts";
import { dialectOf } from "../surfaces.ts";
import { type Call, type CallListener, isServerFault, isStream, methodName } from "./observer.ts";
import { numberOf, type OtelEnv, tracesUrl } from "./otel-env.ts";
import { redactor } from "./redact.ts";
import { statusName } from "./tally.ts";
import { readTraceContext } from "./trace-context.ts";

/** The traces of a server. */
export interface Tracing extends CallListener {
  /** Sends what is waiting and stops. */
  shutdown(): Promise<void>;
}

/** How long the last spans may take to be sent: a collector that is away must not hold up the end. */
const flushMs = 3_000;

/**
 * The response header that tells a client the span which served it, as drafted for Level 2 of W3C
 * Trace Context.
 */
const responseHeader = "traceresponse";

/** The systems of the RPC conventions; REST is plain HTTP there. */
const systems: Record<string, string> = { grpc: "grpc", "grpc-web": "grpc", connect: "connectrpc" };

/**
 * One span a call, sent over OTLP/HTTP as the variables of OpenTelemetry say. The span of a call
 * that a service makes in the name of another one is its child.
 */
export function startTracing(otel: OtelEnv, log: Logger): Tracing {
  reportTo(log);
  const provider = new TracerProvider({
    resource: defaultResource()
      .merge(resourceFromAttributes({ [semantic.ATTR_SERVICE_NAME]: "portolan" }))
      .merge(detectResources({ detectors: [envDetector] })),
    sampler: samplerOf(otel),
    spanProcessors: [
      new BatchSpanProcessor({
        exporter: new OTLPTraceExporter({ url: tracesUrl(otel) }),
        ...batchOf(otel),
      }),
    ],
  });
  const tracer = provider.getTracer("portolan");
  const spans = new WeakMap<Call, Span>();

  return {
    began(call) {
      const { context, method, protocol } = call;
      const info = context.values.get(callInfo);
      const parent = info.trace ?? readTraceContext((name) => context.requestHeader.get(name));
      const span = startSpan(tracer, parent, protocol, method, context.requestMethod, info.route);
      spans.set(call, span);
      info.trace = contextOf(span);
      if (protocol !== "local") context.responseHeader.set(responseHeader, info.trace.traceparent);
      if (span.isRecording()) span.setAttributes(requestAttributes(call));
    },
    ended(call) {
      const span = spans.get(call);
      if (!span?.isRecording()) return span?.end();
      const { principal } = call.context.values.get(callInfo);
      span.setAttributes({
        ...(principal && { "enduser.id": principal.subject, "portolan.tenant": principal.tenantId }),
        ...(isStream(call.method) && { "portolan.messages_sent": call.messages }),
      });
      finish(span, call.protocol, call.method, call.error, call.context.values.get(callInfo).route);
    },
    refused({ method, protocol, error, requestId, header }) {
      if (!method) return;
      const span = startSpan(tracer, readTraceContext(header), protocol, method);
      span.setAttribute("portolan.request_id", requestId);
      finish(span, protocol, method, error);
    },
    async shutdown() {
      const sent = provider.shutdown().catch((err) => log.warn({ err }, "the last spans were not sent"));
      await Promise.race([sent, setTimeout(flushMs, undefined, { ref: false })]);
      diag.disable();
    },
  };
}

function startSpan(
  tracer: Tracer,
  parent: TraceContext | undefined,
  protocol: string,
  method: DescMethod,
  httpMethod = "",
  route = "",
): Span {
  const name = methodName(method);
  const isRest = protocol === "rest";
  const system = systems[protocol];
  return tracer.startSpan(
    isRest && route ? `${httpMethod} ${route}` : name,
    {
      kind: protocol === "local" ? SpanKind.INTERNAL : SpanKind.SERVER,
      attributes: {
        [semantic.ATTR_RPC_METHOD]: name,
        ...(system && { [semantic.ATTR_RPC_SYSTEM_NAME]: system }),
        "portolan.protocol": protocol,
        ...(isRest && httpMethod && { [semantic.ATTR_HTTP_REQUEST_METHOD]: httpMethod }),
        ...(isRest && route && { [semantic.ATTR_HTTP_ROUTE]: route }),
      },
    },
    parentContext(parent),
  );
}

/** Paths and queries are left out: share codes, PINs and tokens stand in them. */
function requestAttributes({ protocol, context }: Call): Attributes {
  const { requestId, remoteAddress } = context.values.get(callInfo);
  const common = { "portolan.request_id": requestId };
  if (protocol === "local") return common;
  const { hostname, port, protocol: scheme } = new URL(context.url);
  const userAgent = context.requestHeader.get("user-agent");
  return {
    ...common,
    [semantic.ATTR_CLIENT_ADDRESS]: remoteAddress,
    [semantic.ATTR_SERVER_ADDRESS]: hostname,
    [semantic.ATTR_SERVER_PORT]: Number(port) || (scheme === "https:" ? 443 : 80),
    ...(protocol === "rest" && { [semantic.ATTR_URL_SCHEME]: scheme.slice(0, -1) }),
    ...(protocol === "rest" && userAgent && { [semantic.ATTR_USER_AGENT_ORIGINAL]: userAgent }),
  };
}

function finish(
  span: Span,
  protocol: string,
  method: DescMethod,
  error: ConnectError | undefined,
  route = "",
): void {
  span.setAttribute(semantic.ATTR_RPC_STATUS_CODE, error ? statusName(error.code) : "OK");
  if (protocol === "rest") {
    const dialect = dialectOf(method, route);
    const status = error ? httpStatusOf(error, dialect) : (dialect.successStatus ?? 200);
    span.setAttribute(semantic.ATTR_HTTP_RESPONSE_STATUS_CODE, status);
  }
  if (error) {
    span.setAttribute(semantic.ATTR_ERROR_TYPE, reasonOf(error) ?? "INTERNAL");
    if (isServerFault(error) || statusName(error.code) === "DEADLINE_EXCEEDED") {
      span.setStatus({ code: SpanStatusCode.ERROR, message: redactor.redact(error.rawMessage) });
    }
    if (error.cause instanceof Error && reasonOf(error) === "INTERNAL") recordCause(span, error.cause);
  }
  span.end();
}

function recordCause(span: Span, { name, message, stack }: Error): void {
  span.addEvent("exception", {
    [semantic.ATTR_EXCEPTION_TYPE]: name,
    [semantic.ATTR_EXCEPTION_MESSAGE]: redactor.redact(message),
    [semantic.ATTR_EXCEPTION_STACKTRACE]: redactor.redact(stack ?? ""),
  });
}

function parentContext(parent: TraceContext | undefined): Context {
  if (!parent) return ROOT_CONTEXT;
  const [, traceId = "", spanId = "", flags = "00"] = parent.traceparent.split("-");
  return trace.setSpanContext(ROOT_CONTEXT, {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags, 16) & 1,
    isRemote: true,
    ...(parent.tracestate && { traceState: createTraceState(parent.tracestate) }),
  });
}

function contextOf(span: Span): TraceContext {
  const { traceId, spanId, traceFlags, traceState } = span.spanContext();
  const tracestate = traceState?.serialize();
  return {
    traceparent: `00-${traceId}-${spanId}-${traceFlags & 1 ? "01" : "00"}`,
    ...(tracestate && { tracestate }),
  };
}

/** The sampler of OTEL_TRACES_SAMPLER; by default the parent decides, and all are taken without one. */
function samplerOf(otel: OtelEnv): Sampler {
  const name = otel.OTEL_TRACES_SAMPLER ?? "parentbased_always_on";
  const roots: Record<string, Sampler> = {
    always_on: new AlwaysOnSampler(),
    always_off: new AlwaysOffSampler(),
    traceidratio: new TraceIdRatioBasedSampler(numberOf(otel, "OTEL_TRACES_SAMPLER_ARG") ?? 1),
  };
  const root = roots[name.replace(/^parentbased_/, "")];
  if (!root) throw new Error(`OTEL_TRACES_SAMPLER: there is no sampler ${name}`);
  return name.startsWith("parentbased_") ? new ParentBasedSampler({ root }) : root;
}

function batchOf(otel: OtelEnv) {
  const scheduledDelayMillis = numberOf(otel, "OTEL_BSP_SCHEDULE_DELAY");
  const exportTimeoutMillis = numberOf(otel, "OTEL_BSP_EXPORT_TIMEOUT");
  const maxQueueSize = numberOf(otel, "OTEL_BSP_MAX_QUEUE_SIZE");
  const maxExportBatchSize = numberOf(otel, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
  return {
    ...(scheduledDelayMillis !== undefined && { scheduledDelayMillis }),
    ...(exportTimeoutMillis && { exportTimeoutMillis }),
    ...(maxQueueSize && { maxQueueSize }),
    ...(maxExportBatchSize && { maxExportBatchSize }),
  };
}

/** The library speaks through our log; a collector that is away must not flood it. */
function reportTo(log: Logger): void {
  const warn = (message: string, ...details: unknown[]) => log.warn({ details }, `traces: ${message}`);
  const debug = (message: string) => log.debug(`traces: ${message}`);
  diag.setLogger(
    { error: warn, warn, info: debug, debug, verbose: debug },
    { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
}
