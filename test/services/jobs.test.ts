import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { RequestInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { DispatchCommand } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import { DispatchService } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { ActionOnArrival } from "#gen/portolan/jobs/v1/job_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason, reader, startTestServer, type TestServer } from "#test/support/server.ts";

onEachEngine((database) => {
  let server: TestServer;
  let jobs: Client<typeof JobService>;
  let device: Client<typeof DispatchService>;

  beforeAll(async () => {
    server = await startTestServer(database());
    jobs = server.client(JobService, (await server.newKey(Role.PILOT)).secret);
    device = server.client(DispatchService, (await server.newKey(Role.DEVICE)).secret);
  });
  afterAll(() => server.stop());

  const newJob = async (deviceGroupId: string, fields: object = {}) => {
    const { job } = await jobs.createJob({ name: "Inspect", deviceGroupId, missionId: "m-1", ...fields });
    if (!job) throw new Error("no job");
    return job;
  };
  const stateOf = async (jobId: string) => (await jobs.getJob({ jobId })).job?.status;
  /** The next order of a watch. */
  const order = async (watch: ReturnType<typeof reader<{ dispatch?: unknown }>>) =>
    (
      (await watch.until(({ dispatch }) => dispatch !== undefined)) as never as {
        dispatch: { dispatchId: string; command: DispatchCommand; job: { jobId: string } };
      }
    ).dispatch;
  /** A group with a watching device and a job that runs. */
  async function running() {
    const deviceGroupId = await server.newGroup();
    const watch = reader(device.watchDispatches({ deviceGroupId }));
    const job = await newJob(deviceGroupId);
    const { dispatchId } = await order(watch);
    await device.acknowledgeDispatch({ deviceGroupId, dispatchId });
    await device.reportJob({ jobId: job.jobId, state: JobState.INPROGRESS, progress: 10 });
    return { deviceGroupId, watch, job };
  }

  it("carries a job from its request to its completion by the device", async () => {
    const deviceGroupId = await server.newGroup();
    const { jobId, status, etag } = await newJob(deviceGroupId, { priority: 7 });
    expect([status, etag]).toEqual([JobState.PENDING, "1"]);
    const watch = reader(device.watchDispatches({ deviceGroupId }));
    const dispatch = await order(watch);
    expect(dispatch).toMatchObject({ command: DispatchCommand.START, job: { jobId, priority: 7 } });
    expect(await stateOf(jobId)).toBe(JobState.QUEUED);
    const resources = server.client(ResourceService, server.admin);
    expect((await resources.getResource({ deviceGroupId })).resource?.online).toBe(true);

    const { dispatchId } = dispatch;
    await device.acknowledgeDispatch({ deviceGroupId, dispatchId });
    await device.acknowledgeDispatch({ deviceGroupId, dispatchId });
    await expectReason(device.acknowledgeDispatch({ deviceGroupId, dispatchId: "d" }), "DISPATCH_NOT_FOUND");
    await device.reportJob({ jobId, state: JobState.INPROGRESS });
    await device.reportJob({ jobId, state: JobState.INPROGRESS, progress: 40 });
    expect((await jobs.getJob({ jobId })).job).toMatchObject({ status: JobState.INPROGRESS, progress: 40 });
    const { job } = await device.reportJob({ jobId, state: JobState.COMPLETED });
    expect(job).toMatchObject({ status: JobState.COMPLETED, progress: 100 });
    expect(job?.startedAt && job.endedAt).toBeTruthy();
    await expectReason(device.reportJob({ jobId, state: JobState.INPROGRESS }), "ILLEGAL_JOB_STATE");
    await watch.stop();
  });

  it("gives the next job to the group when the one before has ended", async () => {
    const { watch, job, deviceGroupId } = await running();
    const next = await newJob(deviceGroupId, { name: "next" });
    const urgent = await newJob(deviceGroupId, { name: "urgent", priority: 10 });
    await vi.waitFor(async () => expect(await stateOf(urgent.jobId)).toBe(JobState.QUEUED), 90_000);
    await device.reportJob({
      jobId: job.jobId,
      state: JobState.FAILED,
      errorReason: "WIND",
      errorMessage: "gusts",
    });
    expect((await jobs.getJob({ jobId: job.jobId })).job).toMatchObject({
      errorReason: "WIND",
      errorMessage: "gusts",
    });
    expect((await order(watch)).job.jobId).toBe(urgent.jobId);
    await watch.stop();
    expect(await stateOf(next.jobId)).toBe(JobState.QUEUED);
    await expectReason(
      server.client(ResourceService, server.admin).deleteResource({ deviceGroupId }),
      "RESOURCE_BUSY",
    );
  });

  it("repeats orders that were not acknowledged to a device that comes back", async () => {
    const deviceGroupId = await server.newGroup();
    await newJob(deviceGroupId);
    const first = reader(device.watchDispatches({ deviceGroupId }));
    const { dispatchId } = await order(first);
    await first.stop();
    const second = reader(device.watchDispatches({ deviceGroupId }));
    expect((await order(second)).dispatchId).toBe(dispatchId);
    await second.stop();
  });

  it("cancels a waiting job at once, and only once", async () => {
    const { jobId } = await newJob(await server.newGroup());
    const { job } = await jobs.cancelJob({ jobId, reason: "weather" });
    expect(job).toMatchObject({ status: JobState.CANCELLED, errorMessage: "weather" });
    expect(job?.cancelledAt).toEqual(job?.endedAt);
    await expectReason(jobs.cancelJob({ jobId }), "JOB_NOT_CANCELLABLE");
  });

  it("tells a device that has been given a job to stop when the job is cancelled before launch", async () => {
    const deviceGroupId = await server.newGroup();
    const { jobId } = await newJob(deviceGroupId);
    const watch = reader(device.watchDispatches({ deviceGroupId }));
    await order(watch);
    expect((await jobs.cancelJob({ jobId })).job?.status).toBe(JobState.CANCELLED);
    expect(await order(watch)).toMatchObject({ command: DispatchCommand.CANCEL, job: { jobId } });
    await watch.stop();
  });

  it("cancels a running job when its device confirms", async () => {
    const { watch, job } = await running();
    const { jobId } = job;
    const asked = await jobs.cancelJob({ jobId });
    expect(asked.job?.status).toBe(JobState.INPROGRESS);
    expect(asked.job?.cancelRequestedAt).toBeDefined();
    expect((await jobs.cancelJob({ jobId })).job?.etag).toBe(asked.job?.etag);
    expect((await order(watch)).command).toBe(DispatchCommand.CANCEL);
    await device.reportJob({ jobId, state: JobState.CANCELLED });
    expect(await stateOf(jobId)).toBe(JobState.CANCELLED);
    await watch.stop();
  });

  it("fails a job that its device refuses", async () => {
    const deviceGroupId = await server.newGroup();
    const { jobId } = await newJob(deviceGroupId);
    const watch = reader(device.watchDispatches({ deviceGroupId }));
    const { dispatchId } = await order(watch);
    await device.acknowledgeDispatch({ deviceGroupId, dispatchId, rejected: true, message: "no battery" });
    const { job } = await jobs.getJob({ jobId });
    expect(job).toMatchObject({
      status: JobState.FAILED,
      errorReason: "DISPATCH_REJECTED",
      errorMessage: "no battery",
    });
    await watch.stop();
  });

  it("deletes jobs that wait or have ended, and none that runs", async () => {
    const { job, watch } = await running();
    await expectReason(jobs.deleteJob({ jobId: job.jobId }), "ILLEGAL_JOB_STATE");
    await device.reportJob({ jobId: job.jobId, state: JobState.COMPLETED });
    const waiting = await newJob(await server.newGroup());
    for (const { jobId } of [job, waiting]) {
      expect((await jobs.deleteJob({ jobId })).message).toBe("Job deleted successfully");
      await expectReason(jobs.getJob({ jobId }), "JOB_NOT_FOUND");
      await expectReason(jobs.deleteJob({ jobId }), "JOB_NOT_FOUND");
    }
    await watch.stop();
  });

  it("tells the request id of a failure in another service once", async () => {
    const failure = await expectReason(newJob("none"), "DEVICE_GROUP_NOT_FOUND");
    expect(failure.findDetails(RequestInfoSchema)).toHaveLength(1);
  });

  it("does not delete a job that a device has taken: it must be cancelled, so that the device hears", async () => {
    const deviceGroupId = await server.newGroup();
    const { jobId } = await newJob(deviceGroupId);
    const watch = reader(device.watchDispatches({ deviceGroupId }));
    const { dispatchId } = await order(watch);
    await device.acknowledgeDispatch({ deviceGroupId, dispatchId });
    await expectReason(jobs.deleteJob({ jobId }), "ILLEGAL_JOB_STATE");
    await jobs.cancelJob({ jobId });
    expect((await order(watch)).command).toBe(DispatchCommand.CANCEL);
    await jobs.deleteJob({ jobId });
    await watch.stop();
  });

  it("updates what is set, and with an etag only what was read", async () => {
    const scheduledAt = { seconds: BigInt(Math.floor(Date.now() / 1000) + 3600), nanos: 0 };
    const { jobId, etag } = await newJob(await server.newGroup(), { description: "old", scheduledAt });
    const { job } = await jobs.updateJob({ jobId, etag, name: "New", priority: 1, metadata: { a: 1 } });
    expect(job).toMatchObject({ name: "New", description: "old", priority: 1, metadata: { a: 1 } });
    await expectReason(jobs.updateJob({ jobId, etag, name: "Newer" }), "ETAG_MISMATCH");
    expect((await jobs.updateJob({ jobId, description: "" })).job).toMatchObject({
      name: "New",
      description: "",
    });
    await jobs.cancelJob({ jobId });
    await expectReason(jobs.updateJob({ jobId, name: "x" }), "ILLEGAL_JOB_STATE");
  });

  it("takes concurrent updates without an etag one after another", async () => {
    const scheduledAt = { seconds: BigInt(Math.floor(Date.now() / 1000) + 3600), nanos: 0 };
    const { jobId } = await newJob(await server.newGroup(), { scheduledAt });
    await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map((priority) => jobs.updateJob({ jobId, priority })));
    expect((await jobs.getJob({ jobId })).job?.etag).toBe("9");
  });

  it("refuses jobs for groups and devices that are not there or not online", async () => {
    const deviceGroupId = await server.newGroup(undefined, ["drone-of-jobs"]);
    await expectReason(jobs.createJob({ name: "a", deviceGroupId: "none" }), "DEVICE_GROUP_NOT_FOUND");
    await expectReason(jobs.createJob({ name: "a", deviceGroupId, deviceId: "none" }), "DEVICE_NOT_FOUND");
    await expectReason(jobs.createJob({ name: "a", deviceGroupId, requireOnline: true }), "DEVICE_OFFLINE");
    await expectReason(jobs.createJob({ deviceGroupId }), "VALIDATION_ERROR");
    expect((await newJob(deviceGroupId, { deviceId: "drone-of-jobs" })).deviceId).toBe("drone-of-jobs");
  });

  it("lists jobs newest first, page by page, by state and group", async () => {
    const deviceGroupId = await server.newGroup();
    const made: string[] = [];
    for (let index = 0; index < 5; index++) made.unshift((await newJob(deviceGroupId)).jobId);
    const listed: string[] = [];
    for (let pageToken = ""; ; ) {
      const page = await jobs.listJobs({ deviceGroupId, limit: 2, pageToken });
      expect(page.count).toBe(page.jobs.length);
      listed.push(...page.jobs.map(({ jobId }) => jobId));
      pageToken = page.nextPageToken;
      if (!pageToken) break;
      await expectReason(jobs.listJobs({ limit: 2, pageToken }), "INVALID_PAGE_TOKEN");
    }
    expect(listed).toEqual(made);
    expect((await jobs.listJobs({ deviceGroupId, status: JobState.COMPLETED })).count).toBe(0);
  });

  it("takes both published shapes of a request over REST", async () => {
    const deviceGroupId = await server.newGroup();
    const byAction = await server.rest("POST", "/v3/jobs/create", {
      body: {
        DeviceGroupID: deviceGroupId,
        ActionOnArrival: "HOVER",
        MissionID: "m-1",
        DesiredLocation: { type: "Point", coordinates: [4.9, 52.4, 40] },
      },
    });
    expect([byAction.status, byAction.json.success]).toEqual([201, true]);
    const byName = await server.rest("POST", "/v3/jobs/create", {
      body: { name: "Roof", deviceGroupId, missionId: "m-2", priority: 8, metadata: { ticket: "T-1" } },
    });
    expect(byName.json.job).toMatchObject({
      name: "Roof",
      priority: 8,
      status: "PENDING",
      metadata: { ticket: "T-1" },
    });
    const { job } = await jobs.getJob({ jobId: byAction.json.job.jobId });
    expect(job).toMatchObject({ actionOnArrival: ActionOnArrival.HOVER, missionId: "m-1" });
    expect(job?.desiredLocation?.coordinates).toEqual([4.9, 52.4, 40]);
  });
});
