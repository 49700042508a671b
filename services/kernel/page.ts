import { createHmac, timingSafeEqual } from "node:crypto";
import { fail } from "./errors.ts";

/** Where a page ended: the order key of its last row. */
export type PageKey = readonly (string | number)[];

/**
 * Page tokens of one list. A token is opaque, bound to the list's name, tenant and filter, and
 * carries no authority; an altered or foreign one fails with INVALID_PAGE_TOKEN.
 */
export function pageTokens(list: string, ...filter: readonly (string | number)[]) {
  const mac = (payload: string) =>
    createHmac("sha256", "page")
      .update(JSON.stringify([list, filter]))
      .update(payload)
      .digest()
      .subarray(0, 8);
  return {
    encode(key: PageKey): string {
      const payload = Buffer.from(JSON.stringify(key)).toString("base64url");
      return `${payload}.${mac(payload).toString("base64url")}`;
    },
    /** The key, or undefined for the first page. */
    decode(token: string): PageKey | undefined {
      if (token === "") return undefined;
      const [payload = "", signature = ""] = token.split(".");
      const given = Buffer.from(signature, "base64url");
      if (given.length !== 8 || !timingSafeEqual(given, mac(payload))) throw fail("INVALID_PAGE_TOKEN");
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
