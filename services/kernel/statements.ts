import type { Database as Handle, Statement } from "better-sqlite3";
import type { SqliteDatabase } from "kysely";

/** Most statements kept by a handle; there are fewer than this, lists of any length aside. */
const kept = 500;

/**
 * Lets SQLite compile a statement once rather than at each call, which is most of the cost of a read.
 * What changes the schema makes every handle forget its statements.
 */
export function createStatements(): (handle: Handle) => SqliteDatabase {
  const caches: Map<string, Statement>[] = [];
  return (handle) => {
    const cache = new Map<string, Statement>();
    caches.push(cache);
    return {
      prepare(text) {
        const known = cache.get(text);
        if (known) return known as never;
        const statement = handle.prepare(text);
        if (/^\s*(create|alter|drop)\b/i.test(text)) {
          for (const each of caches) each.clear();
        } else {
          if (cache.size >= kept) cache.delete(cache.keys().next().value as string);
          cache.set(text, statement);
        }
        return statement as never;
      },
      close: () => void handle.close(),
    };
  };
}
