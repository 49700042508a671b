import type { DescField, DescMethod, Message } from "@bufbuild/protobuf";
import type { PageInfo } from "#gen/portolan/common/v1/page_pb.js";
import { namesOf } from "#kernel/list/field.ts";

/** What the response of a list says of its page, beside its items. */
export type Paging = Message & { readonly pageInfo?: PageInfo; readonly nextPageToken?: string };

/** Header that tells how many items a list holds, where the request gave a page number. */
export const totalHeader = "x-total-count";

/** Whether a method answers with a page and takes the token of the next one. */
export const isPaged = ({ input, output }: DescMethod): boolean =>
  input.field.pageToken !== undefined && output.field.nextPageToken !== undefined;

/**
 * The headers that tell of a page over REST, also where the body is a bare array: the link of RFC
 * 8288 to the next page, and the total.
 * @param target raw path and query of the request
 */
export function pagingHeaders(
  response: Message,
  method: DescMethod,
  target: { readonly path: string; readonly query: string },
): Record<string, string> {
  if (!isPaged(method)) return {};
  const { nextPageToken, pageInfo } = response as Paging;
  return {
    ...(nextPageToken && { link: `<${nextPage(method, target, nextPageToken)}>; rel="next"` }),
    ...(pageInfo && { [totalHeader]: String(pageInfo.totalItems) }),
  };
}

/** The same request with a page token; relative, since a proxy may know the server by another name. */
function nextPage(
  { input: { field } }: DescMethod,
  { path, query }: { readonly path: string; readonly query: string },
  token: string,
): string {
  const parameters = new URLSearchParams(query);
  const replaced = [field.page, field.pageToken].filter((each) => each !== undefined);
  for (const name of replaced.flatMap((each: DescField) => namesOf(each))) parameters.delete(name);
  parameters.set("page_token", token);
  // What could end the link, or stands in no header.
  const safe = path.toWellFormed().replace(/[^\x21\x23-\x3b\x3d\x3f-\x7e]/gu, encodeURIComponent);
  return `${safe}?${parameters}`;
}
