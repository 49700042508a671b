import {
  create,
  createRegistry,
  fromBinary,
  type JsonValue,
  type Registry,
  toJson,
} from "@bufbuild/protobuf";
import { base64Encode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  BadRequestSchema,
  file_google_rpc_error_details,
  RetryInfoSchema,
} from "#gen/google/rpc/error_details_pb.js";
import type { Dialect } from "./dialect.ts";
import type { Violation } from "./explain.ts";
import { isWellKnown } from "./fields.ts";

/** Why the transcoder refused a request before, or instead of, calling a handler. */
export type RefusalKind =
  | "not-found"
  | "method-not-allowed"
  | "malformed"
  | "unknown-field"
  | "unknown-query"
  | "unsupported-media-type"
  | "too-large"
  | "bad-encoding"
  | "range-not-satisfiable";

/** Makes the error of a refusal. */
export type RefusalError = (
  kind: RefusalKind,
  message: string,
  fields: { field: string; description: string }[],
) => ConnectError;

const REFUSALS: Record<RefusalKind, { code: Code; httpStatus?: number }> = {
  "not-found": { code: Code.NotFound },
  "method-not-allowed": { code: Code.Unimplemented, httpStatus: 405 },
  malformed: { code: Code.InvalidArgument },
  "unknown-field": { code: Code.InvalidArgument },
  "unknown-query": { code: Code.InvalidArgument },
  "unsupported-media-type": { code: Code.InvalidArgument, httpStatus: 415 },
  "too-large": { code: Code.ResourceExhausted, httpStatus: 413 },
  "bad-encoding": { code: Code.InvalidArgument },
  "range-not-satisfiable": { code: Code.OutOfRange, httpStatus: 416 },
};

/** The error of a refusal, with the fields as `google.rpc.BadRequest`. */
export const refusalError: RefusalError = (kind, message, fields) =>
  new ConnectError(
    message,
    REFUSALS[kind].code,
    undefined,
    fields.length > 0 ? [{ desc: BadRequestSchema, value: { fieldViolations: fields } }] : [],
  );

/** Refusals have an HTTP status of their own, whatever code the host gave them. */
const refusalStatus = new WeakMap<ConnectError, number>();

/** Makes the refusals of one transcoder. */
export class Refusals {
  readonly #make: RefusalError;

  constructor(make: RefusalError = refusalError) {
    this.#make = make;
  }

  of(kind: RefusalKind, message: string, fields: readonly Violation[] = []): ConnectError {
    const violations = fields.map(({ field, description }) => ({ field, description }));
    const error = this.#make(kind, message, violations);
    const { httpStatus } = REFUSALS[kind];
    if (httpStatus !== undefined) refusalStatus.set(error, httpStatus);
    return error;
  }

  /** The refusal of fields of a body or a path. */
  malformed(fields: readonly Violation[], where = ""): ConnectError {
    const kind = fields.every((f) => f.unknown) ? "unknown-field" : "malformed";
    return this.of(kind, where + sentence(fields), fields);
  }
}

/** The first violation in words. */
export function sentence([first]: readonly Violation[]): string {
  if (!first) return "the request is malformed";
  return `${first.field === "" ? "the body" : first.field} ${first.description}`;
}

const HTTP_STATUS: Record<Code, number> = {
  [Code.Canceled]: 499,
  [Code.Unknown]: 500,
  [Code.InvalidArgument]: 400,
  [Code.DeadlineExceeded]: 504,
  [Code.NotFound]: 404,
  [Code.AlreadyExists]: 409,
  [Code.PermissionDenied]: 403,
  [Code.ResourceExhausted]: 429,
  [Code.FailedPrecondition]: 400,
  [Code.Aborted]: 409,
  [Code.OutOfRange]: 400,
  [Code.Unimplemented]: 501,
  [Code.Internal]: 500,
  [Code.Unavailable]: 503,
  [Code.DataLoss]: 500,
  [Code.Unauthenticated]: 401,
};

/** The HTTP status of an error in a dialect, for a request with or without `If-Match`. */
export function httpStatusOf(error: ConnectError, dialect: Dialect = {}, conditional = false): number {
  return (
    refusalStatus.get(error) ??
    dialect.errorStatus?.(error, { conditional }) ??
    (HTTP_STATUS[error.code] as number | undefined) ??
    500
  );
}

/** An error as the JSON of `google.rpc.Status`. The registry is for details that came as bytes. */
export function statusJson(error: ConnectError, registry?: Registry): JsonValue {
  return { code: error.code, message: error.rawMessage, details: detailsJson(error, registry) };
}

const rpcDetails = createRegistry(file_google_rpc_error_details);

/** The details of an error as the JSON of `google.protobuf.Any`. */
export function detailsJson(error: ConnectError, registry?: Registry): JsonValue[] {
  return error.details.map((detail): JsonValue => {
    const typeName = "desc" in detail ? detail.desc.typeName : detail.type;
    const type = { "@type": `type.googleapis.com/${typeName}` };
    try {
      if ("desc" in detail) return withType(type, detail.desc, create(detail.desc, detail.value), registry);
      const desc = registry?.getMessage(typeName) ?? rpcDetails.getMessage(typeName);
      if (desc) return withType(type, desc, fromBinary(desc, detail.value), registry);
    } catch {
      // A detail that cannot be shown must not hide the error it belongs to.
      if ("desc" in detail) return type;
    }
    return { ...type, value: base64Encode(detail.value as Uint8Array) };
  });
}

function withType(
  type: { "@type": string },
  desc: Parameters<typeof toJson>[0],
  message: Parameters<typeof toJson>[1],
  registry: Registry | undefined,
): JsonValue {
  const json = toJson(desc, message, registry ? { registry } : undefined);
  return isWellKnown(desc) ? { ...type, value: json } : { ...type, ...(json as object) };
}

/** The whole seconds of a `google.rpc.RetryInfo` detail, rounded up. */
export function retryAfter(error: ConnectError): number | undefined {
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return delay && Math.max(0, Number(delay.seconds) + Math.ceil(delay.nanos / 1e9));
}

/**
 * What a handler threw, as a `ConnectError`. What was not meant for clients is told them as an internal
 * error and nothing more; it stays as the `cause`, for the log.
 */
export function toConnectError(reason: unknown): ConnectError {
  if (reason instanceof ConnectError) return reason;
  const name = reason instanceof Error ? reason.name : "";
  const isAborted = name === "AbortError" || name === "TimeoutError";
  return isAborted
    ? new ConnectError("the call was aborted", Code.Canceled, undefined, undefined, reason)
    : new ConnectError("internal error", Code.Internal, undefined, undefined, reason);
}
