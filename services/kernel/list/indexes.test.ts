import { expect, it } from "vitest";
import { onEachEngine } from "#test/support/databases.ts";
import { migrate } from "../migrate.ts";
import { demandIndexes } from "./indexes.ts";
import type { List } from "./list.ts";

onEachEngine((test) => {
  it("demands an index that begins with the scope and goes on with the column", async () => {
    const database = test().open();
    await migrate(database, [
      {
        name: "test/things",
        async up(queries) {
          await queries.schema
            .createTable("things")
            .addColumn("tenant_id", "text")
            .addColumn("id", "text")
            .addColumn("a", "integer")
            .addColumn("b", "integer")
            .addPrimaryKeyConstraint("things_key", ["tenant_id", "id"])
            .execute();
          await queries.schema
            .createIndex("things_by_a")
            .on("things")
            .columns(["tenant_id", "a", "b"])
            .execute();
        },
      },
    ]);
    const check = (columns: string[], scope = ["tenant_id"]) =>
      demandIndexes(database, [
        {
          table: "things",
          scope,
          columns: columns.map((name) => ({ name, nullable: false })),
        } as unknown as List,
      ]);
    await check(["id", "a"]);
    await check(["b"], ["tenant_id", "a"]);
    await check(["a"], ["tenant_id", "a"]);
    await expect(check(["id", "b"])).rejects.toThrow("without an index: things.b");
    await expect(check(["tenant_id", "a"], ["id"])).rejects.toThrow("things.tenant_id, things.a");
  });
});
