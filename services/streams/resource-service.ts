import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import {
  type Device,
  DeviceSchema,
  DeviceStatus,
  type Resource,
  ResourceSchema,
} from "#gen/portolan/streams/v1/resource_pb.js";
import type { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { tenantOf } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import { demandEtag } from "#kernel/etag.ts";
import type { Tx } from "#kernel/events.ts";
import { followTopic } from "#kernel/follow.ts";
import { newId } from "#kernel/ids.ts";
import type { Kernel } from "#kernel/kernel.ts";
import type { LiveGroups } from "./live-groups.ts";
import { streamsOf } from "./store.ts";

/** What a caller may tell of a device. */
const told = ({ deviceId, name, type }: Device): Device => create(DeviceSchema, { deviceId, name, type });

/** Handlers of ResourceService. */
export function createResourceService(
  kernel: Kernel,
  groups: LiveGroups,
): ServiceImpl<typeof ResourceService> {
  /** The resource with what is known of its devices at this moment. */
  function withPresence(tenantId: string, resource: Resource): Resource {
    const { presence } = kernel;
    const { deviceGroupId } = resource;
    return create(ResourceSchema, {
      ...resource,
      deviceCount: resource.devices.length,
      online: presence.online(tenantId, deviceGroupId),
      devices: resource.devices.map((device) => {
        const heard = presence.lastHeard(tenantId, deviceGroupId, device.deviceId);
        const online = presence.online(tenantId, deviceGroupId, device.deviceId);
        return create(DeviceSchema, {
          ...device,
          status: online ? DeviceStatus.ONLINE : DeviceStatus.OFFLINE,
          ...(heard !== undefined && { lastSeenAt: timestampFromMs(heard) }),
        });
      }),
    });
  }

  async function claimDevices(tx: Tx, tenantId: string, resource: Resource): Promise<void> {
    const ids = resource.devices.map((device) => device.deviceId);
    const taken = await streamsOf(tenantId, tx.queries).replaceDevices(resource.deviceGroupId, ids);
    if (taken) throw fail("RESOURCE_EXISTS", { message: `Device ${taken} belongs to another device group` });
  }

  async function hasOpenJobs(deviceGroupId: string, context: HandlerContext): Promise<boolean> {
    const jobs = kernel.peer(JobService, context);
    for (const status of [JobState.PENDING, JobState.QUEUED, JobState.INPROGRESS]) {
      const { count } = await jobs.listJobs({ deviceGroupId, status, limit: 1 });
      if (count > 0) return true;
    }
    return false;
  }

  return {
    async listResources(request, context) {
      const tenantId = tenantOf(context);
      const { items, ...page } = await streamsOf(tenantId, kernel.database.read).list(request);
      const resources = items.map((resource) => withPresence(tenantId, resource));
      return { resources, count: resources.length, ...page };
    },

    async getResource(request, context) {
      const tenantId = tenantOf(context);
      const resource = await streamsOf(tenantId, kernel.database.read).get(request.deviceGroupId);
      if (!resource) throw fail("DEVICE_GROUP_NOT_FOUND");
      return { resource: withPresence(tenantId, resource) };
    },

    async registerResource(request, context) {
      const tenantId = tenantOf(context);
      const now = kernel.nowMs();
      const resource = create(ResourceSchema, {
        deviceGroupId: request.deviceGroupId || newId("group", now),
        name: request.name,
        description: request.description,
        devices: request.devices.map(told),
        ...(request.home && { home: request.home }),
        createdAt: timestampFromMs(now),
        updatedAt: timestampFromMs(now),
      });
      return kernel.mutate(context, async (tx) => {
        const inserted = await streamsOf(tenantId, tx.queries).insert(resource, now);
        if (!inserted) throw fail("RESOURCE_EXISTS");
        tx.changing(ResourceSchema, "deviceGroupId")(resource);
        await claimDevices(tx, tenantId, resource);
        await tx.emit(
          { tenantId, type: "resource.registered", subject: resource.deviceGroupId, timeMs: now },
          ResourceSchema,
          resource,
        );
        return { resource: withPresence(tenantId, resource) };
      });
    },

    async updateResource(request, context) {
      const tenantId = tenantOf(context);
      const now = kernel.nowMs();
      const response = await kernel.mutate(context, async (tx) => {
        const store = streamsOf(tenantId, tx.queries);
        const present = await store.get(request.deviceGroupId);
        if (!present) throw fail("DEVICE_GROUP_NOT_FOUND");
        demandEtag(request.etag, present.etag);
        const resource = create(ResourceSchema, {
          ...present,
          name: request.name ?? present.name,
          description: request.description ?? present.description,
          ...(request.home && { home: request.home }),
          ...(request.devices.length > 0 && { devices: request.devices.map(told) }),
          updatedAt: timestampFromMs(now),
        });
        await store.update(resource);
        tx.changing(ResourceSchema, "deviceGroupId", present)(resource);
        if (request.devices.length > 0) await claimDevices(tx, tenantId, resource);
        await tx.emit(
          { tenantId, type: "resource.updated", subject: resource.deviceGroupId, timeMs: now },
          ResourceSchema,
          resource,
        );
        return { resource: withPresence(tenantId, resource) };
      });
      groups.update(tenantId, response.resource);
      return response;
    },

    async deleteResource(request, context) {
      const tenantId = tenantOf(context);
      const { deviceGroupId } = request;
      if (await hasOpenJobs(deviceGroupId, context)) throw fail("RESOURCE_BUSY");
      const response = await kernel.mutate(context, async (tx) => {
        const store = streamsOf(tenantId, tx.queries);
        const present = await store.get(deviceGroupId);
        if (!present) throw fail("DEVICE_GROUP_NOT_FOUND");
        demandEtag(request.etag, present.etag);
        await store.delete(deviceGroupId);
        tx.changing(ResourceSchema, "deviceGroupId", present)();
        await tx.emit(
          { tenantId, type: "resource.deleted", subject: deviceGroupId, timeMs: kernel.nowMs() },
          ResourceSchema,
          present,
        );
        return { message: "Resource deleted successfully" };
      });
      kernel.database.afterCommit(() => groups.drop(tenantId, deviceGroupId));
      return response;
    },

    trackResource: (request, context) =>
      followTopic(kernel, context, {
        kind: "resource",
        id: request.deviceGroupId,
        afterSequence: request.afterSequence,
        missing: "DEVICE_GROUP_NOT_FOUND",
      }),
  };
}
