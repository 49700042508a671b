import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { ErrorReasonSchema } from "#gen/portolan/common/v1/error_reason_pb.js";
import { Access } from "#gen/portolan/options/v1/policy_pb.js";
import { fail, type Reason, reasons } from "#kernel/errors.ts";
import { policyOf } from "../gate/policy.ts";
import { httpStatusOf, type Rule, statusJson } from "../rest/index.ts";
import { transcodingError } from "../surfaces.ts";
import type { Contract } from "./contract.ts";
import { frozen, inferSchema } from "./infer.ts";
import { isStreamIn, isStreamOut } from "./shape.ts";
import type { DocumentedSurface } from "./surface.ts";

/** One way in which an operation fails. */
export interface DocumentedError {
  readonly reason: Reason;
  readonly status: number;
  readonly comment: string;
}

const exampleRequestId = "7a31e1f0-5d54-4d51-a1c3-3a1f5cbb2b1e";

/**
 * The errors of a method over REST, by rising status: those that the gate and the transcoder give to any
 * such method, and those that the contract names in the comments of the method and of its request's fields.
 */
export function errorsOf(rule: Rule, surface: DocumentedSurface, contract: Contract): DocumentedError[] {
  const { method } = rule;
  const policy = policyOf(method);
  const found = new Set<Reason>();
  const add = (when: boolean, ...names: string[]) => {
    if (when) for (const reason of names.filter(isReason)) found.add(reason);
  };
  const isGuarded = policy.access !== Access.PUBLIC;
  const streams = isStreamIn(method) || isStreamOut(method);
  // A contract without admission lacks some of these.
  add(true, "INTERNAL", "DEADLINE_EXCEEDED", "UNKNOWN_FIELD", "MALFORMED_REQUEST");
  add(true, "RATE_LIMITED", "OVERLOADED", streams ? "TOO_MANY_STREAMS" : "TOO_MANY_CALLS");
  add(method.input.fields.length > 0, "VALIDATION_ERROR");
  add(rule.body !== undefined, "UNSUPPORTED_MEDIA_TYPE", "MESSAGE_TOO_LARGE");
  add(isGuarded, "MISSING_CREDENTIALS", "INVALID_TOKEN", "TOKEN_EXPIRED", "INSUFFICIENT_PERMISSIONS");
  add(policy.idempotencyKey, "IDEMPOTENCY_CONFLICT");
  add(method.input.field.pageToken !== undefined, "INVALID_PAGE_TOKEN");
  for (const told of [method, ...method.input.fields]) {
    add(true, ...namedReasons(contract.comment(told)));
  }
  return [...found]
    .map((reason) => ({
      reason,
      status: statusOf(reason, surface),
      comment: commentOf(reason, contract),
    }))
    .sort((a, b) => a.status - b.status || (a.reason < b.reason ? -1 : 1));
}

/** What looks like a reason in those sentences of a comment that tell how the RPC fails. */
function namedReasons(comment: string): string[] {
  const sentences = comment.split(/(?<=[.;])\s/).filter((sentence) => /\bfails with\b/i.test(sentence));
  return sentences.flatMap((sentence) => sentence.match(/\b[A-Z]+(_[A-Z]+)+\b/g) ?? []);
}

const isReason = (name: string): name is Reason => reasons.has(name as Reason);

/** The body of an error, as the surface's own function writes it. */
export function errorExample(reason: Reason, { spelling }: DocumentedSurface): JsonValue {
  const { dialect } = spelling;
  const error = exampleErrors[reason]?.() ?? fail(reason);
  const httpStatus = httpStatusOf(error, dialect);
  const body = dialect.errorBody?.(error, { httpStatus, requestId: exampleRequestId }) ?? statusJson(error);
  return frozen(body);
}

/** Errors that say more than their reason: the fields at fault, from the contract's rules or without one. */
const exampleErrors: Partial<Record<Reason, () => ConnectError>> = {
  VALIDATION_ERROR: () =>
    fail("VALIDATION_ERROR", {
      message: "name: must be at least 1 characters",
      violations: [{ field: "name", description: "must be at least 1 characters", reason: "STRING_MIN_LEN" }],
    }),
  UNKNOWN_FIELD: () => {
    const description = "is not a field of CreateJobRequest";
    return transcodingError("unknown-field", `prio ${description}`, [{ field: "prio", description }]);
  },
};

/** The schema of a surface's error bodies, read off what its own function writes. */
export const errorSchema = (surface: DocumentedSurface): JsonObject =>
  inferSchema([...reasons.keys()].map((reason) => errorExample(reason, surface)));

const statusOf = (reason: Reason, { spelling }: DocumentedSurface): number =>
  httpStatusOf(fail(reason), spelling.dialect);

/** What a reason means, as the contract's list of them says. */
function commentOf(reason: Reason, { registry, comment }: Contract): string {
  const desc: { values: Parameters<Contract["comment"]>[0][] } | undefined = registry.getEnum(
    ErrorReasonSchema.typeName,
  );
  const value = desc?.values.find((v) => "localName" in v && v.localName === reason);
  return value ? comment(value) : "";
}
