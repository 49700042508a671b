import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient, type Transport } from "@connectrpc/connect";
import { DockState, DroneState, JobState } from "#gen/portolan/common/v1/track_pb.js";
import { type Dispatch, DispatchCommand } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import { DispatchService } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { DeviceType } from "#gen/portolan/streams/v1/resource_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import type { TelemetrySampleSchema } from "#gen/portolan/streams/v1/telemetry_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";

/** A device group that does what a test tells it. */
export interface Device {
  readonly deviceGroupId: string;
  /** The next order; an order that came before is given first. */
  nextOrder(): Promise<Dispatch>;
  acknowledge(order: Dispatch, rejected?: { message: string }): Promise<void>;
  /** Waits for the START of a job, acknowledges it and reports the launch. */
  launch(jobId: string): Promise<void>;
  report(jobId: string, state: JobState, progress?: number): Promise<void>;
  /** Publishes one sample and gives its sequence. */
  publish(sample: MessageInitShape<typeof TelemetrySampleSchema>): Promise<bigint>;
  /** Ends the watch. */
  stop(): Promise<void>;
}

/** Registers a device group with a dock and a drone, and watches its orders. */
export async function startDevice(transport: Transport, deviceGroupId: string): Promise<Device> {
  const resources = createClient(ResourceService, transport);
  const dispatches = createClient(DispatchService, transport);
  const telemetry = createClient(TelemetryService, transport);
  await resources.registerResource({
    deviceGroupId,
    name: `Group ${deviceGroupId}`,
    devices: [
      { deviceId: `${deviceGroupId}-dock`, name: "Dock", type: DeviceType.DOCK },
      { deviceId: `${deviceGroupId}-drone`, name: "Drone", type: DeviceType.DRONE },
    ],
  });

  const ending = new AbortController();
  const orders: Dispatch[] = [];
  const waiting: { resolve(order: Dispatch): void; reject(reason: unknown): void }[] = [];
  const watching = (async () => {
    const stream = dispatches.watchDispatches({ deviceGroupId }, { signal: ending.signal });
    for await (const { dispatch } of stream) {
      if (!dispatch) continue;
      const first = waiting.shift();
      if (first) first.resolve(dispatch);
      else orders.push(dispatch);
    }
    throw new Error("the watch has ended");
  })().catch((error) => {
    for (const one of waiting.splice(0)) one.reject(error);
  });

  const device: Device = {
    deviceGroupId,
    nextOrder() {
      const [order] = orders.splice(0, 1);
      if (order) return Promise.resolve(order);
      return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
    },
    async acknowledge({ dispatchId }, rejected) {
      const answer = rejected ? { rejected: true, message: rejected.message } : {};
      await dispatches.acknowledgeDispatch({ deviceGroupId, dispatchId, ...answer });
    },
    async launch(jobId) {
      for (;;) {
        const order = await device.nextOrder();
        await device.acknowledge(order);
        if (order.command === DispatchCommand.START && order.job?.jobId === jobId) break;
      }
      await device.report(jobId, JobState.INPROGRESS, 0);
    },
    async report(jobId, state, progress) {
      await dispatches.reportJob({ jobId, state, ...(progress !== undefined && { progress }) });
    },
    async publish(sample) {
      return (await telemetry.publishSample({ deviceGroupId, sample })).sequence;
    },
    async stop() {
      ending.abort();
      await watching;
    },
  };
  return device;
}

/** A sample of a drone in flight. */
export const flying = (
  deviceGroupId: string,
  jobId: string,
  [lon, lat, altitude]: [number, number, number],
): MessageInitShape<typeof TelemetrySampleSchema> => ({
  deviceId: `${deviceGroupId}-drone`,
  jobId,
  droneState: DroneState.WAYPOINT,
  dockState: DockState.TASK_INPROGRESS,
  navigation: {
    position: { type: "Point", coordinates: [lon, lat, altitude] },
    orientation: { heading: 90, pitch: 0, roll: 0 },
    velocity: { groundSpeed: 8, verticalSpeed: 0 },
  },
  sensorPayload: { camera: { orientation: { pitch: -45, yaw: 0, roll: 0 } } },
  weather: { windSpeed: 3.5, windDirection: 200, temperature: 18.5, humidity: 60, rain: false },
  batteryPercent: 80,
});
