import { expect, it } from "vitest";
import { createMemoryStore } from "./store.ts";

const start = 1_800_000_000_000;
const minute = { requests: 60, windowMs: 60_000, burst: 2 };
const demand = (key: string, cost = 1) => ({ key, rate: minute, cost });

it("takes from all limits or from none", async () => {
  const store = createMemoryStore();
  await store.take([demand("narrow", 2)], start);
  const refused = await store.take([demand("wide"), demand("narrow")], start);
  expect(refused.map(({ allowed, remaining }) => [allowed, remaining])).toEqual([
    [true, 2],
    [false, 0],
  ]);
  expect((await store.take([demand("wide")], start))[0]).toMatchObject({ allowed: true, remaining: 1 });
});

it("forgets callers who have paused, and nothing that counts", async () => {
  const store = createMemoryStore();
  for (let caller = 0; caller < 1000; caller++) await store.take([demand(`caller ${caller}`)], start);
  expect(store.size).toBe(1000);
  for (let call = 0; call < 600; call++) await store.take([demand("another")], start + 60_000 + call * 1000);
  expect(store.size).toBe(1);
});

it("forgets the one that has been away for longest when there are too many", async () => {
  const store = createMemoryStore(3);
  for (const key of ["a", "b", "c", "a", "d"]) await store.take([demand(key)], start);
  expect(store.size).toBe(3);
  expect((await store.take([demand("a", 0)], start))[0]?.remaining).toBe(0);
  expect((await store.take([demand("b", 0)], start))[0]?.remaining).toBe(2);
});
