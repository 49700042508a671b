import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import type { JobState } from "#gen/portolan/common/v1/track_pb.js";
import type { DispatchCommand } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import { type Job, JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { type ListJobsRequest, ListJobsRequestSchema } from "#gen/portolan/jobs/v1/job_service_pb.js";
import type { Queries } from "#kernel/database.ts";
import { backfill } from "#kernel/list/backfill.ts";
import { textColumn } from "#kernel/list/field.ts";
import { defineList, type Page } from "#kernel/list/list.ts";
import type { Migration } from "#kernel/migrate.ts";
import { lineColumns, lineMigrations } from "./line.ts";

declare module "#kernel/database.ts" {
  interface Tables {
    jobs: {
      tenant_id: string;
      job_id: string;
      device_group_id: string;
      status: JobState;
      created_at: number;
      name: string;
      priority: number;
      updated_at: number;
      scheduled_at: number | null;
      due_at: number;
      expires_at: number | null;
      /** Counts up with every change. */
      version: number;
      /** The Job in its wire form. */
      message: Uint8Array;
    };
    job_changes: {
      tenant_id: string;
      job_id: string;
      sequence: number;
      /** The Job after the change, in its wire form. */
      message: Uint8Array;
    };
    dispatches: {
      tenant_id: string;
      dispatch_id: string;
      device_group_id: string;
      job_id: string;
      command: DispatchCommand;
      created_at: number;
      /** When the device acknowledged it, or it was withdrawn. */
      closed_at: number | null;
    };
  }
}

export const migrations: Migration[] = [
  {
    name: "jobs/0001-jobs",
    async up(queries, types) {
      await queries.schema
        .createTable("jobs")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("job_id", "text", (column) => column.notNull())
        .addColumn("device_group_id", "text", (column) => column.notNull())
        .addColumn("status", "integer", (column) => column.notNull())
        .addColumn("created_at", "bigint", (column) => column.notNull())
        .addColumn("version", "integer", (column) => column.notNull())
        .addColumn("message", types.bytes, (column) => column.notNull())
        .addPrimaryKeyConstraint("jobs_key", ["tenant_id", "job_id"])
        .execute();
      const list = ["tenant_id", "created_at", "job_id"] as const;
      await queries.schema
        .createIndex("jobs_list")
        .on("jobs")
        .columns([...list])
        .execute();
      await queries.schema
        .createIndex("jobs_by_status")
        .on("jobs")
        .columns(["tenant_id", "status", "created_at", "job_id"])
        .execute();
      await queries.schema
        .createIndex("jobs_by_group")
        .on("jobs")
        .columns(["tenant_id", "device_group_id", "status", "created_at", "job_id"])
        .execute();
      await queries.schema.createIndex("jobs_open").on("jobs").columns(["status"]).execute();
      await queries.schema
        .createTable("job_changes")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("job_id", "text", (column) => column.notNull())
        .addColumn("sequence", "bigint", (column) => column.notNull())
        .addColumn("message", types.bytes, (column) => column.notNull())
        .addPrimaryKeyConstraint("job_changes_key", ["tenant_id", "job_id", "sequence"])
        .execute();
      await queries.schema
        .createTable("dispatches")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("dispatch_id", "text", (column) => column.notNull())
        .addColumn("device_group_id", "text", (column) => column.notNull())
        .addColumn("job_id", "text", (column) => column.notNull())
        .addColumn("command", "integer", (column) => column.notNull())
        .addColumn("created_at", "bigint", (column) => column.notNull())
        .addColumn("closed_at", "bigint")
        .addPrimaryKeyConstraint("dispatches_key", ["tenant_id", "dispatch_id"])
        .execute();
      await queries.schema
        .createIndex("dispatches_by_job")
        .on("dispatches")
        .columns(["tenant_id", "job_id"])
        .execute();
      await queries.schema
        .createIndex("dispatches_waiting")
        .on("dispatches")
        .columns(["tenant_id", "device_group_id", "closed_at"])
        .execute();
    },
  },
  {
    name: "jobs/0002-list-columns",
    async up(queries, types) {
      await types.retype(queries, "jobs", ["job_id", "device_group_id"]);
      const table = queries.schema.alterTable("jobs");
      await table.addColumn("name", types.text, (column) => column.notNull().defaultTo("")).execute();
      await table.addColumn("priority", "integer", (column) => column.notNull().defaultTo(0)).execute();
      await table.addColumn("updated_at", "bigint", (column) => column.notNull().defaultTo(0)).execute();
      await table.addColumn("scheduled_at", "bigint").execute();
      await backfill(queries, "jobs", ["tenant_id", "job_id"], (message) =>
        listColumns(fromBinary(JobSchema, message)),
      );
      for (const column of ["name", "priority", "updated_at"] as const) {
        await queries.schema
          .createIndex(`jobs_by_${column}`)
          .on("jobs")
          .columns(["tenant_id", column, "job_id"])
          .execute();
      }
      await queries.schema
        .createIndex("jobs_by_scheduled_at")
        .on("jobs")
        .columns(["tenant_id"])
        .expression(sql`scheduled_at ${types.nullsFirst}`)
        .column("job_id")
        .execute();
    },
  },
  ...lineMigrations,
];

/** The jobs of a tenant. */
export const jobList = defineList({
  request: ListJobsRequestSchema,
  message: JobSchema,
  table: "jobs",
  scope: ["tenant_id"],
  columns: {
    job_id: "job_id",
    name: "name",
    device_group_id: "device_group_id",
    status: "status",
    priority: "priority",
    created_at: "created_at",
    updated_at: "updated_at",
    scheduled_at: { nullable: "scheduled_at" },
  },
  id: "job_id",
  sort: "-created_at",
});

/** A dispatch as it is stored. */
export interface StoredDispatch {
  readonly dispatchId: string;
  readonly jobId: string;
  readonly command: DispatchCommand;
  readonly createdAt: number;
  readonly closedAt: number | null;
}

const createdAt = (job: Job) => (job.createdAt ? timestampMs(job.createdAt) : 0);

/** The columns that are there for lists alone. */
const listColumns = (job: Job) => ({
  name: textColumn(job.name),
  priority: job.priority,
  updated_at: job.updatedAt ? timestampMs(job.updatedAt) : createdAt(job),
  scheduled_at: job.scheduledAt ? timestampMs(job.scheduledAt) : null,
});

/** Jobs and dispatches of one tenant. */
export function jobsOf(tenantId: string, queries: Queries) {
  const toJob = (row: { message: Uint8Array; version: number }): Job => {
    const job = fromBinary(JobSchema, row.message);
    job.etag = String(row.version);
    return job;
  };
  return {
    async insert(job: Job, sequence: bigint): Promise<void> {
      await queries
        .insertInto("jobs")
        .values({
          tenant_id: tenantId,
          job_id: job.jobId,
          device_group_id: job.deviceGroupId,
          status: job.status,
          created_at: createdAt(job),
          ...listColumns(job),
          ...lineColumns(job),
          version: 1,
          message: toBinary(JobSchema, job),
        })
        .execute();
      await this.insertChange(job, sequence);
    },

    async insertChange(job: Job, sequence: bigint): Promise<void> {
      await queries
        .insertInto("job_changes")
        .values({
          tenant_id: tenantId,
          job_id: job.jobId,
          sequence: Number(sequence),
          message: toBinary(JobSchema, job),
        })
        .execute();
    },

    /** Writes a job that was read at `job.etag`; false if somebody has changed it since. */
    async update(job: Job, sequence: bigint): Promise<boolean> {
      const version = Number(job.etag);
      const { numUpdatedRows } = await queries
        .updateTable("jobs")
        .set({
          status: job.status,
          ...listColumns(job),
          ...lineColumns(job),
          version: version + 1,
          message: toBinary(JobSchema, job),
        })
        .where("tenant_id", "=", tenantId)
        .where("job_id", "=", job.jobId)
        .where("version", "=", version)
        .executeTakeFirst();
      if (numUpdatedRows !== 1n) return false;
      job.etag = String(version + 1);
      await this.insertChange(job, sequence);
      return true;
    },

    /** A job; in a transaction it is held until the end, so that changes follow one another. */
    async get(jobId: string): Promise<Job | undefined> {
      const row = await queries
        .selectFrom("jobs")
        .select(["message", "version"])
        .where("tenant_id", "=", tenantId)
        .where("job_id", "=", jobId)
        // Only PostgreSQL runs transactions side by side; on SQLite this is never true.
        .$if(queries.isTransaction, (query) => query.forUpdate())
        .executeTakeFirst();
      return row && toJob(row);
    },

    /** A page of jobs, newest first unless the request says otherwise. */
    async list(request: ListJobsRequest): Promise<Page<Job>> {
      const { status, deviceGroupId, limit } = request;
      let query = queries.selectFrom("jobs").select(["message", "version"]).where("tenant_id", "=", tenantId);
      if (status) query = query.where("status", "=", status);
      if (deviceGroupId) query = query.where("device_group_id", "=", deviceGroupId);
      const page = await jobList.page(query, request, limit || 20, [tenantId, status, deviceGroupId]);
      return { ...page, items: page.items.map(toJob) };
    },

    /** Jobs by their ids, oldest first; in a transaction they are held until its end. */
    async all(jobIds: readonly string[]): Promise<Job[]> {
      if (jobIds.length === 0) return [];
      const rows = await queries
        .selectFrom("jobs")
        .select(["message", "version"])
        .where("tenant_id", "=", tenantId)
        .where("job_id", "in", jobIds)
        .orderBy("created_at")
        .orderBy("job_id")
        // Only PostgreSQL runs transactions side by side; on SQLite this is never true.
        .$if(queries.isTransaction, (query) => query.forUpdate())
        .execute();
      return rows.map(toJob);
    },

    async delete(jobId: string): Promise<void> {
      for (const table of ["dispatches", "job_changes", "jobs"] as const) {
        await queries
          .deleteFrom(table)
          .where("tenant_id", "=", tenantId)
          .where("job_id", "=", jobId)
          .execute();
      }
    },

    /** Changes of a job after a sequence, oldest first. */
    async changes(jobId: string, after: bigint): Promise<{ sequence: bigint; job: Job }[]> {
      const rows = await queries
        .selectFrom("job_changes")
        .select(["sequence", "message"])
        .where("tenant_id", "=", tenantId)
        .where("job_id", "=", jobId)
        .where("sequence", ">", Number(after))
        .orderBy("sequence")
        .execute();
      return rows.map((row) => ({ sequence: BigInt(row.sequence), job: fromBinary(JobSchema, row.message) }));
    },

    /** Sequence of the newest change of a job. */
    async lastSequence(jobId: string): Promise<bigint> {
      const row = await queries
        .selectFrom("job_changes")
        .select((eb) => eb.fn.max("sequence").as("sequence"))
        .where("tenant_id", "=", tenantId)
        .where("job_id", "=", jobId)
        .executeTakeFirst();
      return BigInt(row?.sequence ?? 0);
    },

    async insertDispatch(deviceGroupId: string, dispatch: Omit<StoredDispatch, "closedAt">): Promise<void> {
      await queries
        .insertInto("dispatches")
        .values({
          tenant_id: tenantId,
          dispatch_id: dispatch.dispatchId,
          device_group_id: deviceGroupId,
          job_id: dispatch.jobId,
          command: dispatch.command,
          created_at: dispatch.createdAt,
          closed_at: null,
        })
        .execute();
    },

    /** Dispatches of a group that wait for acknowledgement, oldest first. */
    async waitingDispatches(deviceGroupId: string, since: number): Promise<StoredDispatch[]> {
      const rows = await queries
        .selectFrom("dispatches")
        .selectAll()
        .where("tenant_id", "=", tenantId)
        .where("device_group_id", "=", deviceGroupId)
        .where("closed_at", "is", null)
        .where("created_at", ">=", since)
        .orderBy("created_at")
        .orderBy("dispatch_id")
        .execute();
      return rows.map(toDispatch);
    },

    async dispatch(deviceGroupId: string, dispatchId: string): Promise<StoredDispatch | undefined> {
      const row = await queries
        .selectFrom("dispatches")
        .selectAll()
        .where("tenant_id", "=", tenantId)
        .where("dispatch_id", "=", dispatchId)
        .where("device_group_id", "=", deviceGroupId)
        .executeTakeFirst();
      return row && toDispatch(row);
    },

    async dispatchesOfJob(jobId: string): Promise<StoredDispatch[]> {
      const rows = await queries
        .selectFrom("dispatches")
        .selectAll()
        .where("tenant_id", "=", tenantId)
        .where("job_id", "=", jobId)
        .execute();
      return rows.map(toDispatch);
    },

    async closeDispatch(dispatchId: string, at: number): Promise<void> {
      await queries
        .updateTable("dispatches")
        .set({ closed_at: at })
        .where("tenant_id", "=", tenantId)
        .where("dispatch_id", "=", dispatchId)
        .where("closed_at", "is", null)
        .execute();
    },
  };
}

const toDispatch = (row: {
  dispatch_id: string;
  job_id: string;
  command: DispatchCommand;
  created_at: number;
  closed_at: number | null;
}): StoredDispatch => ({
  dispatchId: row.dispatch_id,
  jobId: row.job_id,
  command: row.command,
  createdAt: row.created_at,
  closedAt: row.closed_at,
});
