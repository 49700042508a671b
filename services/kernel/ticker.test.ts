import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { createLiveCounts } from "./live-counts.ts";
import { createTicker, slotCount, type Ticker } from "./ticker.ts";

let ticker: Ticker;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  vi.advanceTimersByTime(10_000);
  ticker = createTicker();
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

it("wakes each waiter once, in its slot of the second", () => {
  const woken: [slot: number, ms: number][] = [];
  const start = performance.now();
  for (const slot of [70, 5, 99, 0]) ticker.wait(slot, () => woken.push([slot, performance.now() - start]));
  vi.advanceTimersByTime(3_000);
  expect(woken.map(([slot]) => slot)).toEqual([5, 70, 99, 0]);
  for (const [slot, ms] of woken) expect(Math.abs(ms - (slot || slotCount) * 10)).toBeLessThanOrEqual(10);
});

it("wakes who waits again and again once a second", () => {
  let count = 0;
  const again = () => {
    count += 1;
    ticker.wait(42, again);
  };
  ticker.wait(42, again);
  vi.advanceTimersByTime(10_000);
  expect(count).toBe(10);
});

it("does not wake who took it back, and keeps no timer while nobody waits", () => {
  const wake = vi.fn();
  const takeBack = ticker.wait(10, wake);
  expect(vi.getTimerCount()).toBe(1);
  takeBack();
  takeBack();
  vi.advanceTimersByTime(2_000);
  expect(wake).not.toHaveBeenCalled();
  expect(vi.getTimerCount()).toBe(0);
  ticker.wait(10, wake);
  vi.advanceTimersByTime(1_000);
  expect(wake).toHaveBeenCalledOnce();
});

it("does not wake a waiter that another one of its slot took back", () => {
  const second = vi.fn();
  let takeBack = () => {};
  ticker.wait(10, () => takeBack());
  takeBack = ticker.wait(10, second);
  vi.advanceTimersByTime(2_000);
  expect(second).not.toHaveBeenCalled();
  const later = vi.fn();
  ticker.wait(20, later);
  vi.advanceTimersByTime(1_000);
  expect(later).toHaveBeenCalledOnce();
  expect(vi.getTimerCount()).toBe(0);
});

it("fires a slot once after a stall, however long, and then keeps time again", () => {
  const times: number[] = [];
  const again = () => {
    times.push(performance.now());
    ticker.wait(7, again);
  };
  ticker.wait(7, again);
  vi.advanceTimersByTime(1_000);
  times.length = 0;
  // The process stood still: a minute passes and no timer fires in between.
  const stalled = performance.now() + 60_000;
  vi.spyOn(performance, "now").mockImplementation(() => stalled);
  vi.advanceTimersToNextTimer();
  expect(times).toEqual([stalled]);
});

it("counts who is woken, and who more than 100 ms after the slot", () => {
  const counts = createLiveCounts();
  const counted = createTicker(counts);
  counted.wait(30, () => {});
  vi.advanceTimersByTime(1_000);
  expect(counts).toMatchObject({ ticks: 1, lateTicks: 0 });
  counted.wait(30, () => {});
  // A stall: the clock goes on and the timer is late for it.
  const now = performance.now() + 700;
  vi.spyOn(performance, "now").mockImplementation(() => now);
  vi.advanceTimersToNextTimer();
  expect(counts).toMatchObject({ ticks: 2, lateTicks: 1 });
});
