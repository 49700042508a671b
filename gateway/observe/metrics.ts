import { timingSafeEqual } from "node:crypto";
import type { Registry } from "prom-client";
import type { Config } from "#kernel/config.ts";
import { type LiveCounts, lateMs } from "#kernel/live-counts.ts";
import type { Request } from "../connect/lane.ts";
import { type Page, sendJson } from "../pages.ts";
import { bucketBounds, type Durations, type Tallies, type Tally } from "./tally.ts";

type Labels = Record<string, string | number>;

/** One line of the text format. */
interface Sample {
  readonly labels: Labels;
  readonly value: number;
  readonly metricName?: string;
}

/** One metric and where its samples come from. */
interface Family {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly help: string;
  samples(): Iterable<Sample>;
}

/** The content type of the text format. */
const metricsType = "text/plain; version=0.0.4; charset=utf-8";

function families(tallies: Tallies, live: LiveCounts): Family[] {
  const labelsOf = ({ method, protocol }: Tally): Labels => ({ rpc_method: method, protocol });
  const streams = () => [...tallies].filter(({ isStream }) => isStream);
  return [
    {
      name: "rpc_server_call_duration_seconds",
      type: "histogram",
      help: "How long calls took, streams included; its count is the number of calls",
      *samples() {
        for (const tally of tallies) {
          for (const [status, durations] of tally.durations) {
            yield* histogram(this.name, { ...labelsOf(tally), rpc_status_code: status }, durations);
          }
        }
      },
    },
    {
      name: "rpc_server_errors_total",
      type: "counter",
      help: "Calls that failed, and requests refused before they became one, by reason",
      *samples() {
        for (const tally of tallies) {
          for (const [status, reasons] of tally.errors) {
            for (const [reason, value] of reasons) {
              yield { labels: { ...labelsOf(tally), rpc_status_code: status, error_type: reason }, value };
            }
          }
        }
      },
    },
    {
      name: "rpc_server_streams_open",
      type: "gauge",
      help: "Streams that are open now",
      *samples() {
        for (const tally of streams()) yield { labels: labelsOf(tally), value: tally.openStreams };
      },
    },
    {
      name: "rpc_server_stream_messages_sent_total",
      type: "counter",
      help: "Messages sent on streams",
      *samples() {
        for (const tally of streams()) yield { labels: labelsOf(tally), value: tally.messagesSent };
      },
    },
    {
      name: "portolan_ticks_total",
      type: "counter",
      help: "Followers woken in their slot of the second",
      samples: () => [{ labels: {}, value: live.ticks }],
    },
    {
      name: "portolan_ticks_late_total",
      type: "counter",
      help: `Followers woken more than ${lateMs} ms after their slot`,
      samples: () => [{ labels: {}, value: live.lateTicks }],
    },
    {
      name: "portolan_frames_dropped_total",
      type: "counter",
      help: "Frames that slow followers missed",
      samples: () => [{ labels: {}, value: live.droppedFrames }],
    },
  ];
}

function* histogram(name: string, labels: Labels, { buckets, sum }: Durations): Iterable<Sample> {
  let count = 0;
  for (const [at, value] of buckets.entries()) {
    count += value;
    yield {
      metricName: `${name}_bucket`,
      labels: { ...labels, le: bucketBounds[at] ?? "+Inf" },
      value: count,
    };
  }
  yield { metricName: `${name}_sum`, labels, value: sum };
  yield { metricName: `${name}_count`, labels, value: count };
}

/** The metrics of the process are the same for every server in it. */
let processMetrics: Registry | undefined;

async function open(own: readonly Family[]): Promise<Registry[]> {
  const { Registry, collectDefaultMetrics } = await import("prom-client");
  const registry = new Registry();
  for (const { name, type, help, samples } of own) {
    const get = async () => ({ name, type, help, aggregator: "sum", values: [...samples.call({ name })] });
    registry.registerMetric({ name, get } as never);
  }
  if (!processMetrics) {
    processMetrics = new Registry();
    collectDefaultMetrics({ register: processMetrics });
  }
  return [registry, processMetrics];
}

/**
 * Serves the metrics of a server as Prometheus reads them, to those who may: the bearer of the
 * token if there is one, otherwise this machine, or everybody if so configured. Undefined if off.
 */
export function createMetricsPage(
  { readers, token }: Config["metrics"],
  tallies: Tallies,
  live: LiveCounts,
): Page | undefined {
  if (readers === "off") return undefined;
  const read = createReader(families(tallies, live));
  return async (request, response) => {
    if (token && !bears(request, token)) {
      response.setHeader("www-authenticate", "Bearer");
      sendJson(response, 401, { error: "INVALID_TOKEN", message: "/metrics asks for its token" });
    } else if (!token && readers === "loopback" && !isLocal(request)) {
      const message = "/metrics is read from this machine only";
      sendJson(response, 403, { error: "INSUFFICIENT_PERMISSIONS", message });
    } else {
      const text = await read();
      response.setHeader("content-type", metricsType);
      response.setHeader("cache-control", "no-store");
      response.end(text);
    }
  };
}

/** How long after the start the writing library is loaded, so that it does not delay the start. */
const loadAfterMs = 1_000;

/**
 * Calls add to plain numbers (see Tally); the library that writes them out, and watches the process
 * as well, is loaded a little later, or when somebody reads before that.
 */
function createReader(own: readonly Family[]): () => Promise<string> {
  let opened: Promise<Registry[]> | undefined;
  const registries = () => {
    opened ??= open(own);
    return opened;
  };
  setTimeout(registries, loadAfterMs).unref();
  return async () => {
    const texts = await Promise.all((await registries()).map((registry) => registry.metrics()));
    return texts.join("\n");
  };
}

function bears({ headers }: Request, token: string): boolean {
  const sent = Buffer.from(headers.authorization?.replace(/^Bearer\s+/i, "") ?? "");
  const wanted = Buffer.from(token);
  return sent.length === wanted.length && timingSafeEqual(sent, wanted);
}

/**
 * Whether a request began on this machine, for all we know: one that a proxy passed on did not, and
 * one that the page of another origin makes is not asked by who sits there.
 */
function isLocal({ socket, headers }: Request): boolean {
  if (headers.forwarded || headers["x-forwarded-for"] || headers.via || headers.origin) return false;
  return /^(::1|(::ffff:)?127(\.\d+){3})$/.test(socket?.remoteAddress ?? "");
}
