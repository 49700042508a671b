import type { Page } from "#kernel/list/list.ts";

/** Everything that a list holds, read page by page by token. */
export async function everyPage<Item>(read: (pageToken: string) => Promise<Page<Item>>): Promise<Item[]> {
  const items: Item[] = [];
  for (let pageToken = ""; ; ) {
    const page = await read(pageToken);
    items.push(...page.items);
    pageToken = page.nextPageToken;
    if (pageToken === "") return items;
  }
}
