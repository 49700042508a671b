import { expect, it } from "vitest";
import { createDelayJudge, createLoad } from "./load.ts";
import { createSlots } from "./slots.ts";

it("calls the event loop late after two looks above the bound, and in time below half of it", () => {
  const judge = createDelayJudge(100);
  const seen = [500, 20, 101, 100, 101, 101, 80, 60, 49, 101].map((delayMs) => {
    judge.look(delayMs);
    return judge.late;
  });
  expect(seen).toEqual([false, false, false, false, false, true, true, true, false, false]);
});

it("is overloaded while as many calls as the bound are in flight", () => {
  const load = createLoad({ maxCallsInFlight: 2, maxLoopDelayMs: 1e9 });
  const seen = [load.enter, load.enter, load.leave, load.leave].map((step) => {
    step();
    return load.overloaded();
  });
  load.stop?.();
  expect(seen).toEqual([false, true, false, false]);
});

it("gives a slot back once, however often it is told to", () => {
  const slots = createSlots();
  const first = slots.take("a", 2);
  const second = slots.take("a", 2);
  expect([slots.take("a", 2), typeof slots.take("b", 1), slots.take("b", 1)]).toEqual([
    undefined,
    "function",
    undefined,
  ]);
  first?.();
  first?.();
  expect(slots.take("a", 2)).toBeDefined();
  expect(slots.take("a", 2)).toBeUndefined();
  second?.();
  expect(slots.take("a", 2)).toBeDefined();
  expect(slots.callers).toBe(2);
});
