// Runs ours and the peers on this machine, back to back, and prints tables of medians and ratios.
//   npm run bench -- [--rounds N] [--size N] [name…]      names as below; all without any
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { benchFanout, benchFollowers } from "./fanout.ts";
import { has } from "./process.ts";
import { benchStart } from "./start.ts";
import { benchConnect, benchCreate, benchGrpc, benchRest } from "./unary.ts";

const benches: Record<string, (rounds: number, size: number) => Promise<void>> = {
  grpc: benchGrpc,
  connect: benchConnect,
  rest: benchRest,
  create: benchCreate,
  fanout: benchFanout,
  followers: benchFollowers,
  start: benchStart,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "3" }, size: { type: "string", default: "1" } },
});
const missing = ["h2load", "wrk"].filter((program) => !has(program));
if (missing.length > 0) {
  console.error(`${missing.join(" and ")} not found: install Debian's nghttp2-client and wrk`);
  process.exit(1);
}
const names = positionals.length > 0 ? positionals : Object.keys(benches);
const unknown = names.filter((name) => !benches[name]);
if (unknown.length > 0) {
  console.error(`no such bench: ${unknown.join(", ")}; there are ${Object.keys(benches).join(", ")}`);
  process.exit(2);
}
const [cpu] = cpus();
console.log(`${new Date().toISOString()}, Node ${process.version}, ${cpus().length} x ${cpu?.model.trim()}`);
for (const name of names) await benches[name]?.(Number(values.rounds), Number(values.size));
