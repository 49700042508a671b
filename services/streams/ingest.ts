import { create } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { type TelemetrySample, TelemetrySampleSchema } from "#gen/portolan/streams/v1/telemetry_pb.js";
import { fail } from "#kernel/errors.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { timeOfSequence } from "#kernel/sequence.ts";
import type { LiveGroups } from "./live-groups.ts";
import { streamsOf } from "./store.ts";

/** How far a sample's own time may lie ahead of the server's, in milliseconds. */
const futureMs = 60_000;

/** Stores samples and makes them the state of their group, in this order. */
export function createIngest(kernel: Kernel, groups: LiveGroups) {
  /** Stores one sample and returns its sequence once it is on disk. */
  return async function ingest(
    tenantId: string,
    deviceGroupId: string,
    sample: TelemetrySample,
  ): Promise<bigint> {
    const devices = await groups.devices(tenantId, deviceGroupId);
    if (!devices) throw fail("DEVICE_GROUP_NOT_FOUND");
    if (sample.deviceId && !devices.has(sample.deviceId)) {
      throw fail("DEVICE_NOT_FOUND", { metadata: { device_id: sample.deviceId } });
    }
    if (sample.timestamp && timestampMs(sample.timestamp) > kernel.nowMs() + futureMs) {
      const description = "must not be more than a minute in the future";
      throw fail("VALIDATION_ERROR", {
        message: `sample.timestamp: ${description}`,
        violations: [{ field: "sample.timestamp", description }],
      });
    }
    // The sequence is taken before the transaction, so that samples keep the order in which they
    // came: PostgreSQL runs transactions side by side.
    const sequence = kernel.nextSequence();
    const recorded = await kernel.write(async ({ queries }) => {
      const stamped = create(TelemetrySampleSchema, {
        ...sample,
        timestamp: sample.timestamp ?? timestampFromMs(timeOfSequence(sequence)),
      });
      await streamsOf(tenantId, queries).insertSample(deviceGroupId, { sequence, sample: stamped });
      return { sequence, sample: stamped };
    });
    groups.apply(tenantId, deviceGroupId, recorded);
    return recorded.sequence;
  };
}
