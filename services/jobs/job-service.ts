import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { DispatchCommand } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import { ActionOnArrival, type Job, JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import type { CreateJobRequest, JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { tenantOf } from "#kernel/call.ts";
import { durationOf, fail } from "#kernel/errors.ts";
import { demandEtag } from "#kernel/etag.ts";
import { followTopic } from "#kernel/follow.ts";
import { newId } from "#kernel/ids.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { createChanges } from "./changes.ts";
import { isFinal } from "./job-state.ts";
import { jobsOf, type StoredDispatch } from "./store.ts";

const defaultPriority = 5;
const defaultMaxDurationMs = 2 * 60 * 60 * 1000;
const defaultQueueTimeoutMs = 60 * 60 * 1000;

/** Handlers of JobService. */
export function createJobService(kernel: Kernel): ServiceImpl<typeof JobService> {
  const changes = createChanges(kernel);

  async function demandDevice(request: CreateJobRequest, context: HandlerContext): Promise<void> {
    const { deviceGroupId, deviceId, requireOnline } = request;
    const { resource } = await kernel.peer(ResourceService, context).getResource({ deviceGroupId });
    if (deviceId && !resource?.devices.some((device) => device.deviceId === deviceId)) {
      throw fail("DEVICE_NOT_FOUND");
    }
    if (requireOnline && !resource?.online) throw fail("DEVICE_OFFLINE");
  }

  return {
    async createJob(request, context) {
      const tenantId = tenantOf(context);
      await demandDevice(request, context);
      const now = kernel.nowMs();
      const job = newJob(request, now);
      return kernel.mutate(context, async (tx) => {
        await jobsOf(tenantId, tx.queries).insert(job, kernel.nextSequence());
        job.etag = "1";
        tx.changing(JobSchema, "jobId")(job);
        await changes.emit(tx, tenantId, "created", job);
        return { job };
      });
    },

    async listJobs(request, context) {
      const { items, ...page } = await jobsOf(tenantOf(context), kernel.database.read).list(request);
      return { jobs: items, count: items.length, ...page };
    },

    async getJob(request, context) {
      const job = await jobsOf(tenantOf(context), kernel.database.read).get(request.jobId);
      if (!job) throw fail("JOB_NOT_FOUND");
      return { job };
    },

    async updateJob(request, context) {
      const tenantId = tenantOf(context);
      return kernel.mutate(context, async (tx) => {
        const job = await jobsOf(tenantId, tx.queries).get(request.jobId);
        if (!job) throw fail("JOB_NOT_FOUND");
        demandEtag(request.etag, job.etag);
        if (isFinal(job.status))
          throw fail("ILLEGAL_JOB_STATE", { metadata: { state: JobState[job.status] } });
        const changed = tx.changing(JobSchema, "jobId", job);
        job.name = request.name ?? job.name;
        job.description = request.description ?? job.description;
        job.priority = request.priority ?? job.priority;
        if (request.metadata) job.metadata = request.metadata;
        await changes.save(tx, tenantId, job);
        changed(job);
        return { job };
      });
    },

    async deleteJob(request, context) {
      const tenantId = tenantOf(context);
      return kernel.mutate(context, async (tx) => {
        const store = jobsOf(tenantId, tx.queries);
        const job = await store.get(request.jobId);
        if (!job) throw fail("JOB_NOT_FOUND");
        demandEtag(request.etag, job.etag);
        // A device that took the job is about to fly it: it has to be told by a cancellation first.
        const given = await store.dispatchesOfJob(job.jobId);
        const isTaken = ({ command, closedAt }: StoredDispatch) =>
          command === DispatchCommand.START && closedAt !== null;
        const taken = !isFinal(job.status) && given.some(isTaken);
        if (taken || job.status === JobState.INPROGRESS) {
          throw fail("ILLEGAL_JOB_STATE", { metadata: { state: JobState[job.status] } });
        }
        tx.changing(JobSchema, "jobId", job)();
        if (!isFinal(job.status)) await changes.move(tx, tenantId, job, JobState.CANCELLED);
        await store.delete(job.jobId);
        await changes.emit(tx, tenantId, "deleted", job);
        return { message: "Job deleted successfully" };
      });
    },

    async cancelJob(request, context) {
      const tenantId = tenantOf(context);
      return kernel.mutate(context, async (tx) => {
        const job = await jobsOf(tenantId, tx.queries).get(request.jobId);
        if (!job) throw fail("JOB_NOT_FOUND");
        demandEtag(request.etag, job.etag);
        if (isFinal(job.status))
          throw fail("JOB_NOT_CANCELLABLE", { metadata: { state: JobState[job.status] } });
        const changed = tx.changing(JobSchema, "jobId", job);
        if (job.status === JobState.INPROGRESS) {
          // Asking twice must not send the device a second order.
          if (job.cancelRequestedAt) {
            changed(job);
            return { job };
          }
          job.cancelRequestedAt = timestampFromMs(kernel.nowMs());
          job.errorMessage = request.reason;
          await changes.save(tx, tenantId, job, "cancel_requested");
          await changes.order(tx, tenantId, job, DispatchCommand.CANCEL);
          changed(job);
          return { job };
        }
        job.errorMessage = request.reason;
        const started = await changes.closeDispatches(tx, tenantId, job.jobId);
        await changes.move(tx, tenantId, job, JobState.CANCELLED);
        if (started) await changes.order(tx, tenantId, job, DispatchCommand.CANCEL);
        changed(job);
        return { job };
      });
    },

    trackJob: (request, context) =>
      followTopic(kernel, context, {
        kind: "job",
        id: request.jobId,
        afterSequence: request.afterSequence,
        missing: "JOB_NOT_FOUND",
      }),
  };
}

function newJob(request: CreateJobRequest, now: number): Job {
  const jobId = newId("job", now);
  const action =
    request.actionOnArrival || (request.missionId ? ActionOnArrival.MISSION : ActionOnArrival.HOVER);
  return create(JobSchema, {
    jobId,
    name: request.name || `${ActionOnArrival[action]} ${request.missionId}`.trim(),
    description: request.description,
    missionId: request.missionId,
    deviceId: request.deviceId,
    deviceGroupId: request.deviceGroupId,
    status: JobState.PENDING,
    priority: request.priority ?? defaultPriority,
    createdAt: timestampFromMs(now),
    updatedAt: timestampFromMs(now),
    ...(request.scheduledAt && { scheduledAt: request.scheduledAt }),
    actionOnArrival: action,
    ...(request.desiredLocation && { desiredLocation: request.desiredLocation }),
    ...(request.metadata && { metadata: request.metadata }),
    maxDuration: request.maxDuration ?? durationOf(defaultMaxDurationMs),
    queueTimeout: request.queueTimeout ?? durationOf(defaultQueueTimeoutMs),
    links: {
      self: `/v3/jobs/${jobId}`,
      status: `/v3/jobs/${jobId}/status/ws`,
      statusMqtt: `${jobId}/JOB/STATUS`,
    },
  });
}
