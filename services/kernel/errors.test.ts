import { Code } from "@connectrpc/connect";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { ErrorReasonSchema } from "#gen/portolan/common/v1/error_reason_pb.js";
import { durationOf, fail, type Reason, reasonOf, reasons } from "./errors.ts";

describe("reasons", () => {
  const names = ErrorReasonSchema.values.filter(({ number }) => number > 0).map(({ localName }) => localName);

  it("holds every reason of the contract", () => {
    expect([...reasons.keys()]).toEqual(names);
  });

  it.each(names)("gives %s a code that is a failure and a message", (name) => {
    const { code, message } = reasons.get(name as Reason) ?? { code: 0, message: "" };
    expect(Code[code]).toBeTypeOf("string");
    expect(message).toMatch(/^[A-Z].*[^.]$/);
    const error = fail(name as Reason);
    expect([error.code, error.rawMessage, reasonOf(error)]).toEqual([code, message, name]);
  });
});

describe("fail", () => {
  it("puts metadata, violations and the time to retry into details", () => {
    const error = fail("SHARE_PIN_LOCKED", {
      message: "Later",
      metadata: { share: "s" },
      violations: [{ field: "pin", description: "is wrong", reason: "PIN" }],
      retryAfterMs: 1500,
    });
    expect(error.rawMessage).toBe("Later");
    const [info] = error.findDetails(ErrorInfoSchema);
    expect(info).toMatchObject({ reason: "SHARE_PIN_LOCKED", domain: "portolan", metadata: { share: "s" } });
    expect(error.findDetails(BadRequestSchema)[0]?.fieldViolations[0]).toMatchObject({
      field: "pin",
      reason: "PIN",
    });
    expect(error.findDetails(RetryInfoSchema)[0]?.retryDelay).toMatchObject({
      seconds: 1n,
      nanos: 500_000_000,
    });
  });
});

describe("durationOf", () => {
  it("makes valid durations that are right to the microsecond", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1e9, noNaN: true }), (ms) => {
        const { seconds, nanos } = durationOf(ms);
        expect(nanos >= 0 && nanos < 1e9).toBe(true);
        expect(Number(seconds) * 1000 + nanos / 1e6).toBeCloseTo(ms, 2);
      }),
      { examples: [[1999.9999999], [0], [1000]] },
    );
  });
});
