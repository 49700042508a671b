import { Code, ConnectError } from "@connectrpc/connect";
import { fail } from "#kernel/errors.ts";

/** How the protocol library speaks of bytes that it cannot read. */
const unreadable = /^(parse binary: |decompression failed|received compressed envelope)/;

/**
 * Gives what the protocol library raises while it reads a request its proper reason, where the
 * code alone misleads: Protobuf that does not decode and compressed bytes that do not unpack are
 * INTERNAL to it. Everything else is returned as it is.
 */
export function readingError(thrown: unknown): unknown {
  if (!(thrown instanceof ConnectError)) return thrown;
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
