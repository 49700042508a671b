import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { durationOf } from "#kernel/errors.ts";
import { cancelConfirmMs, decide, type GroupFacts, offlineMs } from "./dispatcher.ts";

const nowMs = 1_700_000_000_000;
const ago = (ms: number) => timestampFromMs(nowMs - ms);
const minute = 60_000;

const job = (jobId: string, fields: MessageInitShape<typeof JobSchema> = {}) =>
  create(JobSchema, {
    jobId,
    status: JobState.QUEUED,
    priority: 5,
    createdAt: ago(minute),
    maxDuration: durationOf(120 * minute),
    queueTimeout: durationOf(60 * minute),
    ...fields,
  });
const running = (jobId: string, fields: MessageInitShape<typeof JobSchema> = {}) =>
  job(jobId, { status: JobState.INPROGRESS, startedAt: ago(minute / 2), ...fields });

/** The decisions as short texts. */
function decided(jobs: ReturnType<typeof job>[], facts: Partial<GroupFacts> = {}): string[] {
  const all = { nowMs, online: true, heardMs: nowMs, started: new Set<string>(), ...facts };
  return decide(jobs, all).map(
    (each) => `${each.do} ${each.job.jobId}${each.do === "fail" ? ` ${each.reason}` : ""}`,
  );
}

describe("who goes next", () => {
  it("starts the most urgent job, and among equals the oldest", () => {
    const jobs = [
      job("old", { priority: 5 }),
      job("urgent", { priority: 9 }),
      job("urgent-too", { priority: 9 }),
    ];
    expect(decided(jobs)).toEqual(["start urgent"]);
    expect(decided([job("first"), job("second")])).toEqual(["start first"]);
  });

  it("queues what is due and starts one of it at once", () => {
    const jobs = [
      job("a", { status: JobState.PENDING }),
      job("b", { status: JobState.PENDING, priority: 6 }),
    ];
    expect(decided(jobs)).toEqual(["queue a", "queue b", "start b"]);
  });

  it("leaves alone what is not due yet", () => {
    const later = job("later", { status: JobState.PENDING, priority: 10, scheduledAt: ago(-1) });
    expect(decided([later, job("now")])).toEqual(["start now"]);
    expect(decided([job("due", { status: JobState.PENDING, scheduledAt: ago(0) })])).toEqual([
      "queue due",
      "start due",
    ]);
  });

  it("starts nothing while the group is offline, and still queues", () => {
    expect(decided([job("a", { status: JobState.PENDING })], { online: false })).toEqual(["queue a"]);
  });

  it("starts nothing while a job runs or has been given to the group", () => {
    expect(decided([running("flying"), job("next")])).toEqual([]);
    expect(decided([job("given"), job("next", { priority: 10 })], { started: new Set(["given"]) })).toEqual(
      [],
    );
  });

  it("starts the next job when the one that ran has failed at this moment", () => {
    const stuck = running("stuck", { startedAt: ago(3 * 60 * minute) });
    expect(decided([stuck, job("next")])).toEqual(["fail stuck JOB_TIMEOUT", "start next"]);
  });

  it("decides nothing about nothing", () => {
    expect(decided([])).toEqual([]);
  });
});

describe("what takes too long", () => {
  it("fails a job that has waited for its queue timeout, to the millisecond", () => {
    const queueTimeout = durationOf(minute);
    expect(decided([job("a", { queueTimeout, createdAt: ago(minute) })])).toEqual([
      "fail a DISPATCH_TIMEOUT",
    ]);
    expect(decided([job("a", { queueTimeout, createdAt: ago(minute - 1) })])).toEqual(["start a"]);
  });

  it("counts the queue timeout from the time for which the job is scheduled", () => {
    const queueTimeout = durationOf(minute);
    const created = { queueTimeout, createdAt: ago(10 * minute) };
    expect(decided([job("a", { ...created, scheduledAt: ago(minute - 1) })])).toEqual(["start a"]);
    expect(decided([job("a", { ...created, scheduledAt: ago(minute) })])).toEqual([
      "fail a DISPATCH_TIMEOUT",
    ]);
  });

  it("does not count time before the job was made, whatever it was scheduled for", () => {
    expect(decided([job("a", { scheduledAt: ago(24 * 60 * minute), createdAt: ago(1) })])).toEqual([
      "start a",
    ]);
  });

  it("fails a running job after its longest duration", () => {
    const maxDuration = durationOf(minute);
    expect(decided([running("a", { maxDuration, startedAt: ago(minute) })])).toEqual(["fail a JOB_TIMEOUT"]);
    expect(decided([running("a", { maxDuration, startedAt: ago(minute - 1) })])).toEqual([]);
  });

  it("fails a running job whose group has been silent, counted from its start at the earliest", () => {
    const flying = running("a", { startedAt: ago(10 * minute) });
    expect(decided([flying], { heardMs: nowMs - offlineMs })).toEqual(["fail a DEVICE_OFFLINE"]);
    expect(decided([flying], { heardMs: nowMs - offlineMs + 1 })).toEqual([]);
    expect(decided([running("a", { startedAt: ago(1) })], { heardMs: 0 })).toEqual([]);
  });

  it("cancels a running job whose device does not confirm, and not before its time", () => {
    expect(decided([running("a", { cancelRequestedAt: ago(cancelConfirmMs) })])).toEqual(["cancel a"]);
    expect(decided([running("a", { cancelRequestedAt: ago(cancelConfirmMs - 1) }), job("b")])).toEqual([]);
  });

  it("cancels rather than fails what is to be cancelled", () => {
    const both = running("a", { cancelRequestedAt: ago(cancelConfirmMs), startedAt: ago(3 * 60 * minute) });
    expect(decided([both], { heardMs: 0 })).toEqual(["cancel a"]);
  });
});
