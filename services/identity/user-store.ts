import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type User, UserSchema, type UserStatus } from "#gen/portolan/identity/v1/user_pb.js";
import { type ListUsersRequest, ListUsersRequestSchema } from "#gen/portolan/identity/v1/user_service_pb.js";
import type { Queries } from "#kernel/database.ts";
import { backfill } from "#kernel/list/backfill.ts";
import { textColumn } from "#kernel/list/field.ts";
import { defineList, type Page } from "#kernel/list/list.ts";
import type { Migration } from "#kernel/migrate.ts";

declare module "#kernel/database.ts" {
  interface Tables {
    users: {
      tenant_id: string;
      user_id: string;
      email: string;
      name: string;
      status: UserStatus;
      created_at: number;
      updated_at: number;
      /** Counts up with every change. */
      version: number;
      /** The User in its wire form. */
      message: Uint8Array;
    };
  }
}

export const userMigrations: Migration[] = [
  {
    name: "identity/0003-users",
    async up(queries, types) {
      await queries.schema
        .createTable("users")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("user_id", "text", (column) => column.notNull())
        .addColumn("email", "text", (column) => column.notNull())
        .addColumn("status", "integer", (column) => column.notNull())
        .addColumn("created_at", "bigint", (column) => column.notNull())
        .addColumn("version", "integer", (column) => column.notNull())
        .addColumn("message", types.bytes, (column) => column.notNull())
        .addPrimaryKeyConstraint("users_key", ["tenant_id", "user_id"])
        .addUniqueConstraint("users_email", ["tenant_id", "email"])
        .execute();
      await queries.schema
        .createIndex("users_list")
        .on("users")
        .columns(["tenant_id", "created_at", "user_id"])
        .execute();
    },
  },
  {
    name: "identity/0007-user-lists",
    async up(queries, types) {
      await types.retype(queries, "users", ["user_id", "email"]);
      const table = queries.schema.alterTable("users");
      await table.addColumn("name", types.text, (column) => column.notNull().defaultTo("")).execute();
      await table.addColumn("updated_at", "bigint", (column) => column.notNull().defaultTo(0)).execute();
      await backfill(queries, "users", ["tenant_id", "user_id"], (message) => {
        const { name, updated_at } = columnsOf(fromBinary(UserSchema, message));
        return { name, updated_at };
      });
      for (const column of ["name", "status", "updated_at"] as const) {
        await queries.schema
          .createIndex(`users_by_${column}`)
          .on("users")
          .columns(["tenant_id", column, "user_id"])
          .execute();
      }
    },
  },
];

/** The users of a tenant. */
export const userList = defineList({
  request: ListUsersRequestSchema,
  message: UserSchema,
  table: "users",
  scope: ["tenant_id"],
  columns: {
    email: "email",
    name: "name",
    status: "status",
    created_at: "created_at",
    updated_at: "updated_at",
    id: "user_id",
  },
  id: "id",
  sort: "-created_at",
});

/** The columns that change with a user. */
const columnsOf = (user: User) => ({
  email: user.email,
  name: textColumn(user.name),
  status: user.status,
  updated_at: user.updatedAt ? timestampMs(user.updatedAt) : 0,
});

/** Users of one tenant. */
export function usersOf(tenantId: string, queries: Queries) {
  const rows = () =>
    queries.selectFrom("users").select(["message", "version"]).where("tenant_id", "=", tenantId);
  const toUser = (row: { message: Uint8Array; version: number }): User => {
    const user = fromBinary(UserSchema, row.message);
    user.etag = String(row.version);
    return user;
  };
  return {
    /** Makes a user; false if the email address is taken. */
    async insert(user: User): Promise<boolean> {
      const { numInsertedOrUpdatedRows } = await queries
        .insertInto("users")
        .values({
          tenant_id: tenantId,
          user_id: user.id,
          ...columnsOf(user),
          created_at: user.createdAt ? timestampMs(user.createdAt) : 0,
          version: 1,
          message: toBinary(UserSchema, user),
        })
        .onConflict((conflict) => conflict.columns(["tenant_id", "email"]).doNothing())
        .executeTakeFirst();
      return numInsertedOrUpdatedRows === 1n;
    },
    /** A user; in a transaction it is held until the end, so that changes follow one another. */
    async get(userId: string): Promise<User | undefined> {
      const row = await rows()
        .where("user_id", "=", userId)
        .$if(queries.isTransaction, (query) => query.forUpdate())
        .executeTakeFirst();
      return row && toUser(row);
    },
    /** Id of the user with an email address. */
    async withEmail(email: string): Promise<string | undefined> {
      const row = await queries
        .selectFrom("users")
        .select("user_id")
        .where("tenant_id", "=", tenantId)
        .where("email", "=", email)
        .executeTakeFirst();
      return row?.user_id;
    },
    /** A page of users, newest first unless the request says otherwise. */
    async list(request: ListUsersRequest): Promise<Page<User>> {
      const { status } = request;
      let query = rows();
      if (status) query = query.where("status", "=", status);
      const page = await userList.page(query, request, request.pageSize || 100, [tenantId, status]);
      return { ...page, items: page.items.map(toUser) };
    },
    /** Writes a user that was read in this transaction. */
    async update(user: User): Promise<void> {
      const version = Number(user.etag) + 1;
      await queries
        .updateTable("users")
        .set({ ...columnsOf(user), version, message: toBinary(UserSchema, user) })
        .where("tenant_id", "=", tenantId)
        .where("user_id", "=", user.id)
        .execute();
      user.etag = String(version);
    },
    async delete(userId: string): Promise<void> {
      await queries
        .deleteFrom("users")
        .where("tenant_id", "=", tenantId)
        .where("user_id", "=", userId)
        .execute();
    },
    async deleteAll(): Promise<void> {
      await queries.deleteFrom("users").where("tenant_id", "=", tenantId).execute();
    },
  };
}
