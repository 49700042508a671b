import type { DescField, DescMethod, JsonObject, JsonValue, Message } from "@bufbuild/protobuf";
import { Envelope } from "#gen/portolan/options/v1/surface_pb.js";
import { subjectOf } from "./gate/sparse.ts";
import type { Paging } from "./paging.ts";

/** What an envelope is made of beside the body. */
export interface Answer {
  readonly response: Message;
  readonly method: DescMethod;
  /** Gives the names that fields have in the body. */
  readonly nameOf: (field: DescField) => string;
  readonly requestId: string | undefined;
}

/** Wraps the body of a success. */
export type Wrap = (body: JsonValue, answer: Answer) => JsonValue;

/** The wrapping of successes, by the envelope of a surface. */
export const envelopes: Partial<Record<Envelope, Wrap>> = {
  [Envelope.SUCCESS_FLAG]: (body) => ({ success: true, ...(body as JsonObject) }),
  [Envelope.DATA](body, answer) {
    const { pageInfo, nextPageToken } = pagingOf(answer);
    const pagination = {
      ...(pageInfo && {
        page: pageInfo.page,
        per_page: pageInfo.pageSize,
        total: pageInfo.totalItems,
        pages: pageInfo.totalPages,
      }),
      ...(nextPageToken && { next_page_token: nextPageToken }),
    };
    // A list has a pagination, though it be empty: on its last page by token.
    return { data: dataOf(body, answer), ...(nextPageToken !== undefined && { pagination }) };
  },
  [Envelope.SUCCESS_DATA_META](body, answer) {
    const { pageInfo, nextPageToken } = pagingOf(answer);
    const pagination = {
      ...(pageInfo && {
        page: pageInfo.page,
        pageSize: pageInfo.pageSize,
        totalItems: pageInfo.totalItems,
        totalPages: pageInfo.totalPages,
        hasNext: pageInfo.hasNext,
        hasPrevious: pageInfo.hasPrevious,
      }),
      ...(nextPageToken && { nextPageToken }),
    };
    return {
      success: true,
      data: dataOf(body, answer),
      meta: { ...(nextPageToken !== undefined && { pagination }), ...metaOf(answer.requestId) },
    };
  },
};

/** What the release surface tells of every answer. */
export const metaOf = (requestId: string | undefined): JsonObject => ({
  requestId: requestId ?? "",
  timestamp: new Date().toISOString(),
});

/** The resource or the resources of an answer; all of it, where it holds none. */
function dataOf(body: JsonValue, { method, nameOf }: Answer): JsonValue {
  const subject = subjectOf(method);
  return subject && isObject(body) ? (body[nameOf(subject)] ?? null) : body;
}

const pagingOf = ({ response }: Answer) => response as Paging;

const isObject = (json: JsonValue): json is JsonObject =>
  typeof json === "object" && json !== null && !Array.isArray(json);
