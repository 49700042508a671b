import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { beforeAll, expect, it } from "vitest";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { DispatchCommand } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import { JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { ListJobsRequestSchema } from "#gen/portolan/jobs/v1/job_service_pb.js";
import type { Database, Queries } from "#kernel/database.ts";
import { durationOf } from "#kernel/errors.ts";
import { migrate } from "#kernel/migrate.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { everyPage } from "#test/support/pages.ts";
import { groupsToLookAt, jobsToLookAt, lookSize, startedJobs } from "./line.ts";
import { jobsOf, migrations } from "./store.ts";

const t0 = 1_700_000_000_000;
const listOf = (fields: MessageInitShape<typeof ListJobsRequestSchema> = {}) =>
  create(ListJobsRequestSchema, { limit: 100, ...fields });
const job = (jobId: string, fields: MessageInitShape<typeof JobSchema> = {}) =>
  create(JobSchema, {
    jobId,
    deviceGroupId: "dock",
    status: JobState.PENDING,
    createdAt: timestampFromMs(t0),
    ...fields,
  });

onEachEngine((test) => {
  let database: Database;
  let tenants = 0;
  /** A tenant of the test's own. */
  const newTenant = () => `tenant-${tenants++}`;
  const read = (tenant: string) => jobsOf(tenant, database.read);
  const write = <T>(tenant: string, work: (store: ReturnType<typeof jobsOf>) => Promise<T>): Promise<T> =>
    database.write((queries: Queries) => work(jobsOf(tenant, queries)));
  const insert = (tenant: string, ...jobs: ReturnType<typeof job>[]) =>
    write(tenant, async (store) => {
      for (const each of jobs) await store.insert(each, 10n);
    });

  beforeAll(async () => {
    database = test().open();
    await migrate(database, migrations);
  });

  it("keeps a job as it was and gives it its version", async () => {
    const tenant = newTenant();
    await insert(tenant, job("job-1", { name: "Übung", metadata: { a: [1, null] }, priority: 7 }));
    expect(await read(tenant).get("job-1")).toMatchObject({
      name: "Übung",
      metadata: { a: [1, null] },
      etag: "1",
    });
    expect(await read(tenant).get("job-2")).toBeUndefined();
  });

  it("updates only what nobody has changed since it was read", async () => {
    const tenant = newTenant();
    await insert(tenant, job("job-1"));
    const [mine, theirs] = [await read(tenant).get("job-1"), await read(tenant).get("job-1")];
    if (!mine || !theirs) throw new Error("no job");
    mine.name = "mine";
    mine.status = JobState.QUEUED;
    expect(await write(tenant, (store) => store.update(mine, 20n))).toBe(true);
    expect(mine.etag).toBe("2");
    expect(await write(tenant, (store) => store.update(theirs, 30n))).toBe(false);
    expect(await read(tenant).get("job-1")).toMatchObject({ name: "mine", etag: "2" });
    expect((await read(tenant).list(listOf({ status: JobState.QUEUED }))).items.length).toBe(1);
    expect(await read(tenant).lastSequence("job-1")).toBe(20n);
  });

  it("pages exactly over jobs of the same moment, newest first", async () => {
    const tenant = newTenant();
    const jobs = [0, 1, 2].flatMap((ms) =>
      ["a", "B", "c", "-d", "e_"].map((id) => job(`job-${id}${ms}`, { createdAt: timestampFromMs(t0 + ms) })),
    );
    await insert(tenant, ...jobs);
    const { items: all } = await read(tenant).list(listOf());
    expect(new Set(all.map(({ jobId }) => jobId)).size).toBe(15);
    expect(all.map(({ jobId }) => jobId.at(-1))).toEqual([..."222221111100000"]);
    for (const limit of [1, 2, 4, 7]) {
      const paged = await everyPage((pageToken) => read(tenant).list(listOf({ limit, pageToken })));
      expect(paged.map(({ jobId }) => jobId)).toEqual(all.map(({ jobId }) => jobId));
    }
  });

  it("filters a list by state and device group", async () => {
    const tenant = newTenant();
    await insert(
      tenant,
      job("job-1"),
      job("job-2", { status: JobState.COMPLETED }),
      job("job-3", { deviceGroupId: "other" }),
    );
    const list = async (filter: object) =>
      (await read(tenant).list(listOf(filter))).items.map(({ jobId }) => jobId).sort();
    expect(await list({ status: JobState.PENDING })).toEqual(["job-1", "job-3"]);
    expect(await list({ deviceGroupId: "dock" })).toEqual(["job-1", "job-2"]);
    expect(await list({ deviceGroupId: "dock", status: JobState.PENDING })).toEqual(["job-1"]);
  });

  it("finds the jobs of a group that something may have to be done with, and such groups", async () => {
    const tenant = newTenant();
    const later = timestampFromMs(t0 + 10);
    await insert(
      tenant,
      job("job-b", { createdAt: timestampFromMs(t0 + 1) }),
      job("job-a", { status: JobState.INPROGRESS }),
      job("job-later", { scheduledAt: later }),
      job("job-c", { status: JobState.FAILED }),
      job("job-d", { deviceGroupId: "done", status: JobState.CANCELLED }),
      job("job-e", { deviceGroupId: "idle", scheduledAt: later }),
    );
    const ids = (nowMs: number) => jobsToLookAt(database.read, tenant, "dock", nowMs);
    expect((await ids(t0 + 9)).sort()).toEqual(["job-a", "job-b"]);
    expect((await ids(t0 + 10)).sort()).toEqual(["job-a", "job-b", "job-later"]);
    const groups = async (nowMs: number) => {
      const rows = (await groupsToLookAt(database.read, nowMs)).filter((row) => row.tenant_id === tenant);
      return [...new Set(rows.map((row) => row.device_group_id))].sort();
    };
    expect(await groups(t0 + 9)).toEqual(["dock"]);
    expect(await groups(t0 + 10)).toEqual(["dock", "idle"]);
  });

  it("looks at no more than the ends of a long line: the most urgent, and those that waited too long", async () => {
    const tenant = newTenant();
    const queued = (jobId: string, fields: object) => job(jobId, { status: JobState.QUEUED, ...fields });
    const crowd = Array.from({ length: lookSize + 20 }, (_, index) =>
      queued(`job-${index}`, { priority: 5 }),
    );
    const urgent = queued("job-urgent", { priority: 9, createdAt: timestampFromMs(t0 + 5) });
    const stale = queued("job-stale", { priority: 1, queueTimeout: durationOf(1000) });
    await insert(tenant, ...crowd, urgent, stale);
    const before = await jobsToLookAt(database.read, tenant, "dock", t0 + 999);
    expect([before.length, before[0], before.includes("job-stale")]).toEqual([lookSize, "job-urgent", false]);
    expect(await jobsToLookAt(database.read, tenant, "dock", t0 + 1000)).toContain("job-stale");
  });

  it("knows which waiting jobs their group has been told to start", async () => {
    const tenant = newTenant();
    const order = (jobId: string) => ({
      dispatchId: `start-${jobId}`,
      jobId,
      command: DispatchCommand.START,
      createdAt: t0,
    });
    await insert(
      tenant,
      job("job-open"),
      job("job-taken"),
      job("job-flying", { status: JobState.INPROGRESS }),
    );
    await write(tenant, async (store) => {
      for (const jobId of ["job-open", "job-taken", "job-flying"])
        await store.insertDispatch("dock", order(jobId));
      await store.closeDispatch("start-job-taken", t0 + 10);
    });
    const started = (sinceMs: number) => startedJobs(database.read, tenant, "dock", sinceMs);
    expect((await started(t0 + 9)).sort()).toEqual(["job-open", "job-taken"]);
    expect(await started(t0 + 10)).toEqual(["job-open"]);
  });

  it("tells the changes of a job after a sequence, oldest first", async () => {
    const tenant = newTenant();
    await insert(tenant, job("job-1"));
    const changed = job("job-1", { etag: "1", progress: 50 });
    await write(tenant, (store) => store.update(changed, 5_000_000_000_000_123n));
    const changes = await read(tenant).changes("job-1", 0n);
    expect(changes.map((each) => [each.sequence, each.job.progress])).toEqual([
      [10n, 0],
      [5_000_000_000_000_123n, 50],
    ]);
    expect((await read(tenant).changes("job-1", 10n)).length).toBe(1);
    expect(await read(tenant).lastSequence("job-0")).toBe(0n);
  });

  it("keeps dispatches until they are closed, and closes each once", async () => {
    const tenant = newTenant();
    const order = (dispatchId: string, createdAt: number) => ({
      dispatchId,
      jobId: "job-1",
      command: DispatchCommand.START,
      createdAt,
    });
    await write(tenant, async (store) => {
      for (const [id, at] of [["d-2", 2] as const, ["d-1", 2] as const, ["d-0", 9] as const]) {
        await store.insertDispatch("dock", order(id, at));
      }
    });
    const waiting = async (since = 0) =>
      (await read(tenant).waitingDispatches("dock", since)).map(({ dispatchId }) => dispatchId);
    expect(await waiting()).toEqual(["d-1", "d-2", "d-0"]);
    expect(await waiting(3)).toEqual(["d-0"]);
    await write(tenant, (store) => store.closeDispatch("d-1", 50));
    await write(tenant, (store) => store.closeDispatch("d-1", 60));
    expect(await waiting()).toEqual(["d-2", "d-0"]);
    expect(await read(tenant).dispatch("dock", "d-1")).toEqual({ ...order("d-1", 2), closedAt: 50 });
    expect(await read(tenant).dispatch("other", "d-1")).toBeUndefined();
    expect((await read(tenant).dispatchesOfJob("job-1")).length).toBe(3);
  });

  it("shows another tenant nothing and lets it change nothing", async () => {
    const [tenant, other] = [newTenant(), newTenant()];
    const dispatch = { dispatchId: "d-1", jobId: "job-1", command: DispatchCommand.CANCEL, createdAt: 1 };
    await insert(tenant, job("job-1"));
    await write(tenant, (store) => store.insertDispatch("dock", dispatch));
    const theirs = read(other);
    expect(await theirs.get("job-1")).toBeUndefined();
    expect((await theirs.list(listOf())).items).toEqual([]);
    expect(await theirs.all(["job-1"])).toEqual([]);
    expect(await jobsToLookAt(database.read, other, "dock", t0)).toEqual([]);
    expect(await theirs.changes("job-1", 0n)).toEqual([]);
    expect(await theirs.lastSequence("job-1")).toBe(0n);
    expect(await theirs.dispatch("dock", "d-1")).toBeUndefined();
    expect([await theirs.dispatchesOfJob("job-1"), await theirs.waitingDispatches("dock", 0)]).toEqual([
      [],
      [],
    ]);
    expect(await write(other, (store) => store.update(job("job-1", { etag: "1", name: "theirs" }), 9n))).toBe(
      false,
    );
    await write(other, (store) => store.closeDispatch("d-1", 9));
    await write(other, (store) => store.delete("job-1"));
    expect(await read(tenant).get("job-1")).toMatchObject({ name: "", etag: "1" });
    expect((await read(tenant).waitingDispatches("dock", 0)).length).toBe(1);
    await insert(other, job("job-1", { name: "same id" }));
    expect((await read(tenant).get("job-1"))?.name).toBe("");
  });

  it("deletes a job with its changes and dispatches, and nothing else", async () => {
    const tenant = newTenant();
    await insert(tenant, job("job-1"), job("job-2"));
    const dispatch = { dispatchId: "d-1", jobId: "job-1", command: DispatchCommand.START, createdAt: 1 };
    await write(tenant, (store) => store.insertDispatch("dock", dispatch));
    await write(tenant, (store) => store.delete("job-1"));
    expect(await read(tenant).get("job-1")).toBeUndefined();
    expect(await read(tenant).changes("job-1", 0n)).toEqual([]);
    expect(await read(tenant).dispatchesOfJob("job-1")).toEqual([]);
    expect((await read(tenant).changes("job-2", 0n)).length).toBe(1);
  });
});
