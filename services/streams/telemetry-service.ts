import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { TrackKind, TrackUpdateSchema } from "#gen/portolan/common/v1/track_pb.js";
import type { TelemetrySample } from "#gen/portolan/streams/v1/telemetry_pb.js";
import type { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { tenantOf } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { sequenceAt, timeOfSequence } from "#kernel/sequence.ts";
import { merge, silentGroup, toTrackState } from "./group-state.ts";
import { createIngest } from "./ingest.ts";
import type { LiveGroups } from "./live-groups.ts";
import { streamsOf } from "./store.ts";

/** Samples of a client stream that may wait for the disk at a time. */
const inFlight = 32;

/** Samples of a replay read at once. */
const replayPage = 500;

/** Handlers of TelemetryService. */
export function createTelemetryService(
  kernel: Kernel,
  groups: LiveGroups,
  closing: AbortSignal,
): ServiceImpl<typeof TelemetryService> {
  const ingest = createIngest(kernel, groups);

  async function demandGroup(tenantId: string, deviceGroupId: string): Promise<void> {
    if (!(await groups.devices(tenantId, deviceGroupId))) throw fail("DEVICE_GROUP_NOT_FOUND");
  }

  return {
    async publishTelemetry(requests, context) {
      const tenantId = tenantOf(context);
      let deviceGroupId = "";
      let accepted = 0n;
      let lastSequence = 0n;
      const waiting = new Set<Promise<void>>();
      let failed: unknown;
      for await (const request of requests) {
        deviceGroupId = request.deviceGroupId || deviceGroupId;
        if (!deviceGroupId) throw fail("DEVICE_GROUP_NOT_FOUND");
        const stored = ingest(tenantId, deviceGroupId, request.sample as TelemetrySample)
          .then((sequence) => {
            accepted += 1n;
            if (sequence > lastSequence) lastSequence = sequence;
          })
          .catch((error) => {
            failed ??= error;
          })
          .finally(() => waiting.delete(stored));
        waiting.add(stored);
        if (waiting.size >= inFlight) await Promise.race(waiting);
        if (failed) break;
      }
      await Promise.all(waiting);
      if (failed) throw failed;
      return { accepted, lastSequence };
    },

    async publishSample(request, context) {
      const { deviceGroupId, sample } = request;
      return { sequence: await ingest(tenantOf(context), deviceGroupId, sample as TelemetrySample) };
    },

    async listSamples(request, context) {
      const tenantId = tenantOf(context);
      const { deviceGroupId, jobId, startTime, endTime } = request;
      await demandGroup(tenantId, deviceGroupId);
      const [after, before] = range(startTime, endTime);
      const store = streamsOf(tenantId, kernel.database.read);
      const { items, ...page } = await store.listSamples(request, { after, before, jobId });
      const samples = items.map(({ sequence, sample }) => ({
        sequence,
        receivedAt: timestampFromMs(timeOfSequence(sequence)),
        sample,
      }));
      return { samples, count: samples.length, ...page };
    },

    async *replayTrack(request, context) {
      const tenantId = tenantOf(context);
      const { deviceGroupId, jobId, startTime, endTime, speed = 1 } = request;
      await demandGroup(tenantId, deviceGroupId);
      const store = streamsOf(tenantId, kernel.database.read);
      const [from, to] = range(startTime, endTime);
      const signal = AbortSignal.any([context.signal, closing]);
      let state = silentGroup(0);
      let origin: { recordedMs: number; playedMs: number } | undefined;
      let position = from;
      const update = (kind: TrackKind) =>
        create(TrackUpdateSchema, {
          ...toTrackState(deviceGroupId, state, true),
          sequence: position,
          kind,
          subject: deviceGroupId,
        });
      for (;;) {
        const page = await store.samples(deviceGroupId, {
          after: position,
          before: to,
          jobId,
          limit: replayPage,
        });
        for (const recorded of page) {
          const recordedMs = recorded.sample.timestamp
            ? timestampMs(recorded.sample.timestamp)
            : timeOfSequence(recorded.sequence);
          origin ??= { recordedMs, playedMs: performance.now() };
          if (speed > 0) {
            const dueMs = origin.playedMs + (recordedMs - origin.recordedMs) / speed;
            await sleep(dueMs - performance.now(), signal);
          }
          if (context.signal.aborted) return;
          if (closing.aborted) {
            yield update(TrackKind.RECONNECT);
            return;
          }
          position = recorded.sequence;
          state = merge(state, recorded);
          yield update(TrackKind.HISTORY);
        }
        if (page.length < replayPage) return;
      }
    },
  };
}

/** The sequences after which and before which samples lie in a span of arrival times. */
function range(start: Timestamp | undefined, end: Timestamp | undefined): [bigint, bigint | undefined] {
  return [start ? sequenceAt(timestampMs(start)) - 1n : 0n, end && sequenceAt(timestampMs(end))];
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (ms <= 0 || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(ms, 2 ** 31 - 1));
    signal.addEventListener("abort", done);
  });
}
