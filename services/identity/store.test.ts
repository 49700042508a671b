import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { beforeAll, expect, it } from "vitest";
import { ApiKeySchema } from "#gen/portolan/identity/v1/api_key_pb.js";
import { ListApiKeysRequestSchema } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import type { Database } from "#kernel/database.ts";
import { migrate } from "#kernel/migrate.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { everyPage } from "#test/support/pages.ts";
import { apiKeysOf, hashSecret, identityStore, migrations } from "./store.ts";

onEachEngine((test) => {
  let database: Database;
  let count = 0;
  const newTenant = () => `tenant-${count++}`;
  const read = (tenant: string) => apiKeysOf(tenant, database.read);
  const global = () => identityStore(database.read);
  async function insert(
    tenant: string,
    id = `key-${count++}`,
    createdAt = 1,
    expiresAt: number | null = null,
  ) {
    const key = create(ApiKeySchema, { id, tenantId: tenant, role: Role.PILOT, name: id });
    await database.write((queries) =>
      apiKeysOf(tenant, queries).insert(key, `secret ${id}`, createdAt, expiresAt),
    );
    return id;
  }

  /** The ids of a tenant's keys, read in pages of so many. */
  const list = async (tenant: string, pageSize = 100) => {
    const keys = await everyPage((pageToken) =>
      read(tenant).list(create(ListApiKeysRequestSchema, { pageSize, pageToken })),
    );
    return keys.map(({ id }) => id);
  };

  beforeAll(async () => {
    database = test().open();
    await migrate(database, migrations);
  });

  it("finds a key by its secret and by its id, and keeps no secret", async () => {
    const tenant = newTenant();
    const id = await insert(tenant, undefined, 1, 500);
    const row = await global().findBySecret(`secret ${id}`);
    expect(row).toMatchObject({
      tenant_id: tenant,
      key_id: id,
      expires_at: 500,
      revoked_at: null,
      call_count: 0,
    });
    expect(await global().findById(id)).toEqual(row);
    expect(JSON.stringify(row) + Buffer.from(row?.message ?? []).toString()).not.toContain(`secret ${id}`);
    expect(row?.secret_hash).toBe(hashSecret(`secret ${id}`));
    expect(await global().findBySecret("secret")).toBeUndefined();
    expect(await global().findById("key")).toBeUndefined();
  });

  it("keeps the plan of a key, and changes it", async () => {
    const tenant = newTenant();
    const id = await insert(tenant);
    const planOf = async () => (await read(tenant).get(id))?.key.plan;
    // As keys stand that are older than plans.
    expect(await planOf()).toBe("default");
    await database.write((queries) => identityStore(queries).changePlan(id, "pro"));
    expect(await planOf()).toBe("pro");
    const { items } = await read(tenant).list(create(ListApiKeysRequestSchema));
    expect(items.map(({ plan }) => plan)).toEqual(["pro"]);
  });

  it("refuses a key id or a secret a second time, also in another tenant", async () => {
    const id = await insert(newTenant());
    await expect(insert(newTenant(), id)).rejects.toThrow();
  });

  it("revokes a key at the first time asked, and tells whether there is one", async () => {
    const tenant = newTenant();
    const id = await insert(tenant);
    const revoke = (key: string, at: number) =>
      database.write((queries) => apiKeysOf(tenant, queries).revoke(key, "", at));
    expect([await revoke(id, 10), await revoke(id, 20), await revoke("key-none", 30)]).toEqual([
      true,
      true,
      false,
    ]);
    expect((await read(tenant).get(id))?.key.revokedAt).toEqual(timestampFromMs(10));
  });

  it("adds up usage and remembers the last time", async () => {
    const tenant = newTenant();
    const id = await insert(tenant);
    expect((await read(tenant).get(id))?.key.lastUsedAt).toBeUndefined();
    for (const at of [100, 200])
      await database.write((queries) => identityStore(queries).addUsage(id, 3, at));
    const { key, callCount } = (await read(tenant).get(id)) ?? {};
    expect([callCount, key?.lastUsedAt]).toEqual([6, timestampFromMs(200)]);
  });

  it("gives a key another secret and makes it work again", async () => {
    const tenant = newTenant();
    const id = await insert(tenant);
    await database.write(async (queries) => {
      await apiKeysOf(tenant, queries).revoke(id, "", 10);
      await identityStore(queries).replaceSecret(id, "another");
    });
    expect(await global().findBySecret(`secret ${id}`)).toBeUndefined();
    expect(await global().findBySecret("another")).toMatchObject({ key_id: id, revoked_at: null });
  });

  it("pages exactly over keys of the same moment, newest first", async () => {
    const tenant = newTenant();
    for (const at of [1, 2])
      for (const id of ["a", "B", "-", "1"]) await insert(tenant, `key-${tenant}${id}${at}`, at);
    const all = await list(tenant);
    expect(new Set(all).size).toBe(8);
    expect(all.map((id) => id.at(-1))).toEqual([..."22221111"]);
    expect(await list(tenant, 3)).toEqual(all);
  });

  it("shows another tenant nothing and lets it revoke nothing", async () => {
    const [tenant, other] = [newTenant(), newTenant()];
    const id = await insert(tenant);
    expect([await read(other).get(id), await list(other)]).toEqual([undefined, []]);
    expect(await database.write((queries) => apiKeysOf(other, queries).revoke(id, "", 5))).toBe(false);
    expect((await read(tenant).get(id))?.key.revokedAt).toBeUndefined();
  });

  it("keeps signing keys, newest first", async () => {
    for (const [kid, at] of [["old", 1] as const, ["new", 2] as const]) {
      await database.write((queries) => identityStore(queries).insertSigningKey(kid, "{}", at));
    }
    expect((await global().signingKeys()).map(({ kid }) => kid)).toEqual(["new", "old"]);
  });
});
