import type { Sample } from "./load.ts";
import type { Server } from "./process.ts";
import { median, print, short } from "./table.ts";

/** One way of doing the same work. */
export interface Case {
  readonly name: string;
  start(): Promise<Server>;
  /** Prepares the server once, and gives what is done in each round. */
  prepare(server: Server): Promise<(server: Server) => Promise<Sample>>;
}

/**
 * Runs the cases in turns, so that what the machine does meanwhile hits all alike, after a round
 * that only warms up, and prints medians and the ratio of the first case to each.
 */
export async function race(title: string, cases: readonly Case[], rounds: number): Promise<void> {
  const running = [];
  for (const each of cases) {
    const server = await each.start();
    running.push({ ...each, server, work: await each.prepare(server), samples: [] as Sample[] });
  }
  for (let round = -1; round < rounds; round++) {
    for (const each of running) {
      const sample = await each.work(each.server);
      if (round >= 0) each.samples.push(sample);
    }
  }
  for (const { server } of running) await server.stop();
  const results = running.map(({ name, samples }) => ({
    name,
    samples,
    perSecond: median(samples.map((sample) => sample.perSecond)),
    cpuMicros: median(samples.map((sample) => sample.cpuMicros)),
  }));
  const [ours] = results;
  if (!ours) return;
  print(
    title,
    ["case", "per second (range)", "ours to this", "CPU µs each", "this CPU to ours"],
    results.map(({ name, samples, perSecond, cpuMicros }) => {
      const all = samples.map((sample) => sample.perSecond);
      return [
        name,
        `${short(perSecond)} (${short(Math.min(...all))}-${short(Math.max(...all))})`,
        `${(ours.perSecond / perSecond).toFixed(2)} x`,
        cpuMicros.toFixed(1),
        `${(cpuMicros / ours.cpuMicros).toFixed(2)} x`,
      ];
    }),
  );
}
