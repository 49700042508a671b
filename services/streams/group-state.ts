import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { DockState, DroneState } from "#gen/portolan/common/v1/track_pb.js";
import type { TelemetrySample } from "#gen/portolan/streams/v1/telemetry_pb.js";
import { sequenceAt, timeOfSequence } from "#kernel/sequence.ts";
import type { TrackState } from "#kernel/topics.ts";
import type { Recorded } from "./store.ts";

/** The state of a device group: what its devices said last, put together. */
export interface GroupState {
  readonly sequence: bigint;
  readonly sample: TelemetrySample | undefined;
}

/** The state of a group that has said nothing since it was registered. */
export const silentGroup = (createdAtMs: number): GroupState => ({
  sequence: sequenceAt(createdAtMs),
  sample: undefined,
});

/** The state after another sample: fields that it does not carry keep their value. */
export function merge(state: GroupState, { sequence, sample }: Recorded): GroupState {
  const before = state.sample;
  if (!before) return { sequence, sample };
  return {
    sequence,
    sample: {
      ...sample,
      droneState: sample.droneState || before.droneState,
      dockState: sample.dockState || before.dockState,
      navigation: sample.navigation ?? before.navigation,
      sensorPayload: sample.sensorPayload ?? before.sensorPayload,
      weather: sample.weather ?? before.weather,
      batteryPercent: sample.batteryPercent ?? before.batteryPercent,
    },
  };
}

/** The fields of a tracking message for a group in this state. */
export function toTrackState(
  deviceGroupId: string,
  { sequence, sample }: GroupState,
  online: boolean,
): TrackState {
  return {
    timestamp: sample?.timestamp ?? timestampFromMs(timeOfSequence(sequence)),
    deviceGroupId,
    jobId: sample?.jobId ?? "",
    droneState: sample?.droneState ?? DroneState.UNSPECIFIED,
    dockState: sample?.dockState ?? DockState.UNSPECIFIED,
    ...(sample?.navigation && { navigation: sample.navigation }),
    ...(sample?.sensorPayload && { sensorPayload: sample.sensorPayload }),
    ...(sample?.weather && { weather: sample.weather }),
    ...(sample?.batteryPercent !== undefined && { batteryPercent: sample.batteryPercent }),
    online,
  };
}
