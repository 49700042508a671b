import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { BadRequestSchema, ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { fail, reasonOf } from "#kernel/errors.ts";
import { toFailure } from "./wire-error.ts";

describe("toFailure", () => {
  it.each([
    [new ConnectError("a", Code.Canceled), "CANCELLED"],
    [new ConnectError("a", Code.DeadlineExceeded), "DEADLINE_EXCEEDED"],
    [new ConnectError("a", Code.ResourceExhausted), "MESSAGE_TOO_LARGE"],
    [new ConnectError("cannot parse", Code.InvalidArgument), "MALFORMED_REQUEST"],
    [new ConnectError('key "x" is unknown', Code.InvalidArgument), "UNKNOWN_FIELD"],
    [new ConnectError("unsupported compression", Code.Unimplemented), "UNSUPPORTED_MEDIA_TYPE"],
    [new ConnectError("no method", Code.Unimplemented), "UNKNOWN_METHOD"],
    [new ConnectError("a", Code.DataLoss), "INTERNAL"],
    [new DOMException("stop", "AbortError"), "CANCELLED"],
    [new TypeError("secret"), "INTERNAL"],
    ["thrown text", "INTERNAL"],
  ] as const)("gives %s the reason %s", (thrown, reason) => {
    expect(reasonOf(toFailure(thrown))).toBe(reason);
  });

  it("leaves an error of ours as it is", () => {
    const error = fail("JOB_NOT_FOUND");
    expect(toFailure(error)).toBe(error);
  });

  it("keeps the cause of an unknown failure to itself", () => {
    const cause = new Error("password is hunter2");
    const failure = toFailure(cause);
    expect(failure.cause).toBe(cause);
    expect(failure.message + JSON.stringify(failure.findDetails(ErrorInfoSchema))).not.toContain("hunter2");
  });

  it("names the field of a JSON body that is unknown", () => {
    const [bad] = toFailure(new ConnectError('key "colour" is unknown', Code.InvalidArgument)).findDetails(
      BadRequestSchema,
    );
    expect(bad?.fieldViolations[0]?.field).toBe("colour");
  });

  it("takes no error of another domain for its own", () => {
    const value = { reason: "JOB_NOT_FOUND", domain: "elsewhere", metadata: {} };
    const foreign = new ConnectError("a", Code.NotFound, undefined, [{ desc: ErrorInfoSchema, value }]);
    expect(reasonOf(foreign)).toBeUndefined();
    expect(reasonOf(toFailure(foreign))).toBe("INTERNAL");
  });
});
