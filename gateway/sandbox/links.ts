import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import type { Dispatch } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import { DispatchService } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import {
  type PublishTelemetryRequestSchema,
  TelemetryService,
} from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import type { Outbox } from "./outbox.ts";
import { type Backoff, childOf, type ErrorListener, wait } from "./retry.ts";

/** One message of a telemetry stream. */
export type Sample = MessageInitShape<typeof PublishTelemetryRequestSchema>;

/** What the long-lived streams of a device group have in common. */
export interface LinkOptions {
  transport: Transport;
  deviceGroupId: string;
  /** Ends the link when aborted. */
  signal: AbortSignal;
  backoff: () => Backoff;
  onError: ErrorListener;
}

/** How long the server may take to answer a telemetry stream that we have closed. */
const ANSWER_MS = 2000;
/** A stream that lived so long shows that the server works. */
const HEALTHY_MS = 30_000;

/** Watches the orders of a device group, anew after every error. */
export async function watchOrders(
  options: LinkOptions & {
    silenceMs: number;
    receive: (dispatch: Dispatch) => void;
    onUnknownGroup: () => Promise<void>;
  },
): Promise<void> {
  const { deviceGroupId, signal, silenceMs } = options;
  const client = createClient(DispatchService, options.transport);
  const pause = options.backoff();
  while (!signal.aborted) {
    const { controller, release } = childOf(signal);
    let alarm: NodeJS.Timeout | undefined;
    const heard = () => {
      clearTimeout(alarm);
      alarm = setTimeout(() => controller.abort(new Error("the watch fell silent")), silenceMs);
    };
    try {
      heard();
      for await (const message of client.watchDispatches({ deviceGroupId }, { signal: controller.signal })) {
        heard();
        pause.reset();
        if (message.dispatch !== undefined) {
          options.receive(message.dispatch);
        }
      }
    } catch (error) {
      if (!signal.aborted) {
        options.onError(error, "watch");
        if (ConnectError.from(error).code === Code.NotFound) {
          await options.onUnknownGroup();
        }
      }
    }
    clearTimeout(alarm);
    release();
    await wait(pause.next(), signal);
  }
}

/** Publishes samples through one client stream after another. */
export async function publishSamples(
  options: LinkOptions & { samples: Outbox<Sample>; streamMs: number },
): Promise<void> {
  const { signal, samples } = options;
  const client = createClient(TelemetryService, options.transport);
  const pause = options.backoff();
  while (!signal.aborted) {
    // `ending` closes our side of the stream; `hard` gives up on the server's answer.
    const { controller: ending, release } = childOf(signal);
    const hard = new AbortController();
    let giveUp: NodeJS.Timeout | undefined;
    async function* messages() {
      try {
        yield* samples.drain(ending.signal);
      } finally {
        // Also reached when the connection is lost: then the call alone would never return.
        giveUp = setTimeout(() => hard.abort(), ANSWER_MS).unref();
      }
    }
    const rotation = setTimeout(() => ending.abort(), options.streamMs);
    const openedAtMs = performance.now();
    try {
      await client.publishTelemetry(messages(), { signal: hard.signal });
    } catch (error) {
      if (!signal.aborted) {
        options.onError(error, "telemetry");
      }
    }
    const rotated = ending.signal.aborted;
    clearTimeout(rotation);
    release();
    // Wakes the reader that still waits for a sample when the stream has failed.
    ending.abort();
    clearTimeout(giveUp);
    if (rotated || performance.now() - openedAtMs > HEALTHY_MS) {
      pause.reset();
    }
    await wait(rotated ? 0 : pause.next(), signal);
  }
}
