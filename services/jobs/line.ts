import { fromBinary } from "@bufbuild/protobuf";
import { durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { DispatchCommand } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import { type Job, JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import type { Queries } from "#kernel/database.ts";
import { backfill } from "#kernel/list/backfill.ts";
import type { Migration } from "#kernel/migrate.ts";

/** Most jobs of a kind that the dispatcher looks at in one go, so that a long line costs no more than a short one. */
export const lookSize = 100;

const waitingStates: readonly JobState[] = [JobState.PENDING, JobState.QUEUED];

/** From when a job may be given to its devices, in Unix milliseconds. */
export function dueMs({ createdAt, scheduledAt }: Job): number {
  const createdMs = createdAt ? timestampMs(createdAt) : 0;
  // A time that had passed already when the job was made does not shorten its time in line.
  return scheduledAt ? Math.max(timestampMs(scheduledAt), createdMs) : createdMs;
}

/** When a job that still waits has waited too long, in Unix milliseconds; undefined means never. */
export const expiryMs = (job: Job): number | undefined =>
  job.queueTimeout && dueMs(job) + durationMs(job.queueTimeout);

/** The columns by which jobs stand in line. */
export const lineColumns = (job: Job) => ({ due_at: dueMs(job), expires_at: expiryMs(job) ?? null });

/** Adds the columns of the line and the indexes that find its ends. */
export const lineMigrations: Migration[] = [
  {
    name: "jobs/0003-line",
    async up(queries) {
      const table = queries.schema.alterTable("jobs");
      await table.addColumn("due_at", "bigint", (column) => column.notNull().defaultTo(0)).execute();
      await table.addColumn("expires_at", "bigint").execute();
      await backfill(queries, "jobs", ["tenant_id", "job_id"], (message) =>
        lineColumns(fromBinary(JobSchema, message)),
      );
      const group = ["tenant_id", "device_group_id"] as const;
      await queries.schema
        .createIndex("jobs_in_line")
        .on("jobs")
        .columns([...group, "status", "priority desc", "created_at", "job_id"])
        .execute();
      await queries.schema
        .createIndex("jobs_due")
        .on("jobs")
        .columns(["status", "due_at", ...group])
        .execute();
      await queries.schema
        .createIndex("jobs_expiring")
        .on("jobs")
        .columns([...group, "status", "expires_at"])
        .execute();
      await queries.schema.dropIndex("jobs_open").execute();
    },
  },
];

/** The ids of the jobs of a group that something may have to be done with now. */
export async function jobsToLookAt(
  queries: Queries,
  tenantId: string,
  deviceGroupId: string,
  nowMs: number,
): Promise<string[]> {
  const ofGroup = (status: JobState) =>
    queries
      .selectFrom("jobs")
      .select("job_id")
      .where("tenant_id", "=", tenantId)
      .where("device_group_id", "=", deviceGroupId)
      .where("status", "=", status)
      .limit(lookSize);
  const found = [
    ofGroup(JobState.INPROGRESS),
    ofGroup(JobState.PENDING).where("due_at", "<=", nowMs),
    ofGroup(JobState.QUEUED).orderBy("priority", "desc").orderBy("created_at").orderBy("job_id"),
    ...waitingStates.map((status) =>
      ofGroup(status).where("due_at", "<=", nowMs).where("expires_at", "<=", nowMs),
    ),
  ];
  const ids = new Set<string>();
  for (const query of found) for (const { job_id } of await query.execute()) ids.add(job_id);
  return [...ids];
}

/** The ids of waiting jobs whose START was given to their group, and is still open or was taken since then. */
export async function startedJobs(
  queries: Queries,
  tenantId: string,
  deviceGroupId: string,
  sinceMs: number,
): Promise<string[]> {
  const rows = await queries
    .selectFrom("dispatches")
    .innerJoin("jobs", (join) =>
      join
        .onRef("jobs.job_id", "=", "dispatches.job_id")
        .onRef("jobs.tenant_id", "=", "dispatches.tenant_id"),
    )
    .select("jobs.job_id")
    .where("dispatches.tenant_id", "=", tenantId)
    .where("dispatches.device_group_id", "=", deviceGroupId)
    .where("command", "=", DispatchCommand.START)
    .where((row) => row.or([row("closed_at", "is", null), row("closed_at", ">", sinceMs)]))
    .where("jobs.status", "in", waitingStates)
    .execute();
  return rows.map(({ job_id }) => job_id);
}

/** Device groups of every tenant that something may have to be done for now. */
export async function groupsToLookAt(
  queries: Queries,
  nowMs: number,
): Promise<{ tenant_id: string; device_group_id: string }[]> {
  const withStatus = (status: JobState) =>
    queries
      .selectFrom("jobs")
      .select(["tenant_id", "device_group_id"])
      .distinct()
      .where("status", "=", status);
  return [
    ...(await withStatus(JobState.INPROGRESS).execute()),
    ...(await withStatus(JobState.QUEUED).execute()),
    ...(await withStatus(JobState.PENDING).where("due_at", "<=", nowMs).execute()),
  ];
}
