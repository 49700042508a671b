import { create, getOption, type MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, DurationSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import {
  type BadRequest_FieldViolation,
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "#gen/google/rpc/error_details_pb.js";
import { type ErrorReason, ErrorReasonSchema } from "#gen/portolan/common/v1/error_reason_pb.js";
import { reason as reasonOption } from "#gen/portolan/options/v1/reason_pb.js";

/** The domain of every reason. */
export const errorDomain = "portolan";

/** A reason as it stands on the wire, for example `JOB_NOT_FOUND`. */
export type Reason = Exclude<keyof typeof ErrorReason, "UNSPECIFIED">;

/** What a failure may say beside its reason. */
export interface FailureDetails {
  /** Text for people; the default is the reason's own. */
  message?: string;
  /** Facts for programs. */
  metadata?: Record<string, string>;
  /** Fields at fault, with paths as the client wrote them. */
  violations?: { field: string; description: string; reason?: string }[];
  /** When to try again, in milliseconds. */
  retryAfterMs?: number;
  /** Kept for the log, never sent. */
  cause?: unknown;
}

interface ReasonEntry {
  readonly code: Code;
  readonly message: string;
}

const table = new Map<Reason, ReasonEntry>();
for (const value of ErrorReasonSchema.values) {
  if (value.number === 0) continue;
  const info = getOption(value, reasonOption);
  table.set(value.localName as Reason, { code: info.code as number as Code, message: info.message });
}

/** Every reason with its code and default message, in the order of the contract. */
export const reasons: ReadonlyMap<Reason, ReasonEntry> = table;

/** The error of a reason: the one way in which anything of ours fails. */
export function fail(reason: Reason, details: FailureDetails = {}): ConnectError {
  const entry = table.get(reason) as ReasonEntry;
  const error = new ConnectError(
    details.message ?? entry.message,
    entry.code,
    undefined,
    [{ desc: ErrorInfoSchema, value: { reason, domain: errorDomain, metadata: details.metadata ?? {} } }],
    details.cause,
  );
  if (details.violations?.length) {
    const fieldViolations: MessageInitShape<typeof BadRequestSchema>["fieldViolations"] =
      details.violations as BadRequest_FieldViolation[];
    error.details.push({ desc: BadRequestSchema, value: { fieldViolations } });
  }
  if (details.retryAfterMs !== undefined) {
    error.details.push({ desc: RetryInfoSchema, value: { retryDelay: durationOf(details.retryAfterMs) } });
  }
  return error;
}

/** The reason of an error of ours, or undefined if it is somebody else's. */
export function reasonOf(error: ConnectError): Reason | undefined {
  const info = error.findDetails(ErrorInfoSchema).find((detail) => detail.domain === errorDomain);
  return info && table.has(info.reason as Reason) ? (info.reason as Reason) : undefined;
}

/** Reasons of errors that the protocol library raises while it reads a request. */
function wireReason(error: ConnectError): Reason {
  switch (error.code) {
    case Code.Canceled:
      return "CANCELLED";
    case Code.DeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case Code.ResourceExhausted:
      return "MESSAGE_TOO_LARGE";
    case Code.InvalidArgument:
      return / is unknown$/.test(error.rawMessage) ? "UNKNOWN_FIELD" : "MALFORMED_REQUEST";
    case Code.Unimplemented:
      return /compression|encoding/.test(error.rawMessage) ? "UNSUPPORTED_MEDIA_TYPE" : "UNKNOWN_METHOD";
    default:
      return "INTERNAL";
  }
}

/** The field that a decoding error of the protocol library speaks of. */
function wireViolations({ rawMessage }: ConnectError): FailureDetails["violations"] {
  const [, unknown] = /key "([^"]+)" is unknown$/.exec(rawMessage) ?? [];
  const [, wrong] = /cannot decode field [\w.]+\.(\w+) from JSON/.exec(rawMessage) ?? [];
  const field = unknown ?? wrong;
  if (!field) return undefined;
  return [{ field, description: unknown ? "there is no such field" : "has a value of the wrong type" }];
}

/** Whether the error only tells that the client went away. */
function isGone(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false;
  const { code } = thrown as NodeJS.ErrnoException;
  return thrown.name === "AbortError" || code === "ERR_STREAM_PREMATURE_CLOSE" || code === "ECONNRESET";
}

/**
 * Turns whatever was thrown into an error with a reason. Errors of ours pass; those that the
 * protocol library raises while reading a request get the reason that fits; anything else becomes
 * INTERNAL with the cause kept aside.
 */
export function toFailure(thrown: unknown): ConnectError {
  if (!(thrown instanceof ConnectError)) {
    return fail(isGone(thrown) ? "CANCELLED" : "INTERNAL", { cause: thrown });
  }
  if (reasonOf(thrown)) return thrown;
  const reason = wireReason(thrown);
  if (reason === "INTERNAL") return fail(reason, { cause: thrown });
  const violations = wireViolations(thrown);
  return fail(reason, { message: thrown.rawMessage, cause: thrown, ...(violations && { violations }) });
}

/** A Duration of so many milliseconds. */
export function durationOf(ms: number): Duration {
  const micros = Math.round(ms * 1000);
  return create(DurationSchema, {
    seconds: BigInt(Math.trunc(micros / 1_000_000)),
    nanos: (micros % 1_000_000) * 1000,
  });
}
