/** What is to be known of an operation to give it a place. */
export interface Place {
  /** Whether it may change something. */
  readonly mutates: boolean;
  /** Places of the operations before it that it refers to. */
  readonly refersTo: readonly number[];
}

/** How operations follow one another, beside waiting for those they refer to. */
export type Order = "as-if-in-order" | "sequential" | "parallel";

/**
 * The places that each operation waits for. As if in order: one that changes something waits for all
 * before it, and all after it wait for it, so that reads run together in between.
 */
export function waits(places: readonly Place[], order: Order): readonly (readonly number[])[] {
  let lastChange: number[] = [];
  return places.map(({ mutates, refersTo }, at) => {
    if (order === "parallel") return refersTo;
    if (order === "sequential") return at > 0 ? [at - 1] : [];
    const before = mutates ? Array.from({ length: at }, (_, place) => place) : [...lastChange, ...refersTo];
    if (mutates) lastChange = [at];
    return before;
  });
}

/** Runs the operations, each after those it waits for, and at most `together` at once. */
export async function runAll(
  waitsFor: readonly (readonly number[])[],
  together: number,
  run: (at: number) => Promise<void>,
): Promise<void> {
  let running = 0;
  const inLine: (() => void)[] = [];
  const turn = async (at: number) => {
    if (running >= together) await new Promise<void>((go) => inLine.push(go));
    else running++;
    try {
      await run(at);
    } finally {
      const next = inLine.shift();
      if (next) next();
      else running--;
    }
  };
  const runs: Promise<void>[] = [];
  for (const [at, places] of waitsFor.entries()) {
    runs.push(Promise.all(places.map((place) => runs[place])).then(() => turn(at)));
  }
  await Promise.all(runs);
}
