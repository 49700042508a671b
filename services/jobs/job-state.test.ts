import fc from "fast-check";
import { expect, it } from "vitest";
import { JobState, JobStateSchema } from "#gen/portolan/common/v1/track_pb.js";
import { canMove, isFinal, openStates, transitions } from "./job-state.ts";

const states = JobStateSchema.values.map(({ number }) => number as JobState);
const real = states.filter((state) => state !== JobState.UNSPECIFIED);
const finals = [JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED];
const wishes = fc.array(fc.constantFrom(...states), { maxLength: 30 });

/** Goes wherever it may, in the order of the wishes. */
function walk(from: JobState, wanted: readonly JobState[]): JobState[] {
  const path = [from];
  for (const to of wanted) if (canMove(path.at(-1) as JobState, to)) path.push(to);
  return path;
}

it("parts the states into open and final ones", () => {
  expect(real.filter(isFinal)).toEqual(finals);
  expect([...openStates, ...finals].sort()).toEqual([...real].sort());
  expect(Object.keys(transitions).map(Number).sort()).toEqual([...states].sort());
});

it("leads out of no final state", () => {
  fc.assert(
    fc.property(fc.constantFrom(...finals), wishes, (from, wanted) => {
      expect(walk(from, wanted)).toEqual([from]);
    }),
  );
});

it("never visits a state twice, goes back or leaves the known states", () => {
  fc.assert(
    fc.property(fc.constantFrom(...openStates), wishes, (from, wanted) => {
      const path = walk(from, wanted);
      expect(new Set(path).size).toBe(path.length);
      expect(path).not.toContain(JobState.UNSPECIFIED);
      const ranks = path.map((state) => (isFinal(state) ? 99 : state));
      expect(ranks).toEqual([...ranks].sort((a, b) => a - b));
    }),
  );
});

it("reaches COMPLETED only through INPROGRESS", () => {
  fc.assert(
    fc.property(wishes, (wanted) => {
      const path = walk(JobState.PENDING, wanted);
      if (path.includes(JobState.COMPLETED)) expect(path).toContain(JobState.INPROGRESS);
    }),
  );
});

it("lets every open job fail and be cancelled", () => {
  for (const from of openStates) {
    expect([canMove(from, JobState.FAILED), canMove(from, JobState.CANCELLED)]).toEqual([true, true]);
  }
});
