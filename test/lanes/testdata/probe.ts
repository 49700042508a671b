import { readFileSync } from "node:fs";
import { type IncomingHttpHeaders, ServerResponse } from "node:http";
import { join } from "node:path";
import { create, type DescMethod, type Message } from "@bufbuild/protobuf";
import { ConnectError, type HandlerContext } from "@connectrpc/connect";
import pino from "pino";
import { createCallContexts, originOf } from "#gateway/call-context.ts";
import { createConnectLane } from "#gateway/connect/lane.ts";
import { createExpressLane, type ExpressLaneOptions } from "#gateway/express/lane.ts";
import { type Listener, listen } from "#gateway/listener.ts";
import { createObserver } from "#gateway/observe/observer.ts";
import { Tallies } from "#gateway/observe/tally.ts";
import { toFailure } from "#gateway/wire-error.ts";
import { RequestInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { callInfo } from "#kernel/call.ts";
import type { Endpoint } from "#kernel/endpoint.ts";
import { fail, type Reason } from "#kernel/errors.ts";
import { compile, messageOf, serviceOf } from "../../../gateway/rest/testdata/contract.ts";

const registry = compile({
  "probe.proto": readFileSync(join(import.meta.dirname, "probe.proto"), "utf8"),
});

/** The contract of the probe. */
export const service = serviceOf(registry, "probe.v1.ProbeService");
export const OrderSchema = messageOf(registry, "probe.v1.Order");
export const ReportSchema = messageOf(registry, "probe.v1.Report");

/** An order, see probe.proto. */
export interface Order {
  text?: string;
  size?: number;
  count?: number;
  fail?: Reason | "BROKEN" | "DETAILED" | "METADATA";
  failAfter?: number;
  header?: Record<string, string>;
  trailer?: Record<string, string>;
  wait?: boolean;
  blob?: Uint8Array;
  ask?: string[];
  number?: bigint;
}

/** A server of the probe, by one lane. */
export interface Probe {
  readonly listener: Listener;
  /** The `x-case` headers of the requests that the express lanes have taken. */
  readonly taken: ReadonlySet<unknown>;
  /** Streams that have begun, and those that have ended in the handler. */
  readonly streams: { begun: number; ended: number; made: number };
  /** Why the last call that waited was over. */
  readonly lastReason: () => unknown;
}

/** What may differ from one probe to another. */
export interface ProbeOptions extends Pick<ExpressLaneOptions, "silentBodyMs" | "refused" | "headers"> {
  /** Lets calls in; without it all of them. */
  readonly enter?: Endpoint["enter"];
}

/** Starts a server whose calls go by the express lanes, or all by Connect. */
export async function startProbe(express: boolean, options: ProbeOptions = {}): Promise<Probe> {
  const streams = { begun: 0, ended: 0, made: 0 };
  let lastReason: unknown;
  const taken = new Set<unknown>();

  const over = (context: HandlerContext) =>
    new Promise<never>((_, reject) => {
      const tell = () => {
        lastReason = context.signal.reason;
        reject(context.signal.reason);
      };
      if (context.signal.aborted) tell();
      context.signal.addEventListener("abort", tell);
    });

  async function act(order: Order, context: HandlerContext): Promise<void> {
    for (const [name, value] of Object.entries(order.header ?? {}))
      context.responseHeader.append(name, value);
    for (const [name, value] of Object.entries(order.trailer ?? {}))
      context.responseTrailer.append(name, value);
    if (order.wait) await over(context);
  }

  async function* run(method: DescMethod, input: Message | AsyncIterable<Message>, context: HandlerContext) {
    streams.begun += 1;
    try {
      const orders = Symbol.asyncIterator in input ? input : [input];
      let sequence = 0;
      for await (const each of orders) {
        const order = each as Order;
        await act(order, context);
        const count = method.methodKind === "client_streaming" ? 0 : order.count || 1;
        for (let i = 0; i < count; i++) {
          if (order.fail && i === order.failAfter) throw failureOf(order);
          streams.made += 1;
          yield reportOn(order, ++sequence, context);
        }
        if (order.fail && (order.failAfter ?? 0) >= count) throw failureOf(order);
        if (method.methodKind === "client_streaming") sequence += 1;
      }
      if (method.methodKind === "client_streaming") yield reportOn({}, sequence, context);
    } finally {
      streams.ended += 1;
    }
  }

  /** Failures leave as they do by the gate. */
  const told = (thrown: unknown, context: HandlerContext) => {
    const error = toFailure(thrown);
    error.details.push({
      desc: RequestInfoSchema,
      value: { requestId: context.values.get(callInfo).requestId },
    });
    return error;
  };

  const endpoints: Endpoint[] = service.methods.map((method) => ({
    method,
    enter: async (context) =>
      options.enter?.(context).catch((thrown) => Promise.reject(told(thrown, context))),
    invoke(input, context) {
      const stream = async function* () {
        try {
          yield* run(method, input, context);
        } catch (thrown) {
          throw told(thrown, context);
        }
      };
      if (method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming") return stream();
      return (async () => {
        for await (const report of stream()) return report;
        throw new Error("no report");
      })();
    },
  }));

  const log = pino({ level: "silent" });
  const contexts = createCallContexts();
  const connect = createConnectLane({
    endpoints,
    ungated: [],
    contextValues: (request) => contexts(originOf(request)),
    observer: createObserver(new Tallies(), []),
    stray: async () => ({ headers: new Headers() }),
    log,
  });
  const lane = createExpressLane({
    endpoints,
    contextValues: contexts,
    log,
    ...options,
  });
  const note = (headers: IncomingHttpHeaders, took: boolean) => {
    if (took) taken.add(headers["x-case"]);
    return took;
  };
  const listener = await listen({
    host: "127.0.0.1",
    port: 0,
    handler(request, response) {
      if (
        express &&
        response instanceof ServerResponse &&
        note(request.headers, lane.request(response.req, response))
      )
        return;
      if (connect(request, response)) return;
      response.statusCode = 404;
      response.end();
    },
    ...(express && { onStream: (stream, headers) => note(headers, lane.stream(stream, headers)) }),
  });
  return { listener, taken, streams, lastReason: () => lastReason };
}

function failureOf({ fail: reason }: Order): unknown {
  switch (reason) {
    case "BROKEN":
      return new TypeError("a defect");
    case "DETAILED":
      return fail("VALIDATION_ERROR", {
        message: "naïve: 100 % wrong",
        metadata: { a: "1", b: "ü" },
        violations: [{ field: "text", description: "must be ≠ ''", reason: "STRING" }],
        retryAfterMs: 1500,
      });
    case "METADATA": {
      const error = fail("RESOURCE_CONFLICT" as Reason);
      return new ConnectError(
        "with metadata",
        error.code,
        { "x-more": "value", "x-more-bin": "AAEC" },
        error.details as never,
      );
    }
    default:
      return fail(reason as Reason);
  }
}

function reportOn(order: Order, sequence: number, context: HandlerContext): Message {
  return create(ReportSchema, {
    text: order.size ? "x".repeat(order.size) : (order.text ?? ""),
    sequence,
    heard: Object.fromEntries(
      (order.ask ?? []).map((name) => [name, context.requestHeader.get(name) ?? "none"]),
    ),
    blob: order.blob ?? new Uint8Array(),
    number: order.number ?? 0n,
  } as never);
}
