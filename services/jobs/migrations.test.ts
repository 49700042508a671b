import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import { expect, it } from "vitest";
import { JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { ListJobsRequestSchema } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { migrate } from "#kernel/migrate.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { everyPage } from "#test/support/pages.ts";
import { jobsOf, migrations } from "./store.ts";

onEachEngine((test) => {
  it("fills the columns of lists for jobs that are there already", async () => {
    const database = test().open();
    await migrate(database, migrations.slice(0, 1));
    const count = 1100;
    await database.write(async (queries) => {
      for (let index = 0; index < count; index++) {
        const tenantId = `tenant-${index % 2}`;
        const jobId = `job-${index}`;
        const at = timestampFromMs(1_700_000_000_000 + index);
        const message = create(JobSchema, {
          jobId,
          name: index === 3 ? "with\0NUL" : `name ${index}`,
          priority: 1 + (index % 10),
          createdAt: at,
          updatedAt: at,
          ...(index % 3 === 0 && { scheduledAt: at }),
        });
        await sql`insert into jobs
          (tenant_id, job_id, device_group_id, status, created_at, version, message) values
          (${tenantId}, ${jobId}, 'dock', 1, ${index}, 1, ${Buffer.from(toBinary(JobSchema, message))})`.execute(
          queries,
        );
      }
    });
    await migrate(database, migrations);

    const namesOf = async (tenantId: string, filter: object, sort: string) => {
      const store = jobsOf(tenantId, database.read);
      const found = await everyPage((pageToken) =>
        store.list(
          create(ListJobsRequestSchema, { filter: JSON.stringify(filter), sort, limit: 100, pageToken }),
        ),
      );
      return found.map(({ name }) => name);
    };
    const every = { priority: { gte: 1 }, updatedAt: { gte: "2023-11-14T22:13:20Z" } };
    expect((await namesOf("tenant-0", every, "name")).length).toBe(count / 2);
    expect((await namesOf("tenant-1", every, "name")).length).toBe(count / 2);
    expect((await namesOf("tenant-1", { scheduledAt: null }, "jobId")).length).toBe(367);
    expect(await namesOf("tenant-1", { name: { prefix: "name 109" }, priority: 10 }, "-updatedAt")).toEqual([
      "name 1099",
      "name 109",
    ]);
    expect(await namesOf("tenant-1", { name: { prefix: "with" } }, "name")).toEqual(["with\0NUL"]);
  });
});
