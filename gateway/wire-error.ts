import { Code, ConnectError } from "@connectrpc/connect";
import { type FailureDetails, fail, type Reason, reasonOf } from "#kernel/errors.ts";

/** How the protocol library speaks of bytes that it cannot read. */
const unreadable = /^(parse binary: |decompression failed|received compressed envelope)/;

/**
 * The reason of what the protocol library raises while it reads a request, where the code alone
 * misleads: Protobuf that does not decode and compressed bytes that do not unpack are INTERNAL to
 * it. Everything else is returned as it is.
 */
function readingError(thrown: ConnectError): ConnectError {
  const { code, rawMessage } = thrown;
  const [, limit] = /larger than configured readMaxBytes (\d+)/.exec(rawMessage) ?? [];
  if (code === Code.ResourceExhausted && limit) {
    return fail("MESSAGE_TOO_LARGE", { metadata: { limit_bytes: limit }, cause: thrown });
  }
  if (code === Code.Internal && unreadable.test(rawMessage)) {
    return fail("MALFORMED_REQUEST", { message: rawMessage, cause: thrown });
  }
  return thrown;
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
  const error = readingError(thrown);
  if (reasonOf(error)) return error;
  const reason = wireReason(error);
  if (reason === "INTERNAL") return fail(reason, { cause: error });
  const violations = wireViolations(error);
  return fail(reason, { message: error.rawMessage, cause: error, ...(violations && { violations }) });
}
