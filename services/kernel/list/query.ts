import { type RawBuilder, type SqlBool, sql } from "kysely";
import type { ColumnValue } from "./field.ts";
import type { Filter, Operator } from "./filter.ts";

/** Where the values of a field stand. */
export interface Column {
  readonly name: string;
  /** Whether a row may lack a value. */
  readonly nullable: boolean;
}

/** One key of an order, with its column. */
export interface OrderKey {
  readonly column: Column;
  readonly descending: boolean;
}

type Condition = RawBuilder<SqlBool>;

const all = (terms: readonly Condition[]): Condition => sql`(${sql.join(terms, sql` and `)})`;
const any = (terms: readonly Condition[]): Condition => sql`(${sql.join(terms, sql` or `)})`;
const never: Condition = sql`1 = 0`;
const always: Condition = sql`1 = 1`;

/**
 * The condition of a filter. A row without a value fulfils no comparison but `ne`, and fulfils the
 * negation of every one that it does not: `not` is carried down to the comparisons, because SQL's
 * own leaves such a row out of both.
 */
export function conditionOf(filter: Filter, columnOf: (field: string) => Column, negated = false): Condition {
  switch (filter.kind) {
    case "and":
    case "or": {
      const terms = filter.terms.map((term) => conditionOf(term, columnOf, negated));
      return (filter.kind === "and") !== negated ? all(terms) : any(terms);
    }
    case "not":
      return conditionOf(filter.term, columnOf, !negated);
    case "set": {
      const column = columnOf(filter.field);
      if (!column.nullable) return filter.set !== negated ? always : never;
      return filter.set !== negated ? sql`${sql.ref(column.name)} is not null` : isNull(column);
    }
    case "in": {
      const column = columnOf(filter.field);
      const values = sql.join(filter.values);
      if (!negated) return sql`${sql.ref(column.name)} in (${values})`;
      return orNull(column, sql`${sql.ref(column.name)} not in (${values})`);
    }
    case "compare": {
      const column = columnOf(filter.field);
      if (filter.op === "ne") {
        const { field, value } = filter;
        return conditionOf({ kind: "compare", field, op: "eq", value }, columnOf, !negated);
      }
      const condition = compare(sql.ref(column.name), filter.op, filter.value);
      return negated ? orNull(column, sql`not ${condition}`) : condition;
    }
  }
}

const isNull = (column: Column): Condition => sql`${sql.ref(column.name)} is null`;

const orNull = (column: Column, condition: Condition): Condition =>
  column.nullable ? any([isNull(column), condition]) : condition;

function compare(column: RawBuilder<unknown>, op: Exclude<Operator, "ne">, value: ColumnValue): Condition {
  switch (op) {
    case "eq":
      return sql`(${column} = ${value})`;
    case "gt":
      return sql`(${column} > ${value})`;
    case "gte":
      return sql`(${column} >= ${value})`;
    case "lt":
      return sql`(${column} < ${value})`;
    case "lte":
      return sql`(${column} <= ${value})`;
    case "prefix": {
      // A range, which an index serves; LIKE is served by none on SQLite.
      const end = afterPrefix(String(value));
      const from = sql<SqlBool>`${column} >= ${value}`;
      return all(end === undefined ? [from] : [from, sql`${column} < ${end}`]);
    }
    case "contains": {
      const pattern = `%${String(value).replaceAll(/[\\%_]/g, "\\$&")}%`;
      return sql`(lower(${column}) like lower(${pattern}) escape '\\')`;
    }
  }
}

/** The first text in the order of code points that comes after all texts with a prefix, if there is one. */
function afterPrefix(prefix: string): string | undefined {
  const points = Array.from(prefix, (character) => character.codePointAt(0) as number);
  while (points.length > 0) {
    const last = points.pop() as number;
    if (last === 0x10ffff) continue;
    // Surrogates are no characters.
    return String.fromCodePoint(...points, last === 0xd7ff ? 0xe000 : last + 1);
  }
  return undefined;
}

/** An order: rows without a value come first, or last when descending, on both engines. */
export function orderBy({ column, descending }: OrderKey): RawBuilder<unknown> {
  const nulls = !column.nullable ? sql`` : descending ? sql` nulls last` : sql` nulls first`;
  return sql`${sql.ref(column.name)} ${descending ? sql`desc` : sql`asc`}${nulls}`;
}

/** The condition of the rows that come after the one with these values of the order's keys. */
export function afterRow(keys: readonly OrderKey[], values: readonly (ColumnValue | null)[]): Condition {
  const [first] = keys as [OrderKey];
  const oneWay = keys.every((key) => key.descending === first.descending && !key.column.nullable);
  if (oneWay) {
    // One comparison of rows, which the engines answer from an index.
    const columns = sql.join(keys.map((key) => sql.ref(key.column.name)));
    const row = sql.join(values.map((value) => sql`${value}`));
    return first.descending ? sql`(${columns}) < (${row})` : sql`(${columns}) > (${row})`;
  }
  const alternatives = keys.map((key, index) => {
    const equal = keys.slice(0, index).map((before, place) => same(before, values[place] ?? null));
    return all([...equal, past(key, values[index] ?? null)]);
  });
  const from = fromOn(first, values[0] ?? null);
  return from ? all([from, any(alternatives)]) : any(alternatives);
}

/** What the first key says by itself: no more than the whole condition, but an index can begin there. */
function fromOn({ column, descending }: OrderKey, value: ColumnValue | null): Condition | undefined {
  if (value === null) return descending ? isNull(column) : undefined;
  if (!descending) return sql`${sql.ref(column.name)} >= ${value}`;
  return column.nullable ? undefined : sql`${sql.ref(column.name)} <= ${value}`;
}

const same = ({ column }: OrderKey, value: ColumnValue | null): Condition =>
  value === null ? isNull(column) : sql`${sql.ref(column.name)} = ${value}`;

function past({ column, descending }: OrderKey, value: ColumnValue | null): Condition {
  if (value === null) return descending ? never : sql`${sql.ref(column.name)} is not null`;
  return descending
    ? orNull(column, sql`${sql.ref(column.name)} < ${value}`)
    : sql`${sql.ref(column.name)} > ${value}`;
}
