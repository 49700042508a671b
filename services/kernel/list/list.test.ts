import { ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { type Kysely, sql } from "kysely";
import { beforeAll, expect, it } from "vitest";
import { JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { ListJobsRequestSchema } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { onEachEngine } from "#test/support/databases.ts";
import { everyPage } from "#test/support/pages.ts";
import type { Database } from "../database.ts";
import { reasonOf } from "../errors.ts";
import { type Migration, migrate } from "../migrate.ts";
import { defineList, type List, type ListRequest, type Page } from "./list.ts";

/** A row of the test's own table; its columns stand for fields of Job. */
interface Row {
  job_id: string;
  name: string;
  device_group_id: string;
  status: number;
  priority: number;
  created_at: number;
  updated_at: number;
  scheduled_at: number | null;
}

const migration: Migration = {
  name: "test/rows",
  async up(queries, types) {
    await queries.schema
      .createTable("rows")
      .addColumn("tenant_id", "text")
      .addColumn("job_id", types.text)
      .addColumn("name", types.text)
      .addColumn("device_group_id", types.text)
      .addColumn("status", "integer")
      .addColumn("priority", "integer")
      .addColumn("created_at", "bigint")
      .addColumn("updated_at", "bigint")
      .addColumn("scheduled_at", "bigint")
      .execute();
  },
};

const columns = {
  job_id: "job_id",
  name: "name",
  device_group_id: "device_group_id",
  status: "status",
  priority: "priority",
  created_at: "created_at",
  updated_at: "updated_at",
  scheduled_at: { nullable: "scheduled_at" },
};
const declaration = {
  request: ListJobsRequestSchema,
  message: JobSchema,
  table: "rows",
  scope: ["tenant_id"],
  columns,
  id: "job_id",
  sort: "-created_at",
};
const list: List = defineList(declaration);

const requestOf = (fields: Partial<ListRequest> = {}): ListRequest => ({
  page: 0,
  pageToken: "",
  sort: "",
  filter: "",
  ...fields,
});

/** Texts that meet each other often, with what is special to LIKE, to collations and to UTF-16. */
const text = fc.string({
  unit: fc.constantFrom("a", "A", "b", "%", "_", "\\", "é", "￿", "😀"),
  maxLength: 4,
});
const time = fc.integer({ min: 1_700_000_000_000, max: 1_700_000_000_004 });
const rowOf = (id: number) =>
  fc.record<Row>({
    job_id: text.map((prefix) => `${prefix}${id}`),
    name: text,
    device_group_id: fc.constantFrom("x", "y"),
    status: fc.integer({ min: 1, max: 6 }),
    priority: fc.integer({ min: 1, max: 3 }),
    created_at: time,
    updated_at: time,
    scheduled_at: fc.option(time),
  });
const rows = fc
  .integer({ min: 0, max: 25 })
  .chain((size) => fc.tuple(...Array.from({ length: size }, (_, id) => rowOf(id))));

type Value = string | number | null;

/** Texts by code point, as both engines sort them; what is unset before everything. */
function compare(a: Value, b: Value): number {
  if (a === null || b === null) return Number(a !== null) - Number(b !== null);
  if (typeof a === "string" && typeof b === "string") return Buffer.compare(Buffer.from(a), Buffer.from(b));
  return Number(a) - Number(b);
}

/** A filter as it is written, and what it means. */
interface Meant {
  readonly json: unknown;
  holds(row: Row): boolean;
}

const lower = (value: string) => value.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase());
const operators: Record<string, (value: Value, other: Value) => boolean> = {
  eq: (value, other) => compare(value, other) === 0,
  ne: (value, other) => compare(value, other) !== 0,
  gt: (value, other) => value !== null && compare(value, other) > 0,
  gte: (value, other) => value !== null && compare(value, other) >= 0,
  lt: (value, other) => value !== null && compare(value, other) < 0,
  lte: (value, other) => value !== null && compare(value, other) <= 0,
  prefix: (value, other) => String(value).startsWith(String(other)),
  contains: (value, other) => lower(String(value)).includes(lower(String(other))),
};
const common = ["eq", "ne", "gt", "gte", "lt", "lte"];
const states = ["", "PENDING", "QUEUED", "INPROGRESS", "COMPLETED", "FAILED", "CANCELLED"];

/** How a field is written in filters, and its values. */
const fields: {
  name: string;
  column: keyof Row;
  value: fc.Arbitrary<Value>;
  write(value: Value): unknown;
  ops: string[];
}[] = [
  {
    name: "name",
    column: "name",
    value: text,
    write: (value) => value,
    ops: [...common, "prefix", "contains"],
  },
  { name: "job_id", column: "job_id", value: text, write: (value) => value, ops: [...common, "prefix"] },
  {
    name: "priority",
    column: "priority",
    value: fc.integer({ min: 0, max: 4 }),
    write: (value) => value,
    ops: common,
  },
  { name: "priority", column: "priority", value: fc.integer({ min: 0, max: 4 }), write: String, ops: common },
  {
    name: "status",
    column: "status",
    value: fc.integer({ min: 1, max: 6 }),
    write: (value) => states[Number(value)],
    ops: common,
  },
  {
    name: "createdAt",
    column: "created_at",
    value: time,
    write: (value) => new Date(Number(value)).toISOString(),
    ops: common,
  },
  {
    name: "scheduled_at",
    column: "scheduled_at",
    value: time,
    write: (value) => new Date(Number(value)).toISOString(),
    ops: common,
  },
];

const comparison: fc.Arbitrary<Meant> = fc
  .constantFrom(...fields)
  .chain(({ name, column, value, write, ops }) =>
    fc.oneof(
      fc.tuple(fc.constantFrom(...ops), value).map(([op, other]) => ({
        json: { [name]: { [op]: write(other) } },
        holds: (row: Row) => operators[op]?.(row[column], other) === true,
      })),
      fc.array(value, { minLength: 1, maxLength: 3 }).map((others) => ({
        json: { [name]: others.map(write) },
        holds: (row: Row) => others.some((other) => compare(row[column], other) === 0),
      })),
      fc.boolean().map((exists) => ({
        json: { [name]: { exists } },
        holds: (row: Row) => (row[column] !== null) === exists,
      })),
    ),
  );
const { filter } = fc.letrec<{ filter: Meant }>((tie) => ({
  filter: fc.oneof(
    { depthSize: "small", maxDepth: 3 },
    comparison,
    fc.array(tie("filter"), { minLength: 1, maxLength: 3 }).map((terms) => ({
      json: { and: terms.map(({ json }) => json) },
      holds: (row: Row) => terms.every((term) => term.holds(row)),
    })),
    fc.array(tie("filter"), { minLength: 1, maxLength: 3 }).map((terms) => ({
      json: { or: terms.map(({ json }) => json) },
      holds: (row: Row) => terms.some((term) => term.holds(row)),
    })),
    tie("filter").map((term) => ({ json: { not: term.json }, holds: (row: Row) => !term.holds(row) })),
  ),
}));

const sortable = Object.keys(columns) as (keyof Row)[];
const sort = fc
  .subarray(sortable, { minLength: 0, maxLength: 4 })
  .chain((names) => fc.shuffledSubarray(names, { minLength: names.length }))
  .chain((names) => fc.tuple(...names.map((name) => fc.tuple(fc.constant(name), fc.boolean()))));

onEachEngine((test) => {
  let database: Database;
  let tenants = 0;

  beforeAll(async () => {
    database = test().open();
    await migrate(database, [migration]);
  });

  /** Makes a tenant of the test's own that has these rows. */
  async function tenantWith(all: readonly Row[]): Promise<string> {
    const tenant = `tenant-${tenants++}`;
    // The rows of another tenant must never show.
    const values = [
      ...all.map((row) => ({ tenant_id: tenant, ...row })),
      ...all.map((row) => ({ tenant_id: `${tenant}-other`, ...row })),
    ];
    await database.write(async (queries) => {
      const table = queries as unknown as Kysely<{ rows: Row & { tenant_id: string } }>;
      if (values.length > 0) await table.insertInto("rows").values(values).execute();
    });
    return tenant;
  }

  const page = (tenant: string, size: number, request: Partial<ListRequest>): Promise<Page<Row>> => {
    const read = database.read as unknown as Kysely<{ rows: Row & { tenant_id: string } }>;
    const query = read.selectFrom("rows").selectAll().where("tenant_id", "=", tenant);
    return list.page(query, requestOf(request), size, [tenant]);
  };
  const idsOf = (found: readonly Row[]) => found.map((row) => row.job_id);

  it("gives each matching row once and in order, whatever the filter, the order and the page size", async () => {
    await fc.assert(
      fc.asyncProperty(
        rows,
        fc.option(filter, { nil: undefined }),
        sort,
        fc.integer({ min: 1, max: 9 }),
        async (all, meant, keys, size) => {
          const tenant = await tenantWith(all);
          const request = {
            filter: meant ? JSON.stringify(meant.json) : "",
            sort: keys.map(([name, descending]) => (descending ? `-${name}` : name)).join(","),
          };
          const order = keys.length > 0 ? [...keys] : [["created_at", true] as const];
          const last = order.at(-1)?.[1] ?? false;
          const wanted = all
            .filter((row) => meant?.holds(row) ?? true)
            .sort((a, b) => {
              for (const [name, descending] of [...order, ["job_id", last] as const]) {
                const difference = compare(a[name], b[name]);
                if (difference !== 0) return descending ? -difference : difference;
              }
              return 0;
            });
          const paged = await everyPage((pageToken) => page(tenant, size, { ...request, pageToken }));
          expect(idsOf(paged)).toEqual(idsOf(wanted));

          const number = 1 + (all.length % 3);
          const numbered = await page(tenant, size, { ...request, page: number });
          const from = (number - 1) * size;
          expect(idsOf(numbered.items)).toEqual(idsOf(wanted.slice(from, from + size)));
          expect(numbered.pageInfo).toMatchObject({
            page: number,
            pageSize: size,
            totalItems: wanted.length,
            totalPages: Math.ceil(wanted.length / size),
            hasNext: wanted.length > from + size,
            hasPrevious: number > 1 && wanted.length > 0,
          });
        },
      ),
      { numRuns: 150 },
    );
  }, 120_000);

  it("finds texts by how they begin and by what they contain, whatever characters they have", async () => {
    const names = fc.array(text, { minLength: 10, maxLength: 20 });
    const needle = fc.string({
      unit: fc.constantFrom("a", "A", "%", "_", "\\", "\uffff", "\u{10ffff}"),
      maxLength: 2,
    });
    await fc.assert(
      fc.asyncProperty(names, needle, fc.constantFrom("prefix", "contains"), async (all, other, op) => {
        const [row] = fc.sample(rowOf(0), 1) as [Row];
        const tenant = await tenantWith(all.map((name, id) => ({ ...row, name, job_id: `job-${id}` })));
        const found = await page(tenant, 100, { filter: JSON.stringify({ name: { [op]: other } }) });
        const wanted = all.filter((name) => operators[op]?.(name, other));
        expect(found.items.map(({ name }) => name).sort()).toEqual(wanted.sort());
      }),
      { numRuns: 100 },
    );
  });

  it("goes on by token after a numbered page, and counts nothing without a page number", async () => {
    const all = fc.sample(fc.tuple(...Array.from({ length: 7 }, (_, id) => rowOf(id))), 1)[0] ?? [];
    const tenant = await tenantWith(all);
    const first = await page(tenant, 3, { page: 1, sort: "job_id" });
    const second = await page(tenant, 3, { pageToken: first.nextPageToken, sort: "job_id" });
    expect(idsOf(second.items)).toEqual(idsOf((await page(tenant, 3, { page: 2, sort: "job_id" })).items));
    expect(second.pageInfo).toBeUndefined();
  });

  it("binds a page token to its tenant, filter and order, however the filter is written", async () => {
    const [all = []] = fc.sample(fc.tuple(...Array.from({ length: 5 }, (_, id) => rowOf(id))), 1);
    const tenant = await tenantWith(all);
    const filter = '{"priority":{"gte":1}}';
    const { nextPageToken: pageToken } = await page(tenant, 2, { filter, sort: "name" });
    const goOn = (of: string, request: Partial<ListRequest>) =>
      page(of, 3, { pageToken, ...request }).then(
        ({ items }) => items.length,
        (error) => (error instanceof ConnectError ? reasonOf(error) : error),
      );
    expect(await goOn(tenant, { filter, sort: "name" })).toBe(3);
    expect(await goOn(tenant, { filter: '{ "priority": { "gte": "1" } }', sort: " name" })).toBe(3);
    for (const other of [
      goOn(`${tenant}-other`, { filter, sort: "name" }),
      goOn(tenant, { filter, sort: "-name" }),
      goOn(tenant, { filter }),
      goOn(tenant, { filter: '{"priority":{"gte":2}}', sort: "name" }),
      goOn(tenant, { filter: '{"priority":{"gt":1}}', sort: "name" }),
      goOn(tenant, { sort: "name" }),
    ]) {
      expect(await other).toBe("INVALID_PAGE_TOKEN");
    }
    expect(await goOn(tenant, { filter, sort: "name", page: 2 })).toBe("VALIDATION_ERROR");
  });

  it("takes what looks like SQL for a value", async () => {
    const tenant = await tenantWith([{ ...(fc.sample(rowOf(1), 1)[0] as Row), name: "' or 1=1 --" }]);
    const found = async (json: object) =>
      (await page(tenant, 9, { filter: JSON.stringify(json) })).items.length;
    expect(await found({ name: "' or 1=1 --" })).toBe(1);
    expect(await found({ name: { contains: "' or 1=1" } })).toBe(1);
    expect(await found({ name: "x' or 'a'='a" })).toBe(0);
    expect((await sql`select * from rows limit 1`.execute(database.read)).rows.length).toBe(1);
  });
});

it("is refused when the contract and the columns do not fit", () => {
  const { name: _, ...withoutName } = columns;
  expect(() => defineList({ ...declaration, columns: withoutName })).toThrow(/Job\.name is listable/);
  expect(() => defineList({ ...declaration, columns: { ...columns, progress: "progress" } })).toThrow(
    /progress has a column and is not listable/,
  );
  expect(() => defineList({ ...declaration, request: JobSchema })).toThrow(/states no limits/);
  expect(() => defineList({ ...declaration, sort: "progress" })).toThrow();
});
