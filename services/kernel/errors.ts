import { create, getOption, type MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, DurationSchema } from "@bufbuild/protobuf/wkt";
import { type Code, ConnectError } from "@connectrpc/connect";
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
  /** HTTP status over REST, where it is not the one of the code. */
  readonly httpStatus?: number;
}

const table = new Map<Reason, ReasonEntry>();
for (const value of ErrorReasonSchema.values) {
  if (value.number === 0) continue;
  const info = getOption(value, reasonOption);
  table.set(value.localName as Reason, {
    code: info.code as number as Code,
    message: info.message,
    ...(info.httpStatus !== 0 && { httpStatus: info.httpStatus }),
  });
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

/** A Duration of so many milliseconds. */
export function durationOf(ms: number): Duration {
  const micros = Math.round(ms * 1000);
  return create(DurationSchema, {
    seconds: BigInt(Math.trunc(micros / 1_000_000)),
    nanos: (micros % 1_000_000) * 1000,
  });
}
