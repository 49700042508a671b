import { create } from "@bufbuild/protobuf";
import { beforeAll, expect, it } from "vitest";
import { ShareSchema } from "#gen/portolan/shares/v1/share_pb.js";
import {
  ListShareSessionsRequestSchema,
  ListSharesRequestSchema,
} from "#gen/portolan/shares/v1/share_service_pb.js";
import type { Database } from "#kernel/database.ts";
import { migrate } from "#kernel/migrate.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { everyPage } from "#test/support/pages.ts";
import { endOpenSessions, findByCode, migrations, sharesOf } from "./store.ts";

onEachEngine((test) => {
  let database: Database;
  let count = 0;
  const newTenant = () => `tenant-${count++}`;
  const read = (tenant: string) => sharesOf(tenant, database.read);
  const write = <T>(tenant: string, work: (store: ReturnType<typeof sharesOf>) => Promise<T>): Promise<T> =>
    database.write((queries) => work(sharesOf(tenant, queries)));
  /** Makes a share that was created at 0 and expires at 100. */
  async function insert(tenant: string, shareCode = `share-${count++}`, pinHash = "", createdAt = 0) {
    const share = create(ShareSchema, { shareCode, resourceId: "dock" });
    await write(tenant, (store) => store.insert(share, createdAt, 100, pinHash));
    return shareCode;
  }
  const session = (sessionId: string, startedAt = 1) => ({
    sessionId,
    startedAt,
    remoteAddress: "::1",
    userAgent: "test",
  });

  /** The codes of a tenant's working shares, read in pages of so many. */
  const list = async (tenant: string, nowMs: number, limit = 100) => {
    const shares = await everyPage((pageToken) =>
      read(tenant).list(create(ListSharesRequestSchema, { limit, pageToken }), nowMs),
    );
    return shares.map(({ shareCode }) => shareCode);
  };
  const sessions = (tenant: string, shareCode: string, limit = 100) =>
    everyPage((pageToken) =>
      read(tenant).sessions(create(ListShareSessionsRequestSchema, { shareCode, limit, pageToken })),
    );

  beforeAll(async () => {
    database = test().open();
    await migrate(database, migrations);
  });

  it("finds a share by its code alone, with its tenant, until it expires", async () => {
    const tenant = newTenant();
    const code = await insert(tenant, undefined, "salt:hash");
    expect(await findByCode(database.read, code, 99)).toMatchObject({
      tenantId: tenant,
      share: { shareCode: code, resourceId: "dock" },
      expiresAt: 100,
      pinHash: "salt:hash",
    });
    expect(await findByCode(database.read, code, 100)).toBeUndefined();
    expect(await read(tenant).get(code, 99)).toMatchObject({ shareCode: code });
    expect(await read(tenant).get(code, 100)).toBeUndefined();
    expect((await list(tenant, 100)).length).toBe(0);
  });

  it("revokes a share once, and not after it has expired", async () => {
    const tenant = newTenant();
    const [code, expired] = [await insert(tenant), await insert(tenant)];
    expect(await write(tenant, (store) => store.revoke(code, 50))).toBe(true);
    expect(await write(tenant, (store) => store.revoke(code, 51))).toBe(false);
    expect(await write(tenant, (store) => store.revoke(expired, 100))).toBe(false);
    expect([await findByCode(database.read, code, 50), await read(tenant).get(code, 50)]).toEqual([
      undefined,
      undefined,
    ]);
    expect(await list(tenant, 50)).toEqual([expired]);
  });

  it("pages exactly over shares of the same moment, newest first", async () => {
    const tenant = newTenant();
    for (const at of [1, 2])
      for (const id of ["a", "B", "-", "1"]) await insert(tenant, `share-${tenant}${id}${at}`, "", at);
    const all = await list(tenant, 50);
    expect(new Set(all).size).toBe(8);
    expect(all.map((code) => code.at(-1))).toEqual([..."22221111"]);
    expect(await list(tenant, 50, 3)).toEqual(all);
  });

  it("keeps sessions, counts them, ends each once, and pages exactly over those of the same moment", async () => {
    const tenant = newTenant();
    const code = await insert(tenant);
    for (const id of ["b", "a", "c"]) await write(tenant, (store) => store.beginSession(code, session(id)));
    await write(tenant, (store) => store.beginSession(code, session("late", 2)));
    await write(tenant, (store) => store.endSession("a", 10));
    await write(tenant, (store) => store.endSession("a", 20));
    expect((await read(tenant).get(code, 50))?.totalViewerCount).toBe(4);
    const all = await sessions(tenant, code);
    expect(all.map(({ sessionId }) => sessionId)).toEqual(["late", "c", "b", "a"]);
    expect(all.map(({ endedAt }) => endedAt)).toEqual([null, null, null, 10]);
    expect(all[0]).toEqual({ ...session("late", 2), endedAt: null });
    expect(await sessions(tenant, code, 2)).toEqual(all);
  });

  it("ends the sessions that an earlier run left open, and no others again", async () => {
    const tenant = newTenant();
    const code = await insert(tenant);
    for (const id of ["open", "ended"]) await write(tenant, (store) => store.beginSession(code, session(id)));
    await write(tenant, (store) => store.endSession("ended", 10));
    await database.write((queries) => endOpenSessions(queries, 30));
    const ends = (await sessions(tenant, code)).map((each) => [each.sessionId, each.endedAt]);
    expect(ends.sort()).toEqual([
      ["ended", 10],
      ["open", 30],
    ]);
  });

  it("shows another tenant nothing and lets it change nothing", async () => {
    const [tenant, other] = [newTenant(), newTenant()];
    const code = await insert(tenant);
    await write(tenant, (store) => store.beginSession(code, session("s-1")));
    expect(await read(other).get(code, 1)).toBeUndefined();
    expect(await list(other, 1)).toEqual([]);
    expect(await sessions(other, code)).toEqual([]);
    expect(await write(other, (store) => store.revoke(code, 1))).toBe(false);
    await write(other, (store) => store.endSession("s-1", 5));
    await write(other, (store) => store.beginSession(code, session("s-2")));
    expect(await read(tenant).get(code, 1)).toMatchObject({ shareCode: code, totalViewerCount: 1 });
    expect(await sessions(tenant, code)).toEqual([{ ...session("s-1"), endedAt: null }]);
    await expect(insert(other, code)).rejects.toThrow();
  });
});
