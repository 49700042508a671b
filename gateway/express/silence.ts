/** Something that is receiving a body and can be broken off. */
interface Receiver {
  destroy(): void;
}

/** Looks after bodies on their way in. */
export interface SilenceWatch {
  /** Begins to watch, or notes that something has arrived. */
  heard(receiver: Receiver): void;
  /** Ends the watch: the body is complete, or nobody sends any more. */
  done(receiver: Receiver): void;
}

/** How many looks make up the limit: a body is broken off at most a quarter too late. */
const looks = 4;

/**
 * Breaks off bodies of which nothing has arrived for `limitMs`. Costs no timer for each of them,
 * and none at all while nothing is awaited.
 */
export function createSilenceWatch(limitMs: number): SilenceWatch {
  const lastHeard = new Map<Receiver, number>();
  let look = 0;
  let timer: NodeJS.Timeout | undefined;

  function lookRound(): void {
    look += 1;
    for (const [receiver, heard] of lastHeard) {
      if (look - heard <= looks) continue;
      lastHeard.delete(receiver);
      receiver.destroy();
    }
    if (lastHeard.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  }

  return {
    heard(receiver) {
      lastHeard.set(receiver, look);
      timer ??= setInterval(lookRound, limitMs / looks).unref();
    },
    done(receiver) {
      lastHeard.delete(receiver);
    },
  };
}
