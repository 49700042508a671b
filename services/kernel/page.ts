import { createHmac } from "node:crypto";
import { fail } from "./errors.ts";

/** Where a page ended: the order key of its last row. */
export type PageKey = readonly (string | number | null)[];

/**
 * Page tokens of one list. A token is opaque, bound to the list's name, tenant and filter, and
 * carries no authority; an altered or foreign one fails with INVALID_PAGE_TOKEN.
 */
export function pageTokens(list: string, ...filter: readonly (string | number)[]) {
  const sign = (payload: string) => {
    const mac = createHmac("sha256", "page")
      .update(JSON.stringify([list, filter]))
      .update(payload)
      .digest()
      .subarray(0, 8);
    return `${payload}.${mac.toString("base64url")}`;
  };
  return {
    encode(key: PageKey): string {
      return sign(Buffer.from(JSON.stringify(key)).toString("base64url"));
    },
    /** The key, or undefined for the first page. */
    decode(token: string): PageKey | undefined {
      if (token === "") return undefined;
      const [payload = ""] = token.split(".", 1);
      if (token !== sign(payload)) throw fail("INVALID_PAGE_TOKEN");
      return JSON.parse(Buffer.from(payload, "base64url").toString()) as PageKey;
    },
  };
}

/** Cuts the one row too many that a list query reads to learn whether there is a next page. */
export function cutPage<Row>(rows: Row[], size: number, keyOf: (row: Row) => string): [Row[], string] {
  if (rows.length <= size) return [rows, ""];
  const page = rows.slice(0, size);
  return [page, keyOf(page[size - 1] as Row)];
}
