// Fastify by hand: bare, and with a token that is verified once and then remembered, checked input
// and a point read by a prepared statement.
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import SQLite from "better-sqlite3";
import fastify from "fastify";
import { generateKeyPair, jwtVerify, SignJWT } from "jose";

const { privateKey, publicKey } = await generateKeyPair("RS256");
const token = await new SignJWT({})
  .setProtectedHeader({ alg: "RS256" })
  .setExpirationTime("1h")
  .sign(privateKey);
const known = new Map<string, number>();

const database = new SQLite(join(mkdtempSync(join(tmpdir(), "portolan-bench-")), "jobs.db"));
database.pragma("journal_mode = WAL");
database.exec(
  "create table jobs (tenant_id text, job_id text, message text, primary key (tenant_id, job_id))",
);
const job = {
  jobId: "job-1",
  name: "Bench",
  deviceGroupId: "bench-dock",
  status: "PENDING",
  priority: 5,
  createdAt: new Date().toISOString(),
  updatedAt: new Date().toISOString(),
  actionOnArrival: "HOVER",
  maxDuration: "7200s",
  queueTimeout: "86400s",
};
database.prepare("insert into jobs values (?, ?, ?)").run("default", "job-1", JSON.stringify(job));
const select = database.prepare("select message from jobs where tenant_id = ? and job_id = ?");

const app = fastify();
const text = { type: "string" };
const properties = Object.fromEntries(
  Object.keys(job).map((name) => [name, name === "priority" ? { type: "integer" } : text]),
);
const reply = {
  type: "object",
  properties: { success: { type: "boolean" }, job: { type: "object", properties } },
};
app.get(
  "/hello",
  { schema: { response: { 200: { type: "object", properties: { hello: text } } } } },
  async () => ({
    hello: "world",
  }),
);
app.get("/token", async () => token);
app.get<{ Params: { id: string } }>("/v3/jobs/:id", {
  schema: {
    params: {
      type: "object",
      properties: { id: { type: "string", minLength: 1, maxLength: 128 } },
      required: ["id"],
    },
    response: { 200: reply },
  },
  async onRequest(request, answer) {
    const [, sent = ""] = /^bearer (\S+)$/i.exec(request.headers.authorization ?? "") ?? [];
    let expires = known.get(sent);
    if (expires === undefined) {
      const { payload } = await jwtVerify(sent, publicKey);
      expires = payload.exp ?? 0;
      known.set(sent, expires);
    }
    if (expires * 1000 < Date.now()) return answer.code(401).send();
  },
  async handler(request, answer) {
    const row = select.get("default", request.params.id) as { message: string } | undefined;
    return row ? { success: true, job: JSON.parse(row.message) } : answer.code(404).send();
  },
});
console.log(await app.listen({ port: 0, host: "127.0.0.1" }));
