import { ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { expect, it } from "vitest";
import { reasonOf } from "./errors.ts";
import { cutPage, pageTokens } from "./page.ts";

const key = fc.array(fc.oneof(fc.string(), fc.maxSafeInteger(), fc.constant(null)), {
  minLength: 1,
  maxLength: 3,
});

const refusal = (work: () => unknown) => {
  try {
    work();
  } catch (error) {
    return error instanceof ConnectError ? reasonOf(error) : error;
  }
  return undefined;
};

it("gives back every key that it encoded", () => {
  fc.assert(
    fc.property(key, (value) => {
      const tokens = pageTokens("jobs", "tenant", 3);
      expect(tokens.decode(tokens.encode(value))).toEqual(value);
    }),
  );
});

it("takes an empty token for the first page", () => {
  expect(pageTokens("jobs").decode("")).toBeUndefined();
});

it("refuses a token with any character changed, added or missing", () => {
  const tokens = pageTokens("jobs", "tenant");
  const characters = [..."ABCDwxyz0189-_=.!"];
  fc.assert(
    fc.property(key, fc.nat(), fc.constantFrom(...characters), fc.nat(2), (value, position, by, change) => {
      const token = tokens.encode(value);
      const at = position % token.length;
      const altered = token.slice(0, at) + (change === 0 ? "" : by) + token.slice(change === 1 ? at : at + 1);
      fc.pre(altered !== token && altered !== "");
      expect(refusal(() => tokens.decode(altered))).toBe("INVALID_PAGE_TOKEN");
    }),
    { numRuns: 300 },
  );
  expect(refusal(() => tokens.decode(`${tokens.encode(["a"])}.more`))).toBe("INVALID_PAGE_TOKEN");
});

it("refuses a token of another list, tenant or filter", () => {
  const token = pageTokens("jobs", "tenant", 1).encode(["key"]);
  for (const other of [
    pageTokens("shares", "tenant", 1),
    pageTokens("jobs", "other", 1),
    pageTokens("jobs", "tenant", 2),
    pageTokens("jobs", "tenant"),
    pageTokens("jobs", "tenant", "1"),
  ]) {
    expect(refusal(() => other.decode(token))).toBe("INVALID_PAGE_TOKEN");
  }
});

it("cuts the row too many and names the last row kept", () => {
  expect(cutPage([1, 2, 3], 2, String)).toEqual([[1, 2], "2"]);
  expect(cutPage([1, 2], 2, String)).toEqual([[1, 2], ""]);
  expect(cutPage([], 2, String)).toEqual([[], ""]);
});
