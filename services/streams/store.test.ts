import { create } from "@bufbuild/protobuf";
import { beforeAll, expect, it } from "vitest";
import { ResourceSchema } from "#gen/portolan/streams/v1/resource_pb.js";
import { ListResourcesRequestSchema } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetrySampleSchema } from "#gen/portolan/streams/v1/telemetry_pb.js";
import type { Database } from "#kernel/database.ts";
import { migrate } from "#kernel/migrate.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { everyPage } from "#test/support/pages.ts";
import { migrations, pruneByAge, pruneBySize, streamsOf } from "./store.ts";

const group = (deviceGroupId: string, name = "Dock") => create(ResourceSchema, { deviceGroupId, name });

onEachEngine((test) => {
  let database: Database;
  let tenants = 0;
  const newTenant = () => `tenant-${tenants++}`;
  const read = (tenant: string) => streamsOf(tenant, database.read);
  const write = <T>(tenant: string, work: (store: ReturnType<typeof streamsOf>) => Promise<T>): Promise<T> =>
    database.write((queries) => work(streamsOf(tenant, queries)));
  /** Records samples whose battery tells their sequence. */
  const record = (tenant: string, id: string, sequences: bigint[], jobId = "") =>
    write(tenant, async (store) => {
      for (const sequence of sequences) {
        const sample = create(TelemetrySampleSchema, { batteryPercent: Number(sequence % 100n), jobId });
        await store.insertSample(id, { sequence, sample });
      }
    });
  const sequences = async (tenant: string, id = "dock", range: object = {}) =>
    (await read(tenant).samples(id, { after: 0n, limit: 1000, ...range })).map(({ sequence }) => sequence);

  /** The ids of a tenant's groups, read in pages of so many. */
  const list = async (tenant: string, limit = 100) => {
    const groups = await everyPage((pageToken) =>
      read(tenant).list(create(ListResourcesRequestSchema, { limit, pageToken })),
    );
    return groups.map(({ deviceGroupId }) => deviceGroupId);
  };

  beforeAll(async () => {
    database = test().open();
    await migrate(database, migrations);
  });

  it("keeps a group, refuses its id a second time, and updates it", async () => {
    const tenant = newTenant();
    expect(await write(tenant, (store) => store.insert(group("dock"), 1))).toBe(true);
    expect(await write(tenant, (store) => store.insert(group("dock", "Other"), 2))).toBe(false);
    expect((await read(tenant).get("dock"))?.name).toBe("Dock");
    await write(tenant, (store) => store.update(group("dock", "New")));
    expect((await read(tenant).get("dock"))?.name).toBe("New");
  });

  it("pages through groups in the order of their ids, each once", async () => {
    const tenant = newTenant();
    const ids = ["b", "a", "B", "a-1", "a_1", "A.1", "10", "9"];
    for (const id of ids) await write(tenant, (store) => store.insert(group(id), 1));
    expect(await list(tenant)).toEqual([...ids].sort());
    expect(await list(tenant, 3)).toEqual([...ids].sort());
  });

  it("gives a device to one group at a time", async () => {
    const tenant = newTenant();
    expect(await write(tenant, (store) => store.replaceDevices("one", ["d-1", "d-2"]))).toBeUndefined();
    expect(await write(tenant, (store) => store.replaceDevices("two", ["d-3", "d-2"]))).toBe("d-2");
    expect(await write(tenant, (store) => store.replaceDevices("one", ["d-1"]))).toBeUndefined();
    expect(await write(tenant, (store) => store.replaceDevices("two", ["d-2"]))).toBeUndefined();
    expect(await Promise.all(["d-1", "d-2", "d-3"].map((id) => read(tenant).groupOf(id)))).toEqual([
      "one",
      "two",
      undefined,
    ]);
  });

  it("reads samples after, before, of a job and up to a limit, oldest first", async () => {
    const tenant = newTenant();
    const base = 1_700_000_000_000_000n;
    await record(tenant, "dock", [base + 3n, base + 1n]);
    await record(tenant, "dock", [base + 2n], "job-1");
    expect(await sequences(tenant)).toEqual([base + 1n, base + 2n, base + 3n]);
    expect(await sequences(tenant, "dock", { after: base + 1n, before: base + 3n })).toEqual([base + 2n]);
    expect(await sequences(tenant, "dock", { jobId: "job-1" })).toEqual([base + 2n]);
    expect(await sequences(tenant, "dock", { limit: 1 })).toEqual([base + 1n]);
    const newest = await read(tenant).newest("dock", 2);
    expect(newest.map(({ sample }) => sample.batteryPercent)).toEqual([2, 3]);
  });

  it("shows another tenant nothing and lets it change nothing", async () => {
    const [tenant, other] = [newTenant(), newTenant()];
    await write(tenant, (store) => store.insert(group("dock"), 1));
    await write(tenant, (store) => store.replaceDevices("dock", ["d-1"]));
    await record(tenant, "dock", [5n]);
    expect(await read(other).get("dock")).toBeUndefined();
    expect(await list(other)).toEqual([]);
    expect(await read(other).groupOf("d-1")).toBeUndefined();
    expect([await sequences(other), await read(other).newest("dock", 9)]).toEqual([[], []]);
    await write(other, (store) => store.update(group("dock", "Theirs")));
    expect(await write(other, (store) => store.delete("dock"))).toBe(false);
    expect(await write(other, (store) => store.replaceDevices("dock", ["d-1"]))).toBeUndefined();
    await database.write((queries) => pruneBySize(queries, other, "dock", 0));
    expect((await read(tenant).get("dock"))?.name).toBe("Dock");
    expect([await sequences(tenant), await read(tenant).groupOf("d-1")]).toEqual([[5n], "dock"]);
  });

  it("deletes a group with its devices and samples, and no other", async () => {
    const tenant = newTenant();
    for (const id of ["dock", "other"]) {
      await write(tenant, (store) => store.insert(group(id), 1));
      await write(tenant, (store) => store.replaceDevices(id, [`d-${id}`]));
      await record(tenant, id, [1n]);
    }
    expect(await write(tenant, (store) => store.delete("dock"))).toBe(true);
    expect(await write(tenant, (store) => store.delete("dock"))).toBe(false);
    expect([await read(tenant).get("dock"), await read(tenant).groupOf("d-dock")]).toEqual([
      undefined,
      undefined,
    ]);
    expect([await sequences(tenant, "dock"), await sequences(tenant, "other")]).toEqual([[], [1n]]);
    expect(await read(tenant).groupOf("d-other")).toBe("other");
  });

  it("prunes by age, so many at a time, and by size, the oldest first", async () => {
    const [tenant, other] = [newTenant(), newTenant()];
    await database.write((queries) => pruneByAge(queries, 1_000_000n, 1000));
    const three = [101n, 102n, 103n];
    await record(tenant, "dock", [...three, 2_000_000_000n]);
    await record(other, "dock", [104n]);
    const prune = () => database.write((queries) => pruneByAge(queries, 1_000_000n, 3));
    expect([await prune(), await prune(), await prune()]).toEqual([3, 1, 0]);
    expect([await sequences(tenant), await sequences(other)]).toEqual([[2_000_000_000n], []]);
    await record(tenant, "dock", three);
    await database.write((queries) => pruneBySize(queries, tenant, "dock", 2));
    expect(await sequences(tenant)).toEqual([103n, 2_000_000_000n]);
    await database.write((queries) => pruneBySize(queries, tenant, "dock", 2));
    expect((await sequences(tenant)).length).toBe(2);
  });
});
