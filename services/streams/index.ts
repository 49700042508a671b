import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { TrackService } from "#gen/portolan/streams/v1/track_service_pb.js";
import { type Kernel, type ServiceModule, serve } from "#kernel/kernel.ts";
import { LiveGroups } from "./live-groups.ts";
import { createResourceService } from "./resource-service.ts";
import { startRetention } from "./retention.ts";
import { migrations, resourceList, sampleList } from "./store.ts";
import { createTelemetryService } from "./telemetry-service.ts";
import { createTrackService } from "./track-service.ts";

/** Device groups, telemetry and tracking. */
export function createStreams(kernel: Kernel): ServiceModule {
  const groups = new LiveGroups(kernel);
  kernel.topics.provide("resource", (tenantId, id) => groups.open(tenantId, id), "");
  const closing = new AbortController();
  let stopRetention: (() => void) | undefined;
  return {
    services: [
      serve(ResourceService, createResourceService(kernel, groups)),
      serve(TelemetryService, createTelemetryService(kernel, groups, closing.signal)),
      serve(TrackService, createTrackService(kernel)),
    ],
    migrations,
    lists: [resourceList, sampleList],
    start() {
      stopRetention = startRetention(kernel);
    },
    stop() {
      closing.abort();
      stopRetention?.();
    },
  };
}
