import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import { expect, it } from "vitest";
import { ListTenantsRequestSchema } from "#gen/portolan/identity/v1/tenant_service_pb.js";
import { UserSchema, UserStatus } from "#gen/portolan/identity/v1/user_pb.js";
import { ListUsersRequestSchema } from "#gen/portolan/identity/v1/user_service_pb.js";
import { auditList, auditMigrations } from "#kernel/audit-store.ts";
import { demandIndexes } from "#kernel/list/indexes.ts";
import { migrate } from "#kernel/migrate.ts";
import { replayMigrations } from "#kernel/replay.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { apiKeyList, migrations } from "./store.ts";
import { tenantList, tenantStore } from "./tenant-store.ts";
import { userList, usersOf } from "./user-store.ts";

/** The migrations from before tenants and users could be listed by their columns. */
const before = migrations.filter(({ name }) => !name.endsWith("-lists"));

onEachEngine((test) => {
  it("fills the columns of lists for tenants and users that are there already, and has their indexes", async () => {
    const database = test().open();
    await migrate(database, before);
    await database.write(async (queries) => {
      await sql`insert into tenants (tenant_id, created_at) values ('old', 1000)`.execute(queries);
      await sql`insert into tenants (tenant_id, created_at, name, updated_at, suspended_at)
        values ('new', 2000, 'Newer', 3000, 3000)`.execute(queries);
      for (const [id, name, at] of [
        ["user-1", "with\0NUL", 5000],
        ["user-2", "Ann", 4000],
      ] as const) {
        const user = create(UserSchema, {
          id,
          name,
          email: `${id}@example.com`,
          status: UserStatus.ACTIVE,
          updatedAt: timestampFromMs(at),
        });
        await sql`insert into users (tenant_id, user_id, email, status, created_at, version, message)
          values ('old', ${id}, ${user.email}, 1, 1, 1, ${Buffer.from(toBinary(UserSchema, user))})`.execute(
          queries,
        );
      }
    });
    await migrate(database, [...migrations, ...replayMigrations, ...auditMigrations]);

    const tenants = async (request: object) =>
      (await tenantStore(database.read).list(create(ListTenantsRequestSchema, request))).items;
    expect((await tenants({ filter: '{"name":"old","updatedAt":"1970-01-01T00:00:01Z"}' }))[0]).toMatchObject(
      {
        id: "old",
        name: "old",
        updatedAt: timestampFromMs(1000),
      },
    );
    expect((await tenants({ sort: "-suspendedAt" })).map(({ name }) => name)).toEqual(["Newer", "old"]);

    const users = async (request: object) => {
      const page = await usersOf("old", database.read).list(create(ListUsersRequestSchema, request));
      return page.items.map(({ id }) => id);
    };
    expect(await users({ sort: "name" })).toEqual(["user-2", "user-1"]);
    expect(await users({ sort: "-updated_at" })).toEqual(["user-1", "user-2"]);
    expect(await users({ filter: '{"name":{"prefix":"with"}}' })).toEqual(["user-1"]);
    await demandIndexes(database, [apiKeyList, tenantList, userList, auditList]);
  });
});
