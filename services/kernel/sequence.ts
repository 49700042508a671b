/** Hands out sequences: Unix microseconds, strictly increasing within the process. */
export function createSequence(nowMs: () => number = Date.now): () => bigint {
  let last = 0n;
  return () => {
    const now = BigInt(nowMs()) * 1000n;
    last = now > last ? now : last + 1n;
    return last;
  };
}

/** The sequence of a moment. */
export const sequenceAt = (timeMs: number): bigint => BigInt(Math.floor(timeMs)) * 1000n;

/** The moment of a sequence, in Unix milliseconds. */
export const timeOfSequence = (sequence: bigint): number => Number(sequence / 1000n);
