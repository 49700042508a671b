import type { DescMethod, JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { ErrorReasonSchema } from "#gen/portolan/common/v1/error_reason_pb.js";
import { Access } from "#gen/portolan/options/v1/policy_pb.js";
import { fail, type Reason, reasons } from "#kernel/errors.ts";
import { policyOf } from "../gate/policy.ts";
import { httpStatusOf, type Rule, statusJson } from "../rest/index.ts";
import { transcodingError } from "../surfaces.ts";
import type { Contract } from "./contract.ts";
import { frozen, inferSchema } from "./infer.ts";
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
 * such method, and those that its comment in the contract names.
 */
export function errorsOf(rule: Rule, surface: DocumentedSurface, contract: Contract): DocumentedError[] {
  const { method } = rule;
  const policy = policyOf(method);
  const found = new Set<Reason>(["INTERNAL", "DEADLINE_EXCEEDED"]);
  const add = (when: boolean, ...reasons: Reason[]) => {
    if (when) for (const reason of reasons) found.add(reason);
  };
  add(true, "UNKNOWN_FIELD", "MALFORMED_REQUEST");
  add(method.input.fields.length > 0, "VALIDATION_ERROR");
  add(rule.body !== undefined, "UNSUPPORTED_MEDIA_TYPE", "MESSAGE_TOO_LARGE");
  add(policy.access !== Access.PUBLIC, "INVALID_TOKEN", "TOKEN_EXPIRED", "INSUFFICIENT_PERMISSIONS");
  add(policy.access !== Access.PUBLIC, "MISSING_CREDENTIALS");
  add(policy.idempotencyKey, "IDEMPOTENCY_CONFLICT");
  add(method.input.field.pageToken !== undefined, "INVALID_PAGE_TOKEN");
  for (const reason of namedReasons(contract.comment(method))) found.add(reason);
  return [...found]
    .map((reason) => ({
      reason,
      status: statusOf(reason, surface),
      comment: commentOf(reason, contract),
    }))
    .sort((a, b) => a.status - b.status || (a.reason < b.reason ? -1 : 1));
}

/** The reasons in those sentences of a comment that tell how the RPC fails. */
function namedReasons(comment: string): Reason[] {
  const sentences = comment.split(/(?<=[.;])\s/).filter((sentence) => /\bfails with\b/i.test(sentence));
  const words = sentences.flatMap((sentence) => sentence.match(/\b[A-Z]+(_[A-Z]+)+\b/g) ?? []);
  return words.filter((word): word is Reason => reasons.has(word as Reason));
}

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

/** Whether the method takes no credentials, yet its comment asks for an API key in the header. */
export function asksForKey(method: DescMethod, contract: Contract): boolean {
  return contract.comment(method).includes("`x-api-key` header");
}
