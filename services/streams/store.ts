import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Resource, ResourceSchema } from "#gen/portolan/streams/v1/resource_pb.js";
import {
  type ListResourcesRequest,
  ListResourcesRequestSchema,
} from "#gen/portolan/streams/v1/resource_service_pb.js";
import {
  RecordedSampleSchema,
  type TelemetrySample,
  TelemetrySampleSchema,
} from "#gen/portolan/streams/v1/telemetry_pb.js";
import {
  type ListSamplesRequest,
  ListSamplesRequestSchema,
} from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import type { Queries } from "#kernel/database.ts";
import { backfill } from "#kernel/list/backfill.ts";
import { textColumn } from "#kernel/list/field.ts";
import { defineList, type Page } from "#kernel/list/list.ts";
import type { Migration } from "#kernel/migrate.ts";

declare module "#kernel/database.ts" {
  interface Tables {
    resources: {
      tenant_id: string;
      device_group_id: string;
      created_at: number;
      name: string;
      updated_at: number;
      /** Counts up with every update. */
      version: number;
      /** The Resource in its wire form. */
      message: Uint8Array;
    };
    devices: { tenant_id: string; device_id: string; device_group_id: string };
    samples: {
      tenant_id: string;
      device_group_id: string;
      sequence: number;
      job_id: string;
      /** The TelemetrySample in its wire form. */
      message: Uint8Array;
    };
  }
}

export const migrations: Migration[] = [
  {
    name: "streams/0001-resources",
    async up(queries, types) {
      await queries.schema
        .createTable("resources")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("device_group_id", "text", (column) => column.notNull())
        .addColumn("created_at", "bigint", (column) => column.notNull())
        .addColumn("message", types.bytes, (column) => column.notNull())
        .addPrimaryKeyConstraint("resources_key", ["tenant_id", "device_group_id"])
        .execute();
      await queries.schema
        .createTable("devices")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("device_id", "text", (column) => column.notNull())
        .addColumn("device_group_id", "text", (column) => column.notNull())
        .addPrimaryKeyConstraint("devices_key", ["tenant_id", "device_id"])
        .execute();
      await queries.schema
        .createTable("samples")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("device_group_id", "text", (column) => column.notNull())
        .addColumn("sequence", "bigint", (column) => column.notNull())
        .addColumn("job_id", "text", (column) => column.notNull())
        .addColumn("message", types.bytes, (column) => column.notNull())
        .addPrimaryKeyConstraint("samples_key", ["tenant_id", "device_group_id", "sequence"])
        .execute();
      await queries.schema.createIndex("samples_age").on("samples").column("sequence").execute();
    },
  },
  {
    name: "streams/0002-list-columns",
    async up(queries, types) {
      await types.retype(queries, "resources", ["device_group_id"]);
      const table = queries.schema.alterTable("resources");
      await table.addColumn("name", types.text, (column) => column.notNull().defaultTo("")).execute();
      await table.addColumn("updated_at", "bigint", (column) => column.notNull().defaultTo(0)).execute();
      await table.addColumn("version", "integer", (column) => column.notNull().defaultTo(1)).execute();
      await backfill(queries, "resources", ["tenant_id", "device_group_id"], (message) =>
        listColumns(fromBinary(ResourceSchema, message)),
      );
      for (const column of ["name", "created_at", "updated_at"] as const) {
        await queries.schema
          .createIndex(`resources_by_${column}`)
          .on("resources")
          .columns(["tenant_id", column, "device_group_id"])
          .execute();
      }
    },
  },
];

/** The device groups of a tenant. */
export const resourceList = defineList({
  request: ListResourcesRequestSchema,
  message: ResourceSchema,
  table: "resources",
  scope: ["tenant_id"],
  columns: {
    device_group_id: "device_group_id",
    name: "name",
    created_at: "created_at",
    updated_at: "updated_at",
  },
  id: "device_group_id",
  sort: "device_group_id",
});

/** The samples of a device group. */
export const sampleList = defineList({
  request: ListSamplesRequestSchema,
  message: RecordedSampleSchema,
  table: "samples",
  scope: ["tenant_id", "device_group_id"],
  columns: { sequence: "sequence" },
  id: "sequence",
  sort: "sequence",
});

/** The columns that are there for lists alone. */
const listColumns = ({ name, updatedAt }: Resource) => ({
  name: textColumn(name),
  updated_at: updatedAt ? timestampMs(updatedAt) : 0,
});

/** A recorded sample. */
export interface Recorded {
  readonly sequence: bigint;
  readonly sample: TelemetrySample;
}

/** Which samples of a group to read, oldest first. */
export interface SampleRange {
  /** After this sequence. */
  readonly after: bigint;
  /** Before this sequence. */
  readonly before?: bigint | undefined;
  readonly jobId?: string | undefined;
}

/** Device groups, devices and samples of one tenant. */
export function streamsOf(tenantId: string, queries: Queries) {
  const toResource = (row: { message: Uint8Array; version: number }) => {
    const resource = fromBinary(ResourceSchema, row.message);
    resource.etag = String(row.version);
    return resource;
  };

  function samplesIn(deviceGroupId: string, { after, before, jobId }: SampleRange) {
    let query = queries
      .selectFrom("samples")
      .select(["sequence", "message"])
      .where("tenant_id", "=", tenantId)
      .where("device_group_id", "=", deviceGroupId)
      .where("sequence", ">", Number(after));
    if (before !== undefined) query = query.where("sequence", "<", Number(before));
    if (jobId) query = query.where("job_id", "=", jobId);
    return query;
  }

  return {
    async insert(resource: Resource, createdAt: number): Promise<boolean> {
      const { numInsertedOrUpdatedRows } = await queries
        .insertInto("resources")
        .values({
          tenant_id: tenantId,
          device_group_id: resource.deviceGroupId,
          created_at: createdAt,
          ...listColumns(resource),
          version: 1,
          message: toBinary(ResourceSchema, resource),
        })
        .onConflict((conflict) => conflict.doNothing())
        .executeTakeFirst();
      resource.etag = "1";
      return numInsertedOrUpdatedRows === 1n;
    },

    /** Writes a group that was read in this transaction, as its next version. */
    async update(resource: Resource): Promise<void> {
      const version = Number(resource.etag) + 1;
      resource.etag = String(version);
      await queries
        .updateTable("resources")
        .set({ ...listColumns(resource), version, message: toBinary(ResourceSchema, resource) })
        .where("tenant_id", "=", tenantId)
        .where("device_group_id", "=", resource.deviceGroupId)
        .execute();
    },

    /** Makes the devices of a group these; tells the first id that another group holds, if any. */
    async replaceDevices(deviceGroupId: string, deviceIds: readonly string[]): Promise<string | undefined> {
      await queries
        .deleteFrom("devices")
        .where("tenant_id", "=", tenantId)
        .where("device_group_id", "=", deviceGroupId)
        .execute();
      for (const deviceId of deviceIds) {
        const { numInsertedOrUpdatedRows } = await queries
          .insertInto("devices")
          .values({ tenant_id: tenantId, device_id: deviceId, device_group_id: deviceGroupId })
          .onConflict((conflict) => conflict.doNothing())
          .executeTakeFirst();
        if (numInsertedOrUpdatedRows !== 1n) return deviceId;
      }
      return undefined;
    },

    /** A group; in a transaction it is held until the end, so that changes follow one another. */
    async get(deviceGroupId: string): Promise<Resource | undefined> {
      const row = await queries
        .selectFrom("resources")
        .select(["message", "version"])
        .where("tenant_id", "=", tenantId)
        .where("device_group_id", "=", deviceGroupId)
        // Only PostgreSQL runs transactions side by side; on SQLite this is never true.
        .$if(queries.isTransaction, (query) => query.forUpdate())
        .executeTakeFirst();
      return row && toResource(row);
    },

    /** The group of a device. */
    async groupOf(deviceId: string): Promise<string | undefined> {
      const row = await queries
        .selectFrom("devices")
        .select("device_group_id")
        .where("tenant_id", "=", tenantId)
        .where("device_id", "=", deviceId)
        .executeTakeFirst();
      return row?.device_group_id;
    },

    /** A page of groups, by id unless the request says otherwise. */
    async list(request: ListResourcesRequest): Promise<Page<Resource>> {
      const query = queries
        .selectFrom("resources")
        .select(["message", "version"])
        .where("tenant_id", "=", tenantId);
      const page = await resourceList.page(query, request, request.limit || 100, [tenantId]);
      return { ...page, items: page.items.map(toResource) };
    },

    /** Deletes a group with its devices and samples. */
    async delete(deviceGroupId: string): Promise<boolean> {
      for (const table of ["samples", "devices"] as const) {
        await queries
          .deleteFrom(table)
          .where("tenant_id", "=", tenantId)
          .where("device_group_id", "=", deviceGroupId)
          .execute();
      }
      const { numDeletedRows } = await queries
        .deleteFrom("resources")
        .where("tenant_id", "=", tenantId)
        .where("device_group_id", "=", deviceGroupId)
        .executeTakeFirst();
      return numDeletedRows === 1n;
    },

    async insertSample(deviceGroupId: string, { sequence, sample }: Recorded): Promise<void> {
      await queries
        .insertInto("samples")
        .values({
          tenant_id: tenantId,
          device_group_id: deviceGroupId,
          sequence: Number(sequence),
          job_id: sample.jobId,
          message: toBinary(TelemetrySampleSchema, sample),
        })
        .execute();
    },

    /** The first samples of a range, oldest first. */
    async samples(deviceGroupId: string, range: SampleRange & { limit: number }): Promise<Recorded[]> {
      const rows = await samplesIn(deviceGroupId, range).orderBy("sequence").limit(range.limit).execute();
      return rows.map(toRecorded);
    },

    /** A page of the samples of a range, oldest first unless the request says otherwise. */
    async listSamples(request: ListSamplesRequest, range: SampleRange): Promise<Page<Recorded>> {
      const { deviceGroupId, limit } = request;
      const { after, before = 0n, jobId = "" } = range;
      const scope = [tenantId, deviceGroupId, Number(after), Number(before), jobId];
      const query = samplesIn(deviceGroupId, range);
      const page = await sampleList.page(query, request, limit || 100, scope);
      return { ...page, items: page.items.map(toRecorded) };
    },

    /** The newest samples of a group, up to a sequence if one is given, oldest first. */
    async newest(deviceGroupId: string, count: number, upTo?: bigint): Promise<Recorded[]> {
      let query = queries
        .selectFrom("samples")
        .select(["sequence", "message"])
        .where("tenant_id", "=", tenantId)
        .where("device_group_id", "=", deviceGroupId)
        .orderBy("sequence", "desc")
        .limit(count);
      if (upTo !== undefined) query = query.where("sequence", "<=", Number(upTo));
      const rows = await query.execute();
      return rows.map(toRecorded).reverse();
    },
  };
}

const toRecorded = (row: { sequence: number; message: Uint8Array }): Recorded => ({
  sequence: BigInt(row.sequence),
  sample: fromBinary(TelemetrySampleSchema, row.message),
});

/** Deletes samples of every tenant before a sequence, at most so many at once. */
export async function pruneByAge(queries: Queries, before: bigint, limit: number): Promise<number> {
  const old = queries
    .selectFrom("samples")
    .select(["tenant_id", "device_group_id", "sequence"])
    .where("sequence", "<", Number(before))
    .limit(limit);
  const { numDeletedRows } = await queries
    .deleteFrom("samples")
    .where(({ eb, refTuple }) =>
      eb(
        refTuple("tenant_id", "device_group_id", "sequence"),
        "in",
        old.$asTuple("tenant_id", "device_group_id", "sequence"),
      ),
    )
    .executeTakeFirst();
  return Number(numDeletedRows);
}

/** Deletes what a group holds beyond its newest `keep` samples. */
export async function pruneBySize(
  queries: Queries,
  tenantId: string,
  deviceGroupId: string,
  keep: number,
): Promise<void> {
  const oldestKept = await queries
    .selectFrom("samples")
    .select("sequence")
    .where("tenant_id", "=", tenantId)
    .where("device_group_id", "=", deviceGroupId)
    .orderBy("sequence", "desc")
    .offset(keep)
    .limit(1)
    .executeTakeFirst();
  if (!oldestKept) return;
  await queries
    .deleteFrom("samples")
    .where("tenant_id", "=", tenantId)
    .where("device_group_id", "=", deviceGroupId)
    .where("sequence", "<=", oldestKept.sequence)
    .execute();
}
