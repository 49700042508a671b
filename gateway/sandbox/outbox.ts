/** A short queue between a producer that never waits and a consumer that may be away. */
export interface Outbox<T> {
  /** Adds an item; when the queue is full, the oldest goes. */
  push(item: T): void;
  /** The item added last, while nobody has taken it. */
  last(): T | undefined;
  /** Puts another item in its place. */
  replaceLast(item: T): void;
  /** Yields items as they come, until the signal aborts. One reader at a time. */
  drain(signal: AbortSignal): AsyncGenerator<T, void, void>;
}

/** Makes an empty queue. */
export function createOutbox<T>(capacity: number): Outbox<T> {
  const items: T[] = [];
  let wake: () => void = () => {};
  return {
    push(item) {
      items.push(item);
      if (items.length > capacity) {
        items.shift();
      }
      wake();
    },
    last: () => items.at(-1),
    replaceLast(item) {
      items.pop();
      items.push(item);
    },
    async *drain(signal) {
      const onAbort = () => wake();
      signal.addEventListener("abort", onAbort);
      try {
        while (!signal.aborted) {
          const item = items.shift();
          if (item === undefined) {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          } else {
            yield item;
          }
        }
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
  };
}
