import { fail } from "./errors.ts";

/**
 * Makes sure that a caller changes the version that it has read. `wanted` is what the request says:
 * an etag as it was read, or the text of an If-Match header; nothing, or `*`, means any version.
 * Call it in the transaction that makes the change, on the row read in it.
 * @throws ETAG_MISMATCH
 */
export function demandEtag(wanted: string, present: string): void {
  const text = wanted.trim();
  if (text === "" || text === "*" || text === present) return;
  // Only strong tags: a weak one promises too little to change something by it.
  const tags = Array.from(text.matchAll(/(W\/)?"([^"]*)"/g), ([, weak, tag]) => (weak ? undefined : tag));
  if (!tags.includes(present)) throw fail("ETAG_MISMATCH", { metadata: { etag: present } });
}
