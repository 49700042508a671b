import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DockState, DroneState, JobState, TrackKind } from "#gen/portolan/common/v1/track_pb.js";
import { DispatchService } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { TrackService } from "#gen/portolan/streams/v1/track_service_pb.js";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason, reader, startTestServer, type TestServer } from "#test/support/server.ts";

onEachEngine((database) => {
  let server: TestServer;
  let telemetry: Client<typeof TelemetryService>;
  let resources: Client<typeof ResourceService>;
  let jobs: Client<typeof JobService>;
  let device: Client<typeof DispatchService>;
  let tracks: Client<typeof TrackService>;

  beforeAll(async () => {
    server = await startTestServer(database());
    telemetry = server.client(TelemetryService, server.admin);
    resources = server.client(ResourceService, server.admin);
    jobs = server.client(JobService, server.admin);
    device = server.client(DispatchService, server.admin);
    tracks = server.client(TrackService, server.admin);
  });
  afterAll(() => server.stop());

  const publish = (deviceGroupId: string, sample: object) =>
    telemetry.publishSample({ deviceGroupId, sample });
  /** Publishes as many samples in one stream; their battery counts up. */
  const publishMany = (deviceGroupId: string, count: number, sample: object = {}) =>
    telemetry.publishTelemetry(
      (async function* () {
        for (let index = 0; index < count; index++) {
          yield {
            deviceGroupId: index === 0 ? deviceGroupId : "",
            sample: { batteryPercent: index % 100, ...sample },
          };
        }
      })(),
    );
  const growing = (sequences: readonly bigint[]) =>
    sequences.every((each, index) => index === 0 || each > (sequences[index - 1] as bigint));

  describe("telemetry", () => {
    it("stores a stream of samples in the order in which they came, and counts them", async () => {
      const deviceGroupId = await server.newGroup();
      const { accepted, lastSequence } = await publishMany(deviceGroupId, 90);
      const { samples } = await telemetry.listSamples({ deviceGroupId, limit: 1000 });
      expect(accepted).toBe(90n);
      expect(samples.map(({ sample }) => sample?.batteryPercent)).toEqual(
        Array.from({ length: 90 }, (_, i) => i),
      );
      expect(samples.at(-1)?.sequence).toBe(lastSequence);
      expect(growing(samples.map(({ sequence }) => sequence))).toBe(true);
    });

    it("ends a stream at the first bad sample and keeps those before it", async () => {
      const deviceGroupId = await server.newGroup();
      const stream = telemetry.publishTelemetry(
        (async function* () {
          yield { deviceGroupId, sample: { batteryPercent: 50 } };
          yield { deviceGroupId, sample: { batteryPercent: 101 } };
        })(),
      );
      await expectReason(stream, "VALIDATION_ERROR");
      await expect
        .poll(async () => (await telemetry.listSamples({ deviceGroupId })).count, { timeout: 90_000 })
        .toBe(1);
      await expectReason(publish("none", {}), "DEVICE_GROUP_NOT_FOUND");
      await expectReason(
        publish(deviceGroupId, { timestamp: timestampFromMs(Date.now() + 90_000) }),
        "VALIDATION_ERROR",
      );
    });

    it("lists samples page by page, by job and by time of arrival", async () => {
      const deviceGroupId = await server.newGroup();
      await publishMany(deviceGroupId, 5);
      await publishMany(deviceGroupId, 2, { jobId: "job-x" });
      const all = (await telemetry.listSamples({ deviceGroupId })).samples;
      const paged: bigint[] = [];
      for (let pageToken = ""; ; ) {
        const page = await telemetry.listSamples({ deviceGroupId, limit: 3, pageToken });
        paged.push(...page.samples.map(({ sequence }) => sequence));
        pageToken = page.nextPageToken;
        if (!pageToken) break;
      }
      expect(paged).toEqual(all.map(({ sequence }) => sequence));
      expect((await telemetry.listSamples({ deviceGroupId, jobId: "job-x" })).count).toBe(2);
      const from = all[0]?.receivedAt;
      const hence = timestampFromMs(Date.now() + 1000);
      expect((await telemetry.listSamples({ deviceGroupId, startTime: from, endTime: hence })).count).toBe(7);
      expect((await telemetry.listSamples({ deviceGroupId, startTime: hence })).count).toBe(0);
      expect((await telemetry.listSamples({ deviceGroupId, endTime: from })).count).toBe(0);
    });

    it("takes samples of the group's own devices only", async () => {
      const deviceGroupId = await server.newGroup(undefined, ["drone-own"]);
      await server.newGroup(undefined, ["drone-other"]);
      await publish(deviceGroupId, { deviceId: "drone-own" });
      await expectReason(publish(deviceGroupId, { deviceId: "drone-other" }), "DEVICE_NOT_FOUND");
      await resources.updateResource({ deviceGroupId, devices: [{ deviceId: "drone-new" }] });
      await publish(deviceGroupId, { deviceId: "drone-new" });
      await expectReason(publish(deviceGroupId, { deviceId: "drone-own" }), "DEVICE_NOT_FOUND");
      await publish(deviceGroupId, {});
    });

    it.each([0, 10_000])("replays a track at speed %d with its merged states", async (speed) => {
      const deviceGroupId = await server.newGroup();
      const start = Date.now() - 100_000;
      await publish(deviceGroupId, { dockState: DockState.OPEN, timestamp: timestampFromMs(start) });
      for (const second of [30, 60, 90]) {
        await publish(deviceGroupId, {
          batteryPercent: second,
          timestamp: timestampFromMs(start + second * 1000),
        });
      }
      const played = await reader(telemetry.replayTrack({ deviceGroupId, speed })).rest();
      expect(played.map(({ batteryPercent }) => batteryPercent)).toEqual([undefined, 30, 60, 90]);
      expect(
        played.every((each) => each.kind === TrackKind.HISTORY && each.dockState === DockState.OPEN),
      ).toBe(true);
      expect(growing(played.map(({ sequence }) => sequence))).toBe(true);
    });
  });

  describe("tracking a device group", () => {
    it("gives a snapshot, then what changed, then a final message when the group is deleted", async () => {
      const deviceGroupId = await server.newGroup(undefined, ["drone-s"]);
      await publish(deviceGroupId, { deviceId: "drone-s", droneState: DroneState.LANDED });
      const track = reader(resources.trackResource({ deviceGroupId }));
      const byDevice = reader(tracks.track({ resourceId: "drone-s" }));
      const first = await track.next();
      expect(first).toMatchObject({ kind: TrackKind.STATE, droneState: DroneState.LANDED, online: true });
      expect(await byDevice.next()).toMatchObject({ deviceGroupId, droneState: DroneState.LANDED });
      await byDevice.stop();
      const { sequence } = await publish(deviceGroupId, { batteryPercent: 33 });
      const changed = await track.until((each) => each.kind === TrackKind.STATE);
      expect(changed).toMatchObject({ batteryPercent: 33, droneState: DroneState.LANDED, sequence });
      const beat = await track.until((each) => each.kind === TrackKind.HEARTBEAT);
      await resources.deleteResource({ deviceGroupId });
      const rest = await track.rest();
      expect(rest.at(-1)).toMatchObject({ kind: TrackKind.FINAL, message: "The device group was deleted" });
      expect(
        growing([
          first?.sequence ?? 0n,
          changed.sequence,
          beat.sequence,
          ...rest.map((each) => each.sequence),
        ]),
      ).toBe(true);
      await expectReason(resources.trackResource({ deviceGroupId }), "DEVICE_GROUP_NOT_FOUND");
    });

    it("resumes after a sequence with all that was recorded, once, and full states", async () => {
      const deviceGroupId = await server.newGroup();
      await publish(deviceGroupId, { droneState: DroneState.HOVER });
      const { sequence: seen } = await publish(deviceGroupId, { batteryPercent: 1 });
      const later: bigint[] = [];
      for (const batteryPercent of [2, 3])
        later.push((await publish(deviceGroupId, { batteryPercent })).sequence);
      const track = reader(resources.trackResource({ deviceGroupId, afterSequence: seen }));
      const history = [await track.next(), await track.next()];
      expect(history.map((each) => [each?.kind, each?.sequence])).toEqual(
        later.map((each) => [TrackKind.HISTORY, each]),
      );
      expect(history.map((each) => each?.droneState)).toEqual([DroneState.HOVER, DroneState.HOVER]);
      const live = await track.next();
      expect(live).toMatchObject({ batteryPercent: 3, droneState: DroneState.HOVER });
      expect((live?.sequence ?? 0n) > (later[1] ?? 0n)).toBe(true);
      await track.stop();
    });

    it("takes any sequence to resume after without harm to others", async () => {
      const deviceGroupId = await server.newGroup();
      const far = reader(resources.trackResource({ deviceGroupId, afterSequence: 2n ** 64n - 1n }));
      expect((await far.next())?.deviceGroupId).toBe(deviceGroupId);
      const near = reader(resources.trackResource({ deviceGroupId }));
      expect(Number((await near.next())?.sequence)).toBeLessThan((Date.now() + 1000) * 1000);
      await Promise.all([far.stop(), near.stop()]);
    });
  });

  describe("tracking a job", () => {
    it("gives the states of the job up to the final one, and afterwards the final one alone", async () => {
      const deviceGroupId = await server.newGroup();
      const { job } = await jobs.createJob({ name: "a", deviceGroupId });
      const jobId = job?.jobId ?? "";
      const track = reader(jobs.trackJob({ jobId }));
      expect(await track.next()).toMatchObject({ kind: TrackKind.STATE, jobId, subject: jobId });
      await device.reportJob({ jobId, state: JobState.INPROGRESS, progress: 25 });
      await track.until((each) => each.jobState === JobState.INPROGRESS && each.progress === 25);
      await publish(deviceGroupId, { jobId, droneState: DroneState.WAYPOINT });
      expect((await track.until((each) => each.droneState === DroneState.WAYPOINT)).progress).toBe(25);
      await device.reportJob({ jobId, state: JobState.COMPLETED });
      const rest = await track.rest();
      expect(rest.at(-1)).toMatchObject({
        kind: TrackKind.FINAL,
        jobState: JobState.COMPLETED,
        progress: 100,
      });
      expect(rest.slice(0, -1).some((each) => each.jobState === JobState.COMPLETED)).toBe(false);
      const late = await reader(tracks.track({ resourceId: jobId })).rest();
      expect(late.map(({ kind }) => kind)).toEqual([TrackKind.FINAL]);
    });

    it("resumes an ended job with its history and tells its end once, also if its group went on", async () => {
      const deviceGroupId = await server.newGroup();
      const { job } = await jobs.createJob({ name: "a", deviceGroupId });
      const jobId = job?.jobId ?? "";
      await device.reportJob({ jobId, state: JobState.INPROGRESS });
      await publish(deviceGroupId, { jobId, batteryPercent: 80 });
      await device.reportJob({ jobId, state: JobState.FAILED, errorMessage: "gusts" });
      await publish(deviceGroupId, { jobId, batteryPercent: 70 });
      const afterSequence = BigInt(timestampMs(job?.createdAt ?? timestampFromMs(0)) - 1) * 1000n;
      const played = await reader(jobs.trackJob({ jobId, afterSequence })).rest();
      expect(played.some((each) => each.batteryPercent === 80 && each.jobState === JobState.INPROGRESS)).toBe(
        true,
      );
      expect(played.filter((each) => each.jobState === JobState.FAILED).map(({ kind }) => kind)).toEqual([
        TrackKind.FINAL,
      ]);
      expect(played.at(-1)).toMatchObject({ message: "gusts" });
      expect(growing(played.map(({ sequence }) => sequence))).toBe(true);
    });

    it("knows nothing under an id that names nothing", async () => {
      await expectReason(jobs.trackJob({ jobId: "job-none" }), "JOB_NOT_FOUND");
      await expectReason(tracks.track({ resourceId: "none" }), "SUBJECT_NOT_FOUND");
      await expectReason(tracks.track({ resourceId: "job-none" }), "SUBJECT_NOT_FOUND");
    });
  });
});
