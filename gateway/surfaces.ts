import {
  type DescEnum,
  type DescEnumValue,
  type DescField,
  type DescMethod,
  getOption,
  hasOption,
  type JsonValue,
} from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { listable } from "#gen/portolan/options/v1/list_pb.js";
import { aliases, type Rest, rest, spellings } from "#gen/portolan/options/v1/policy_pb.js";
import {
  EnumStyle,
  Envelope,
  ErrorBody,
  type ErrorRule,
  rest_style as restStyle,
  Surface,
  SurfaceSchema,
  type SurfaceStyle,
  style as styleOption,
  surface as surfaceOption,
} from "#gen/portolan/options/v1/surface_pb.js";
import { fail, type Reason, reasonOf, reasons } from "#kernel/errors.ts";
import { versionedSurfaces } from "#services/meta/versions.ts";
import { maxMessageBytes } from "./connect/lane.ts";
import { envelopes, metaOf } from "./envelopes.ts";
import { pagingHeaders } from "./paging.ts";
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
  return surfaceDialect(surfaceOf(method, template), getOption(method, rest));
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

/** The dialect of a surface, for a method with these REST details. */
export function surfaceDialect(
  surface: Surface,
  { successStatus = 0, bare = false }: Partial<Rest> = {},
): Dialect {
  const key = `${surface} ${successStatus} ${bare}`;
  const dialect = dialects.get(key) ?? makeDialect(surface, successStatus, bare);
  dialects.set(key, dialect);
  return dialect;
}

function makeDialect(surface: Surface, successStatus: number, bare: boolean): Dialect {
  const style = styleOf(surface);
  const errorBody = errorBodies[style.errorBody];
  const names = createErrorNames(surface, style.errors);
  const nameOf = namesIn(style.protoNames);
  const envelope = bare ? Envelope.UNSPECIFIED : style.envelope;
  const wrap = envelopes[envelope] ?? ((body: JsonValue) => body);
  return {
    enumStyle: enumStyles[style.enumStyle],
    enumStyleOf: (desc: DescEnum) =>
      hasOption(desc, restStyle) ? enumStyles[getOption(desc, restStyle)] : undefined,
    protoNames: style.protoNames,
    fieldAliases: (field: DescField) => getOption(field, aliases),
    enumSpellings: (value: DescEnumValue) => getOption(value, spellings),
    foldsBrackets: (field: DescField) => getOption(field, listable).expression !== undefined,
    envelope: (body, response, method, { requestId }) =>
      wrap(cutBody(body, response, nameOf), { response, method, nameOf, requestId }),
    headers: (response, method, { target }) => pagingHeaders(response, method, target),
    envelopeVaries: envelope === Envelope.SUCCESS_DATA_META,
    ...(errorBody && {
      errorBody: (error, info) => errorBody(spellError(error, nameOf), info, names.name(error)),
    }),
    errorStatus: names.status,
    ...(successStatus !== 0 && { successStatus }),
  };
}

function styleOf(surface: Surface): SurfaceStyle {
  const value = SurfaceSchema.value[surface];
  return getOption(value as DescEnumValue, styleOption);
}

/** The HTTP status and the name that errors have in a dialect. */
function createErrorNames(surface: Surface, rules: readonly ErrorRule[]) {
  const unknown = rules.flatMap((rule) => rule.reasons).find((reason) => !reasons.has(reason as Reason));
  if (unknown) throw new Error(`${Surface[surface]} has a rule for ${unknown}, which is no reason`);
  const ruleOf = (error: ConnectError, reason: Reason) =>
    rules.find((rule) => rule.reasons.includes(reason) || rule.codes.includes(error.code as number));
  return {
    status(error: ConnectError): number | undefined {
      const reason = reasonOf(error);
      if (!reason) return undefined;
      return ruleOf(error, reason)?.status || reasons.get(reason)?.httpStatus;
    },
    name(error: ConnectError): string {
      const reason = reasonOf(error) ?? "INTERNAL";
      return ruleOf(error, reason)?.name || reason;
    },
  };
}

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

/** Makes the body of an error, whose name is that of its dialect. */
type MakeBody = (error: ConnectError, info: ErrorInfo, name: string) => JsonValue;

const errorBodies: Partial<Record<ErrorBody, MakeBody>> = {
  [ErrorBody.FLEET](error, { httpStatus, requestId }, name) {
    const reason = reasonOf(error) ?? "INTERNAL";
    const violations = violationsOf(error);
    const supportedVersions = supportedOf(error);
    return {
      success: false,
      error: name,
      message: error.rawMessage,
      ...(supportedVersions && { supportedVersions }),
      code: httpStatus,
      details: { reason, ...metadataOf(error), ...(violations.length > 0 && { violations }) },
      requestId: requestId ?? "",
      timestamp: new Date().toISOString(),
    };
  },
  [ErrorBody.OAUTH](error, _, name) {
    // RFC 6749 has no other name for what a client did wrong.
    return {
      error: name === reasonOf(error) ? "invalid_request" : name,
      error_description: error.rawMessage,
    };
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
  [ErrorBody.PLATFORM](error, { requestId }, name) {
    const supportedVersions = supportedOf(error);
    return {
      error: {
        code: name,
        message: error.rawMessage,
        details: violationsOf(error),
        ...(supportedVersions && { supported_versions: supportedVersions }),
        request_id: requestId ?? "",
        timestamp: new Date().toISOString(),
      },
    };
  },
  [ErrorBody.RELEASE](error, { requestId }, name) {
    const violations = violationsOf(error);
    const details = metadataOf(error);
    return {
      success: false,
      error: {
        code: name,
        message: error.rawMessage,
        ...(Object.keys(details).length > 0 && { details }),
        ...(violations.length > 0 && { validationErrors: violations }),
      },
      meta: metaOf(requestId),
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
