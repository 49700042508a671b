import {
  type DescEnum,
  type DescEnumValue,
  type DescField,
  type DescMethod,
  getOption,
  hasOption,
  type JsonValue,
} from "@bufbuild/protobuf";
import { Code, type ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { listable } from "#gen/portolan/options/v1/list_pb.js";
import { aliases, rest, spellings } from "#gen/portolan/options/v1/policy_pb.js";
import {
  EnumStyle,
  ErrorBody,
  rest_style as restStyle,
  Surface,
  SurfaceSchema,
  type SurfaceStyle,
  style as styleOption,
  surface as surfaceOption,
} from "#gen/portolan/options/v1/surface_pb.js";
import { fail, type Reason, reasonOf } from "#kernel/errors.ts";
import { versionedSurfaces } from "#services/meta/versions.ts";
import { maxMessageBytes } from "./connect/lane.ts";
import { envelopes } from "./envelopes.ts";
import type { Dialect, TranscoderOptions } from "./rest/index.ts";
import { cutBody, namesIn, spellError } from "./rest-spelling.ts";

type ErrorInfo = Parameters<NonNullable<Dialect["errorBody"]>>[1];

const enumStyles: Record<EnumStyle, NonNullable<Dialect["enumStyle"]>> = {
  [EnumStyle.UNSPECIFIED]: "canonical",
  [EnumStyle.SHORT]: "short",
  [EnumStyle.SHORT_LOWER]: "short-lower",
};

/** The REST dialect of a binding: that of its surface, with the method's own status. */
export function dialectOf(method: DescMethod, template: string): Dialect {
  return surfaceDialect(surfaceOf(method, template), getOption(method, rest).successStatus);
}

/** The surface of a binding: that of its service, or, where that has none, the one its path lies in. */
export const surfaceOf = (method: DescMethod, template: string): Surface =>
  getOption(method.parent, surfaceOption) || surfaceOfPath(template);

/** The dialect in which a path that has no method is refused: that of the surface it lies in. */
export const dialectOfPath = (path: string): Dialect => surfaceDialect(surfaceOfPath(path));

/** The URL prefixes of the surfaces, the longest first; one that two share belongs to the first. */
const prefixes = [...versionedSurfaces]
  .flatMap(([surface, { versions, unversionedPaths }]) =>
    [...versions.map(({ path }) => path), ...unversionedPaths].map((prefix) => ({ surface, prefix })),
  )
  .filter(({ prefix }) => prefix !== "")
  .sort((a, b) => b.prefix.length - a.prefix.length);

function surfaceOfPath(path: string): Surface {
  const found = prefixes.find(({ prefix }) => isBelow(path, prefix));
  return found?.surface ?? Surface.UNSPECIFIED;
}

/** Whether a path is a prefix of whole segments, or lies below it. */
export const isBelow = (path: string, prefix: string): boolean =>
  path === prefix || path.startsWith(`${prefix}/`);

/** One object for each dialect: the transcoder keeps compiled plans for each. */
const dialects = new Map<string, Dialect>();

function surfaceDialect(surface: Surface, successStatus = 0): Dialect {
  const key = `${surface} ${successStatus}`;
  const dialect = dialects.get(key) ?? makeDialect(surface, successStatus);
  dialects.set(key, dialect);
  return dialect;
}

function makeDialect(surface: Surface, successStatus: number): Dialect {
  const style = styleOf(surface);
  const errorBody = errorBodies[style.errorBody];
  const nameOf = namesIn(style.protoNames);
  const wrap = envelopes[style.envelope] ?? ((body: JsonValue) => body);
  return {
    enumStyle: enumStyles[style.enumStyle],
    enumStyleOf: (desc: DescEnum) =>
      hasOption(desc, restStyle) ? enumStyles[getOption(desc, restStyle)] : undefined,
    protoNames: style.protoNames,
    fieldAliases: (field: DescField) => getOption(field, aliases),
    enumSpellings: (value: DescEnumValue) => getOption(value, spellings),
    foldsBrackets: (field: DescField) => getOption(field, listable).expression !== undefined,
    envelope: (body, response, method) => wrap(cutBody(body, response, nameOf), response, method, nameOf),
    ...(errorBody && { errorBody: (error, info) => errorBody(spellError(error, nameOf), info) }),
    errorStatus,
    ...(successStatus !== 0 && { successStatus }),
  };
}

function styleOf(surface: Surface): SurfaceStyle {
  const value = SurfaceSchema.value[surface];
  return getOption(value as DescEnumValue, styleOption);
}

/** Statuses that differ from the one of the code. */
const statuses: Partial<Record<Reason, number>> = {
  MESSAGE_TOO_LARGE: 413,
  UNSUPPORTED_MEDIA_TYPE: 415,
  METHOD_NOT_ALLOWED: 405,
  UNKNOWN_METHOD: 404,
  ETAG_MISMATCH: 412,
  UNSUPPORTED_VERSION: 415,
  FAILED_DEPENDENCY: 424,
  BATCH_ROLLED_BACK: 424,
};

const errorStatus = (error: ConnectError): number | undefined => {
  const reason = reasonOf(error);
  return reason && statuses[reason];
};

/** What the fleet's own document calls bad input. */
const fleetNames: Partial<Record<Reason, string>> = {
  VALIDATION_ERROR: "invalid_request",
  MALFORMED_REQUEST: "invalid_request",
  UNKNOWN_FIELD: "invalid_request",
  INVALID_PAGE_TOKEN: "invalid_request",
  INVALID_FILTER: "invalid_request",
  INVALID_SORT: "invalid_request",
  INVALID_FIELD_MASK: "invalid_request",
  VERSION_CONFLICT: "invalid_request",
  UNSUPPORTED_VERSION: "UnsupportedMediaType",
};

const oauthNames: Partial<Record<Reason, string>> = {
  UNSUPPORTED_GRANT_TYPE: "unsupported_grant_type",
  INVALID_CLIENT: "invalid_client",
  INVALID_API_KEY: "access_denied",
  TENANT_SUSPENDED: "access_denied",
  RATE_LIMITED: "temporarily_unavailable",
  OVERLOADED: "temporarily_unavailable",
};

const violationsOf = (error: ConnectError) =>
  error.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) =>
    fieldViolations.map(({ field, description, reason }) => ({
      field,
      message: description,
      ...(reason && { code: reason }),
    })),
  );

/** The versions that could have been asked for, where an error is about that. */
const supportedOf = (error: ConnectError): string[] | undefined =>
  metadataOf(error).supported_versions?.split(",");

const metadataOf = (error: ConnectError) => error.findDetails(ErrorInfoSchema)[0]?.metadata ?? {};

const errorBodies: Partial<Record<ErrorBody, (error: ConnectError, info: ErrorInfo) => JsonValue>> = {
  [ErrorBody.FLEET](error, { httpStatus, requestId }) {
    const reason = reasonOf(error) ?? "INTERNAL";
    const violations = violationsOf(error);
    const supportedVersions = supportedOf(error);
    return {
      success: false,
      error: fleetNames[reason] ?? reason,
      message: error.rawMessage,
      ...(supportedVersions && { supportedVersions }),
      code: httpStatus,
      details: { reason, ...metadataOf(error), ...(violations.length > 0 && { violations }) },
      requestId: requestId ?? "",
      timestamp: new Date().toISOString(),
    };
  },
  [ErrorBody.OAUTH](error) {
    const reason = reasonOf(error) ?? "INTERNAL";
    const fallback = error.code === Code.Internal ? "server_error" : "invalid_request";
    return { error: oauthNames[reason] ?? fallback, error_description: error.rawMessage };
  },
  [ErrorBody.PLAIN](error) {
    const violations = violationsOf(error);
    const supportedVersions = supportedOf(error);
    return {
      error: error.rawMessage,
      code: reasonOf(error) ?? "INTERNAL",
      ...(supportedVersions && { supportedVersions }),
      ...(violations.length > 0 && { details: violations }),
    };
  },
  [ErrorBody.PLATFORM](error, { requestId }) {
    const supportedVersions = supportedOf(error);
    return {
      error: {
        code: reasonOf(error) ?? "INTERNAL",
        message: error.rawMessage,
        details: violationsOf(error),
        ...(supportedVersions && { supported_versions: supportedVersions }),
        request_id: requestId ?? "",
        timestamp: new Date().toISOString(),
      },
    };
  },
};

const transcodingReasons: Record<string, Reason> = {
  "not-found": "UNKNOWN_PATH",
  "method-not-allowed": "METHOD_NOT_ALLOWED",
  malformed: "MALFORMED_REQUEST",
  "unknown-field": "UNKNOWN_FIELD",
  "unknown-query": "UNKNOWN_FIELD",
  "unsupported-media-type": "UNSUPPORTED_MEDIA_TYPE",
  "too-large": "MESSAGE_TOO_LARGE",
  "bad-encoding": "MALFORMED_REQUEST",
};

/** The errors of the transcoder with reasons of ours. */
export const transcodingError: NonNullable<TranscoderOptions["error"]> = (kind, message, fields) => {
  const violations = fields.map(({ field, description }) => ({ field, description }));
  return fail(transcodingReasons[kind] ?? "MALFORMED_REQUEST", {
    message,
    ...(kind === "too-large" && { metadata: { limit_bytes: String(maxMessageBytes) } }),
    ...(violations.length > 0 && { violations }),
  });
};
