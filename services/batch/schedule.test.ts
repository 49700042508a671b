import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Place, runAll, waits } from "./schedule.ts";

const read = (...refersTo: number[]): Place => ({ mutates: false, refersTo });
const change = (...refersTo: number[]): Place => ({ mutates: true, refersTo });

describe("what an operation waits for", () => {
  const places = [read(), read(0), change(), read(), read(1), change(3)];

  it("is, as if in order, all changes before it, and for a change all before it", () => {
    expect(waits(places, "as-if-in-order")).toEqual([[], [0], [0, 1], [2], [2, 1], [0, 1, 2, 3, 4]]);
  });

  it("is the one before it, one after the other", () => {
    expect(waits(places, "sequential")).toEqual([[], [0], [1], [2], [3], [4]]);
  });

  it("is what it refers to, all together", () => {
    expect(waits(places, "parallel")).toEqual([[], [0], [], [], [1], [3]]);
  });
});

it("runs every operation once, after those it waits for, and no more at once than it may", async () => {
  const anyPlaces = fc.array(fc.record({ mutates: fc.boolean(), back: fc.array(fc.nat(5)) }), {
    maxLength: 30,
  });
  const orders = fc.constantFrom("as-if-in-order" as const, "sequential" as const, "parallel" as const);
  await fc.assert(
    fc.asyncProperty(anyPlaces, orders, fc.integer({ min: 1, max: 4 }), async (given, order, together) => {
      const places = given.map(({ mutates, back }, at) => ({
        mutates,
        refersTo: back.map((by) => at - 1 - by).filter((place) => place >= 0),
      }));
      const done = new Set<number>();
      let running = 0;
      await runAll(waits(places, order), together, async (at) => {
        running++;
        expect(running).toBeLessThanOrEqual(together);
        for (const place of places[at]?.refersTo ?? []) expect(done).toContain(place);
        if (order === "as-if-in-order") {
          const mustBeDone = places.flatMap(({ mutates }, place) =>
            place < at && (mutates || places[at]?.mutates) ? [place] : [],
          );
          for (const place of mustBeDone) expect(done).toContain(place);
        }
        await Promise.resolve();
        expect(done).not.toContain(at);
        done.add(at);
        running--;
      });
      expect(done.size).toBe(places.length);
    }),
  );
});
