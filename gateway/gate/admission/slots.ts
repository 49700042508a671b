/** Counts what callers have open at the same time. */
export function createSlots() {
  const open = new Map<string, number>();
  return {
    /**
     * Takes a slot of the caller.
     * @returns a function that gives it back, once however often it is called; undefined if all
     * `limit` slots are taken
     */
    take(caller: string, limit: number): (() => void) | undefined {
      const taken = open.get(caller) ?? 0;
      if (taken >= limit) return undefined;
      open.set(caller, taken + 1);
      let held = true;
      return () => {
        if (!held) return;
        held = false;
        const left = (open.get(caller) ?? 1) - 1;
        if (left === 0) open.delete(caller);
        else open.set(caller, left);
      };
    },
    /** How many callers hold a slot. */
    get callers() {
      return open.size;
    },
  };
}
