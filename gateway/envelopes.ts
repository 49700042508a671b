import type { DescField, DescMethod, JsonObject, JsonValue, Message } from "@bufbuild/protobuf";
import type { PageInfo } from "#gen/portolan/common/v1/page_pb.js";
import { Envelope } from "#gen/portolan/options/v1/surface_pb.js";
import { subjectOf } from "./gate/sparse.ts";

/** Wraps the body of a success. `nameOf` gives the names that fields have in it. */
export type Wrap = (
  body: JsonValue,
  response: Message,
  method: DescMethod,
  nameOf: (field: DescField) => string,
) => JsonValue;

/** The wrapping of successes, by the envelope of a surface. */
export const envelopes: Partial<Record<Envelope, Wrap>> = {
  [Envelope.SUCCESS_FLAG]: (body) => ({ success: true, ...(body as JsonObject) }),
  [Envelope.DATA](body, response, method, nameOf) {
    const subject = subjectOf(method);
    const data = subject && isObject(body) ? (body[nameOf(subject)] ?? null) : body;
    const { pageInfo, nextPageToken } = response as Message & { pageInfo?: PageInfo; nextPageToken?: string };
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
    return { data, ...(nextPageToken !== undefined && { pagination }) };
  },
};

const isObject = (json: JsonValue): json is JsonObject =>
  typeof json === "object" && json !== null && !Array.isArray(json);
