import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type User, UserSchema, type UserStatus } from "#gen/portolan/identity/v1/user_pb.js";
import type { Queries } from "#kernel/database.ts";
import type { Migration } from "#kernel/migrate.ts";

declare module "#kernel/database.ts" {
  interface Tables {
    users: {
      tenant_id: string;
      user_id: string;
      email: string;
      status: UserStatus;
      created_at: number;
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
];

/** The order key of a user in lists. */
export const userOrder = (user: User): readonly [number, string] => [
  user.createdAt ? timestampMs(user.createdAt) : 0,
  user.id,
];

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
      const [createdAt] = userOrder(user);
      const { numInsertedOrUpdatedRows } = await queries
        .insertInto("users")
        .values({
          tenant_id: tenantId,
          user_id: user.id,
          email: user.email,
          status: user.status,
          created_at: createdAt,
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
    /** Newest first, after the given (creation time, id). */
    async list(
      size: number,
      status: UserStatus,
      after: readonly [number, string] | undefined,
    ): Promise<User[]> {
      let query = rows().orderBy("created_at", "desc").orderBy("user_id", "desc").limit(size);
      if (status) query = query.where("status", "=", status);
      if (after) {
        query = query.where(({ eb, refTuple, tuple }) =>
          eb(refTuple("created_at", "user_id"), "<", tuple(after[0], after[1])),
        );
      }
      return (await query.execute()).map(toUser);
    },
    /** Writes a user that was read in this transaction. */
    async update(user: User): Promise<void> {
      const version = Number(user.etag) + 1;
      await queries
        .updateTable("users")
        .set({ email: user.email, status: user.status, version, message: toBinary(UserSchema, user) })
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
