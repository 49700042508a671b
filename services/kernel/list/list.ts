import { create, type DescMessage, getOption, hasOption } from "@bufbuild/protobuf";
import { type RawBuilder, type SelectQueryBuilder, sql } from "kysely";
import { type PageInfo, PageInfoSchema } from "#gen/portolan/common/v1/page_pb.js";
import { listable } from "#gen/portolan/options/v1/list_pb.js";
import { fail } from "../errors.ts";
import { cutPage, type PageKey, pageTokens } from "../page.ts";
import { listFieldsOf } from "./field.ts";
import { type Limits, parseFilter } from "./filter.ts";
import { afterRow, type Column, conditionOf, type OrderKey, orderBy } from "./query.ts";
import { parseSort } from "./sort.ts";

/** How a list stands in its table. */
export interface ListDeclaration {
  /** The request, whose `filter` field carries the limits of filters. */
  readonly request: DescMessage;
  /** What is listed; its listable fields each have a column here. */
  readonly message: DescMessage;
  readonly table: string;
  /** Columns that every query of the list fixes, the tenant's first. */
  readonly scope: readonly string[];
  /** The columns of the listable fields, and that of the id. */
  readonly columns: Readonly<Record<string, string | { readonly nullable: string }>>;
  /** The field, or else the column, that tells rows of one scope apart. */
  readonly id: string;
  /** The order of a list that is not told any. */
  readonly sort: string;
}

/** What list requests have in common. */
export interface ListRequest {
  readonly page: number;
  readonly pageToken: string;
  readonly sort: string;
  readonly filter: string;
}

/** A page of a list. */
export interface Page<Item> {
  readonly items: Item[];
  /** Token of the next page; empty at the end. */
  readonly nextPageToken: string;
  /** Only if the request gave a page number. */
  readonly pageInfo?: PageInfo;
}

/** A list that can be filtered, sorted and paged. */
export interface List {
  readonly table: string;
  readonly scope: readonly string[];
  /** The columns that filters and sort orders may name. */
  readonly columns: readonly Column[];
  /**
   * Reads a page of what `query` selects. The query fixes the tenant; `scope` is what else tells
   * its list from others, so that a page token of one is refused by another.
   * @param size most items of a page
   * @throws INVALID_FILTER, INVALID_SORT, INVALID_PAGE_TOKEN
   */
  page<DB, TB extends keyof DB, Row>(
    query: SelectQueryBuilder<DB, TB, Row>,
    request: ListRequest,
    size: number,
    scope: readonly (string | number)[],
  ): Promise<Page<Row>>;
}

/**
 * Makes a list.
 * @throws Error if the contract declares a listable field that has no column, or the other way about
 */
export function defineList(declaration: ListDeclaration): List {
  const { request, message, table, id } = declaration;
  const name = request.typeName;
  const fields = listFieldsOf(message);
  const columns = new Map<string, Column>();
  for (const [field, column] of Object.entries(declaration.columns)) {
    const nullable = typeof column !== "string";
    columns.set(field, { name: nullable ? column.nullable : column, nullable });
  }
  for (const field of fields.keys()) {
    if (!columns.has(field))
      throw new Error(`${name}: ${message.typeName}.${field} is listable and has no column`);
  }
  for (const field of columns.keys()) {
    if (field !== id && !fields.has(field)) {
      throw new Error(`${name}: ${field} has a column and is not listable in ${message.typeName}`);
    }
  }
  const columnOf = (field: string) => columns.get(field) as Column;
  if (!columnOf(id)) throw new Error(`${name}: the id ${id} has no column`);
  const limits = limitsOf(request);
  // A default order that is not valid shall fail at start.
  parseSort(declaration.sort, fields, id);

  return {
    table,
    scope: declaration.scope,
    columns: [...fields.keys()].map(columnOf),
    async page(query, { page, pageToken, ...request }, size, scope) {
      if (page && pageToken) {
        const description = "cannot be given together with page_token";
        throw fail("VALIDATION_ERROR", {
          message: `page: ${description}`,
          violations: [{ field: "page", description }],
        });
      }
      const filter = parseFilter(request.filter, fields, limits);
      const sort = parseSort(request.sort || declaration.sort, fields, id);
      const tokens = pageTokens(name, ...scope, JSON.stringify([filter, sort]));
      const after = tokens.decode(pageToken);
      const keys = sort.map(({ field, descending }): OrderKey => ({ column: columnOf(field), descending }));

      // Below, the query is extended by conditions and columns that Kysely's types cannot follow.
      let rows = query as unknown as SelectQueryBuilder<Table, "table", Record<string, unknown>>;
      if (filter) rows = rows.where(conditionOf(filter, columnOf));
      const counted = page ? await count(rows) : undefined;
      if (after) rows = rows.where(afterRow(keys, after));
      for (const key of keys) rows = rows.orderBy(orderBy(key));
      const aliased = keys.map(({ column }, index) => sql.ref(column.name).as(`list_key_${index}`));
      const found = await rows
        .select(aliased as never)
        .limit(size + 1)
        .$if(page > 1, (all) => all.offset((page - 1) * size))
        .execute();

      const keyOf = (row: Record<string, unknown>) =>
        keys.map((_, index) => row[`list_key_${index}`]) as unknown as PageKey;
      const [items, nextPageToken] = cutPage(found, size, (row) => tokens.encode(keyOf(row)));
      return {
        items: items as never[],
        nextPageToken,
        ...(counted !== undefined && { pageInfo: pageInfo(page, size, counted) }),
      };
    },
  };
}

interface Table {
  table: Record<string, unknown>;
}

async function count(rows: SelectQueryBuilder<Table, "table", Record<string, unknown>>): Promise<number> {
  const total: RawBuilder<number> = sql`count(*)`;
  const row = await rows.clearSelect().select(total.as("total")).executeTakeFirstOrThrow();
  return Number(row.total);
}

function pageInfo(page: number, pageSize: number, total: number): PageInfo {
  const totalPages = Math.ceil(total / pageSize);
  return create(PageInfoSchema, {
    page,
    pageSize,
    totalItems: total,
    totalPages,
    hasNext: page < totalPages,
    hasPrevious: page > 1 && totalPages > 0,
  });
}

function limitsOf(request: DescMessage): Limits {
  const field = request.field.filter;
  const limits = field && hasOption(field, listable) ? getOption(field, listable).expression : undefined;
  if (!limits) throw new Error(`${request.typeName}: the field filter states no limits`);
  return limits;
}
