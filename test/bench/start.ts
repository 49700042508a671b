import { setTimeout as sleep } from "node:timers/promises";
import { startPortolan } from "./process.ts";
import { median, print } from "./table.ts";

/** Time from the start of the process until it serves, and memory when nothing happens. */
export async function benchStart(rounds: number): Promise<void> {
  const starts: number[] = [];
  const memories: number[] = [];
  for (let round = -1; round < rounds; round++) {
    const server = await startPortolan();
    await sleep(3_000);
    if (round >= 0) {
      starts.push(server.startMs);
      memories.push(server.memory());
    }
    await server.stop();
  }
  print(
    "Start and rest",
    ["what", "median", "range"],
    [
      [
        "start of the process to ready, warm disk cache",
        `${median(starts).toFixed(0)} ms`,
        `${Math.min(...starts).toFixed(0)}-${Math.max(...starts).toFixed(0)} ms`,
      ],
      ["resident memory at rest", `${(median(memories) / 2 ** 20).toFixed(0)} MiB`, ""],
    ],
  );
}
