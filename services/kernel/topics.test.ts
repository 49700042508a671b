import { toBinary } from "@bufbuild/protobuf";
import { beforeEach, describe, expect, it } from "vitest";
import { TrackKind, type TrackUpdate, TrackUpdateSchema } from "#gen/portolan/common/v1/track_pb.js";
import { createLiveCounts, type LiveCounts } from "./live-counts.ts";
import type { Ticker } from "./ticker.ts";
import { createEnd, createTopics, type Subject, type Topics, type TrackState } from "./topics.ts";

/** A ticker driven by hand: `tick` wakes the waiters of one slot, or all. */
function createHandTicker() {
  const waiting = new Set<{ slot: number; wake: () => void }>();
  const ticker: Ticker = {
    wait(slot, wake) {
      const entry = { slot, wake };
      waiting.add(entry);
      return () => waiting.delete(entry);
    },
  };
  const tick = (slot?: number) => {
    for (const entry of [...waiting]) {
      if (slot !== undefined && entry.slot !== slot) continue;
      waiting.delete(entry);
      entry.wake();
    }
  };
  return { ticker, tick, waiting };
}

const second = 1_000_000n;
let now: number;
let hand: ReturnType<typeof createHandTicker>;
let topics: Topics;
let counts: LiveCounts;
let sequence: bigint;
let progress: number;
let end: ReturnType<typeof createEnd>;
let recorded: { sequence: bigint; state: TrackState }[];
let opened: number;
let closed: number;

const micros = () => BigInt(now) * 1000n;
const change = (to: number) => {
  sequence = micros();
  progress = to;
  recorded.push({ sequence, state: { progress } });
};

beforeEach(() => {
  now = 1_700_000_000_000;
  hand = createHandTicker();
  counts = createLiveCounts();
  topics = createTopics(hand.ticker, () => now, counts);
  [recorded, opened, closed] = [[], 0, 0];
  end = createEnd();
  change(0);
  topics.provide(
    "thing",
    async (tenantId, id) => {
      if (tenantId !== "tenant" || !id.startsWith("thing-")) return undefined;
      opened += 1;
      const subject: Subject = {
        sequence: () => sequence,
        state: () => ({ progress }),
        ended: () => end.over,
        onEnd: (wake) => end.onEnd(wake),
        async *history(after) {
          yield* recorded.filter((each) => each.sequence > after);
        },
        close: () => {
          closed += 1;
        },
      };
      return subject;
    },
    "thing-",
  );
});

/** Follows the thing; `next` gives one message, or undefined at the end. */
async function follow({ after = 0n, slot = 0 } = {}) {
  const topic = await topics.join("thing", "tenant", "thing-1");
  const controller = new AbortController();
  const stream = topic?.follow({ afterSequence: after, slot, signal: controller.signal });
  if (!stream) throw new Error("no topic");
  return {
    stop: () => controller.abort(),
    next: async (): Promise<TrackUpdate | undefined> => (await stream.next()).value ?? undefined,
    /** The message that comes when the next second has passed. */
    async later() {
      const coming = stream.next();
      await Promise.resolve();
      now += 1000;
      hand.tick();
      return (await coming).value as TrackUpdate | undefined;
    },
  };
}

describe("following", () => {
  it("gives the newest state at once", async () => {
    const first = await (await follow()).next();
    expect(first).toMatchObject({ kind: TrackKind.STATE, subject: "thing-1", progress: 0, sequence });
  });

  it("gives nothing between ticks, and after one the newest state only", async () => {
    const follower = await follow({ slot: 7 });
    await follower.next();
    let arrived = false;
    const coming = follower.next().then((message) => {
      arrived = true;
      return message;
    });
    for (const to of [10, 20, 30]) {
      now += 100;
      change(to);
    }
    hand.tick(6);
    await new Promise(setImmediate);
    expect(arrived).toBe(false);
    hand.tick(7);
    expect(await coming).toMatchObject({ kind: TrackKind.STATE, progress: 30, sequence });
  });

  it("gives a heartbeat with the last state when nothing has changed", async () => {
    const follower = await follow();
    await follower.next();
    const beat = await follower.later();
    expect(beat).toMatchObject({ kind: TrackKind.HEARTBEAT, progress: 0, sequence: sequence + 1n });
    expect(Number(beat?.timestamp?.seconds)).toBe(now / 1000);
  });

  it("never gives a sequence twice or a lower one, through changes, heartbeats and the end", async () => {
    const follower = await follow();
    const sequences = [(await follower.next())?.sequence ?? 0n];
    for (let round = 0; round < 30; round++) {
      if (round % 3 === 0) change(round);
      if (round === 29) end.end();
      sequences.push((await follower.later())?.sequence ?? 0n);
    }
    expect(sequences).toEqual([...new Set(sequences)].sort((a, b) => (a < b ? -1 : 1)));
  });

  it("gives a follower that was slow the newest state, not what it missed", async () => {
    const slow = await follow({ slot: 1 });
    const quick = await follow({ slot: 2 });
    await slow.next();
    await quick.next();
    for (const to of [1, 2, 3]) {
      now += 1000;
      change(to);
      const coming = quick.next();
      await Promise.resolve();
      hand.tick(2);
      expect((await coming)?.progress).toBe(to);
    }
    expect((await slow.later())?.progress).toBe(3);
  });

  it("counts the frames that a slow follower misses, and none of one that keeps up", async () => {
    const follower = await follow();
    await follower.next();
    for (let round = 0; round < 3; round++) await follower.later();
    expect(counts.droppedFrames).toBe(0);
    now += 3_500;
    await follower.later();
    expect(counts.droppedFrames).toBe(3);
  });

  it("gives all followers the same frame, so that it is encoded once", async () => {
    const [one, two] = [await follow(), await follow()];
    expect(await one.next()).toBe(await two.next());
    expect(opened).toBe(1);
  });

  it("gives the final message as soon as the subject ends, and then ends", async () => {
    const follower = await follow();
    await follower.next();
    const coming = follower.next();
    change(100);
    end.end();
    expect(await coming).toMatchObject({ kind: TrackKind.FINAL, progress: 100 });
    expect(await follower.next()).toBeUndefined();
    expect(hand.waiting.size).toBe(0);
  });

  it("gives who comes after the end the final message alone", async () => {
    end.end();
    const follower = await follow();
    expect(await follower.next()).toMatchObject({ kind: TrackKind.FINAL });
    expect(await follower.next()).toBeUndefined();
  });

  it("ends without a word when the follower goes away", async () => {
    const follower = await follow();
    await follower.next();
    const coming = follower.next();
    await Promise.resolve();
    follower.stop();
    expect(await coming).toBeUndefined();
    expect([hand.waiting.size, closed]).toEqual([0, 1]);
  });
});

describe("resuming", () => {
  it("gives what was recorded after the sequence, then goes on live, without gap or double", async () => {
    const seen = sequence;
    for (const to of [1, 2, 3]) {
      now += 1000;
      change(to);
    }
    const follower = await follow({ after: seen });
    const history = [await follower.next(), await follower.next(), await follower.next()];
    expect(history.map((each) => [each?.kind, each?.progress])).toEqual(
      [1, 2, 3].map((to) => [TrackKind.HISTORY, to]),
    );
    now += 1000;
    change(4);
    expect(await follower.next()).toMatchObject({ kind: TrackKind.STATE, progress: 4, sequence });
    expect(await follower.later()).toMatchObject({ kind: TrackKind.HEARTBEAT, progress: 4 });
  });

  it("goes on after the sequence that was seen when nothing has changed", async () => {
    const follower = await follow({ after: sequence });
    const next = await follower.next();
    expect(next?.progress).toBe(0);
    expect((next?.sequence ?? 0n) > sequence).toBe(true);
  });

  it("does not let a sequence from the future spoil the stream for anybody", async () => {
    const liar = await follow({ after: 2n ** 64n - 1n });
    const honest = await follow();
    for (const each of [await liar.next(), await honest.next(), await honest.later()]) {
      expect(toBinary(TrackUpdateSchema, each as TrackUpdate).length).toBeGreaterThan(0);
      expect((each?.sequence ?? 0n) <= micros() + second).toBe(true);
    }
  });
});

describe("topics", () => {
  it("knows no topic of another tenant, id or kind", async () => {
    expect(await topics.join("thing", "other", "thing-1")).toBeUndefined();
    expect(await topics.join("thing", "tenant", "nothing")).toBeUndefined();
    expect(await topics.join("other", "tenant", "thing-1")).toBeUndefined();
    expect(await topics.joinAny("tenant", "other-1")).toBeUndefined();
  });

  it("finds the kind by the longest prefix of the id", async () => {
    topics.provide("rest", async () => undefined, "");
    const topic = await topics.joinAny("tenant", "thing-1");
    expect(topic?.subject.sequence()).toBe(sequence);
    topic?.leave();
  });

  it("closes the subject when the last follower leaves, and opens it again for the next", async () => {
    const [one, two] = [await topics.join("thing", "tenant", "thing-1"), await follow()];
    await two.next();
    one?.leave();
    expect(closed).toBe(0);
    two.stop();
    expect(await two.next()).toBeUndefined();
    expect([opened, closed]).toEqual([1, 1]);
    const again = await follow();
    await again.next();
    expect([opened, closed]).toEqual([2, 1]);
  });

  it("opens a subject anew after its opening has failed", async () => {
    let attempts = 0;
    topics.provide("frail", async () => {
      attempts += 1;
      throw new Error("not now");
    });
    for (const attempt of [1, 2]) {
      await expect(topics.join("frail", "tenant", "x")).rejects.toThrow("not now");
      expect(attempts).toBe(attempt);
    }
  });

  it("tells followers to reconnect when the server shuts down, and ends their streams", async () => {
    const follower = await follow();
    const first = await follower.next();
    const coming = follower.next();
    await Promise.resolve();
    topics.shutdown();
    const last = await coming;
    expect(last).toMatchObject({ kind: TrackKind.RECONNECT, progress: 0 });
    expect((last?.sequence ?? 0n) > (first?.sequence ?? 0n)).toBe(true);
    expect(await follower.next()).toBeUndefined();
    expect(closed).toBe(1);
  });
});
