// better-sqlite3 by hand: rows like those of a job, each in a transaction that is on disk when it ends.
import { mkdtempSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import SQLite from "better-sqlite3";

const database = new SQLite(join(mkdtempSync(join(tmpdir(), "portolan-bench-")), "jobs.db"));
database.pragma("journal_mode = WAL");
database.pragma("synchronous = FULL");
database.exec(
  "create table jobs (job_id text primary key, device_group_id text, status integer, message blob)",
);
const insert = database.prepare("insert into jobs values (?, ?, ?, ?)");
const message = Buffer.alloc(200, 1);
let count = 0;

const server = http.createServer((request, response) => {
  const rows = Number(new URL(request.url ?? "/", "http://localhost").searchParams.get("rows"));
  const began = performance.now();
  for (let row = 0; row < rows; row++) insert.run(`job-${count++}`, "bench-dock", 1, message);
  response.end(String((rows / (performance.now() - began)) * 1000));
});
server.listen(0, "127.0.0.1", () =>
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
);
