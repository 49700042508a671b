import { fail } from "../errors.ts";
import { type ListField, namesOf } from "./field.ts";

/** One key of a sort order. */
export interface SortKey {
  /** The field's name in the contract. */
  readonly field: string;
  readonly descending: boolean;
}

/** Most keys of a sort order. */
const maxKeys = 4;

/**
 * Parses a sort order such as `-priority,createdAt`. The list's id is added as the last key, in
 * the direction of the key before it, so that the order is total.
 * @throws INVALID_SORT
 */
export function parseSort(text: string, fields: ReadonlyMap<string, ListField>, id: string): SortKey[] {
  const keys: SortKey[] = [];
  for (const part of text.split(",")) {
    const [, sign, name = ""] = /^\s*([-+]?)\s*(.*?)\s*$/s.exec(part) ?? [];
    const field = [...fields.values()].find(({ desc, sort }) => sort && namesOf(desc).includes(name));
    if (!field) {
      const known = [...fields.values()].filter(({ sort }) => sort).map(({ desc }) => desc.jsonName);
      throw invalid(`cannot be sorted by "${name}"; these can: ${known.join(", ")}`, "UNKNOWN_FIELD");
    }
    if (keys.some((key) => key.field === field.path)) throw invalid(`names ${name} twice`, "REPEATED_FIELD");
    keys.push({ field: field.path, descending: sign === "-" });
  }
  if (keys.length > maxKeys) throw invalid(`has more than ${maxKeys} fields`, "TOO_MANY_FIELDS");
  if (!keys.some(({ field }) => field === id)) {
    keys.push({ field: id, descending: keys.at(-1)?.descending ?? false });
  }
  return keys;
}

const invalid = (description: string, reason: string) =>
  fail("INVALID_SORT", {
    message: `sort: ${description}`,
    violations: [{ field: "sort", description, reason }],
  });
