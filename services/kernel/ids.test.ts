import fc from "fast-check";
import { expect, it } from "vitest";
import { newId, newSecret } from "./ids.ts";
import { createSequence, sequenceAt, timeOfSequence } from "./sequence.ts";

it("makes ids of a prefix and a UUID of version 7", () => {
  expect(newId("job")).toMatch(/^job-[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

it("makes ids that carry their time and sort by it", () => {
  const time = fc.integer({ min: 0, max: 2 ** 48 - 1 });
  fc.assert(
    fc.property(time, time, (a, b) => {
      const id = newId("x", a);
      expect(Number.parseInt(id.slice(2, 15).replace("-", ""), 16)).toBe(a);
      if (a < b) expect(id < newId("x", b)).toBe(true);
    }),
  );
});

it("makes a different id and a different secret each time", () => {
  const many = Array.from({ length: 1000 }, () => [newId("a", 0), newSecret("s_")]).flat();
  expect(new Set(many).size).toBe(2000);
});

it("makes secrets of as many bits as asked for, in digits that are hard to confuse", () => {
  expect(newSecret("sk_")).toMatch(/^sk_[0-9a-hjkmnp-tv-z]{32}$/);
  expect(newSecret("", 11)).toHaveLength(3);
});

it("hands out sequences that always grow, also when the clock stands still or goes back", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 10_000 }), { minLength: 2 }), (times) => {
      let at = 0;
      const next = createSequence(() => times[at] as number);
      let last = -1n;
      for (at = 0; at < times.length; at++) {
        const sequence = next();
        expect(sequence > last && sequence >= sequenceAt(times[at] as number)).toBe(true);
        last = sequence;
      }
    }),
  );
});

it("finds the moment of a sequence", () => {
  expect(timeOfSequence(sequenceAt(1_700_000_000_123))).toBe(1_700_000_000_123);
  expect(timeOfSequence(sequenceAt(5.9) + 999n)).toBe(5);
});
