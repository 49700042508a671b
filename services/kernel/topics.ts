import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { TrackKind, type TrackUpdate, TrackUpdateSchema } from "#gen/portolan/common/v1/track_pb.js";
import { createLiveCounts } from "./live-counts.ts";
import { timeOfSequence } from "./sequence.ts";
import type { Ticker } from "./ticker.ts";

/** The fields of a subject's state; sequence, kind and subject id are put in by the topic. */
export type TrackState = Partial<
  Omit<TrackUpdate, "sequence" | "kind" | "subject" | "$typeName" | "$unknown">
>;

/** Something that can be followed. Its owner changes it; nothing is pushed, topics look at it. */
export interface Subject {
  /** Sequence of the newest state: grows with every change. */
  sequence(): bigint;
  /** The newest state. */
  state(): TrackState;
  /** Whether the state is the last one. */
  ended(): boolean;
  /** Recorded states after a sequence, oldest first. */
  history?(after: bigint): AsyncIterable<{ sequence: bigint; state: TrackState }>;
  /** Calls `wake` when the subject ends; the returned function takes that back. */
  onEnd(wake: () => void): () => void;
  /** Lets go of what the subject holds, once nobody follows it. */
  close(): void;
}

/** Opens the subject of an id, or tells that there is none. */
export type OpenSubject = (tenantId: string, id: string) => Promise<Subject | undefined>;

/** How a stream wants to follow. */
export interface FollowOptions {
  /** Recorded states after this sequence come first; 0 means none. */
  readonly afterSequence: bigint;
  /** Slot of the second in which to send, see ticker. */
  readonly slot: number;
  /** Ends the stream, quietly. */
  readonly signal: AbortSignal;
}

/** Live subjects by kind and id: one open subject for all who follow it. */
export interface Topics {
  /**
   * Names the opener of a kind of subject. `idPrefix` is how the ids begin that `joinAny` takes for
   * this kind; one kind may claim the rest with an empty one.
   */
  provide(kind: string, open: OpenSubject, idPrefix?: string): void;
  /** The live topic of a subject, or undefined if it does not exist. Leave it when done. */
  join(kind: string, tenantId: string, id: string): Promise<Topic | undefined>;
  /** Joins the topic of an id whose prefix tells its kind. */
  joinAny(tenantId: string, id: string): Promise<Topic | undefined>;
  /** Tells all followers to reconnect elsewhere and ends their streams. */
  shutdown(): void;
}

/**
 * A followed subject. It makes at most one frame a second when nothing changes, and one for each
 * change that somebody asks for; all followers share the frames.
 */
export interface Topic {
  readonly subject: Subject;
  /** The newest frame if it is newer than `last`, else a heartbeat. */
  next(last: bigint): TrackUpdate;
  /**
   * Follows: recorded states if asked for, the newest at once, then one a second in the slot, and
   * the final one as soon as there is one. Leaves the topic at the end.
   */
  follow(options: FollowOptions): AsyncGenerator<TrackUpdate>;
  leave(): void;
}

const oneSecond = 1_000_000n;

/** How often a topic has a frame for a follower, in milliseconds. */
const frameMs = 1000;

/** Topics that are woken by `ticker`, read the time from `nowMs`, and count what slow followers miss. */
export function createTopics(ticker: Ticker, nowMs: () => number, counts = createLiveCounts()): Topics {
  const openers = new Map<string, { open: OpenSubject; idPrefix: string | undefined }>();
  const live = new Map<string, Promise<SharedTopic | undefined>>();
  const closing = new AbortController();

  class SharedTopic {
    readonly key: string;
    readonly id: string;
    readonly subject: Subject;
    users = 0;
    #frame: TrackUpdate | undefined;
    #stateSequence = 0n;

    constructor(key: string, id: string, subject: Subject) {
      this.key = key;
      this.id = id;
      this.subject = subject;
    }

    next(last: bigint): TrackUpdate {
      const sequence = this.subject.sequence();
      if (!this.#frame || sequence > this.#stateSequence || this.subject.ended()) {
        const final = this.subject.ended();
        if (final && this.#frame?.kind === TrackKind.FINAL) return this.#frame;
        this.#stateSequence = sequence;
        return this.#make(sequence, last, final ? TrackKind.FINAL : TrackKind.STATE);
      }
      if (this.#frame.sequence > last) return this.#frame;
      // A heartbeat counts seconds up from the state's own sequence, so that a state that is being
      // written at this moment, stamped with microseconds of now, is always after it.
      const elapsed = (BigInt(nowMs()) * 1000n - this.#stateSequence) / oneSecond;
      return this.#make(this.#stateSequence + elapsed, last, TrackKind.HEARTBEAT);
    }

    #make(sequence: bigint, last: bigint, kind: TrackKind): TrackUpdate {
      const floor = this.#frame && this.#frame.sequence > last ? this.#frame.sequence : last;
      const frame = create(TrackUpdateSchema, this.subject.state());
      frame.sequence = sequence > floor ? sequence : floor + 1n;
      frame.kind = kind;
      frame.subject = this.id;
      if (kind === TrackKind.HEARTBEAT || !frame.timestamp) frame.timestamp = timestampFromMs(nowMs());
      // Frozen, so that lanes may keep its bytes for all who follow.
      this.#frame = Object.freeze(frame);
      return frame;
    }

    leave(): void {
      this.users -= 1;
      if (this.users > 0) return;
      live.delete(this.key);
      this.subject.close();
    }
  }

  async function* follow(topic: SharedTopic, options: FollowOptions): AsyncGenerator<TrackUpdate> {
    try {
      // A sequence that lies ahead was never seen; taken at its word it would push all that follow.
      let last = latest(options.afterSequence, topic.subject);
      if (last > 0n && topic.subject.history) {
        for await (const { sequence, state } of topic.subject.history(last)) {
          if (options.signal.aborted) return;
          last = sequence;
          yield create(TrackUpdateSchema, {
            timestamp: timestampFromMs(timeOfSequence(sequence)),
            ...state,
            sequence,
            kind: TrackKind.HISTORY,
            subject: topic.id,
          });
        }
      }
      while (!options.signal.aborted) {
        const frame = topic.next(last);
        last = frame.sequence;
        if (frame.kind === TrackKind.FINAL) {
          yield frame;
          return;
        }
        if (closing.signal.aborted) {
          yield { ...frame, kind: TrackKind.RECONNECT };
          return;
        }
        const givenAt = nowMs();
        yield frame;
        counts.droppedFrames += Math.max(0, Math.floor((nowMs() - givenAt) / frameMs));
        if (!topic.subject.ended()) await pause(topic, options);
      }
    } finally {
      topic.leave();
    }
  }

  function latest(sequence: bigint, subject: Subject): bigint {
    const now = BigInt(Math.floor(nowMs())) * 1000n;
    const newest = subject.sequence() > now ? subject.sequence() : now;
    return sequence < newest ? sequence : newest;
  }

  /** Waits for the slot, the subject's end, the stream's end or the server's. */
  function pause(topic: SharedTopic, { slot, signal }: FollowOptions): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        takeBack();
        unhear();
        signal.removeEventListener("abort", done);
        closing.signal.removeEventListener("abort", done);
        resolve();
      };
      const takeBack = ticker.wait(slot, done);
      const unhear = topic.subject.onEnd(done);
      signal.addEventListener("abort", done);
      closing.signal.addEventListener("abort", done);
      if (signal.aborted || closing.signal.aborted) done();
    });
  }

  return {
    provide(kind, open, idPrefix) {
      openers.set(kind, { open, idPrefix });
    },
    async joinAny(tenantId, id) {
      const kinds = [...openers].filter(
        ([, { idPrefix }]) => idPrefix !== undefined && id.startsWith(idPrefix),
      );
      const [longest] = kinds.sort(([, a], [, b]) => (b.idPrefix ?? "").length - (a.idPrefix ?? "").length);
      return longest && this.join(longest[0], tenantId, id);
    },
    async join(kind, tenantId, id) {
      const key = [kind, tenantId, id].join("\n");
      let opening = live.get(key);
      if (!opening) {
        opening = (async () => {
          const subject = await openers.get(kind)?.open(tenantId, id);
          if (!subject) live.delete(key);
          return subject && new SharedTopic(key, id, subject);
        })();
        opening.catch(() => live.delete(key));
        live.set(key, opening);
      }
      const topic = await opening;
      if (!topic) return undefined;
      // The last follower may have left between the opening and now.
      if (live.get(key) !== opening) return this.join(kind, tenantId, id);
      topic.users += 1;
      return {
        subject: topic.subject,
        next: (last) => topic.next(last),
        follow: (options) => follow(topic, options),
        leave: () => topic.leave(),
      };
    },
    shutdown() {
      closing.abort();
    },
  };
}

/** A set of callbacks to call when something ends, for the makers of subjects. */
export function createEnd() {
  const wakes = new Set<() => void>();
  let over = false;
  return {
    get over(): boolean {
      return over;
    },
    end(): void {
      if (over) return;
      over = true;
      for (const wake of [...wakes]) wake();
    },
    onEnd(wake: () => void): () => void {
      wakes.add(wake);
      return () => wakes.delete(wake);
    },
  };
}
