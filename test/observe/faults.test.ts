import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sql } from "kysely";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createLog } from "#gateway/observe/log.ts";
import { type Server, startServer } from "#gateway/server.ts";
import { readConfig } from "#kernel/config.ts";
import { type Collector, startCollector } from "../support/collector.ts";
import { adminKey, until } from "../support/gateway.ts";
import { exchange } from "../support/lanes.ts";

let collector: Collector;
let server: Server;
let folder: string;
let log = "";
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "portolan-"));
  collector = await startCollector();
  const config = readConfig({
    PORT: "0",
    PORTOLAN_DATA_DIR: folder,
    PORTOLAN_ADMIN_API_KEY: adminKey,
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_BSP_SCHEDULE_DELAY: "50",
  });
  const write = (line: string) => {
    log += line;
  };
  server = await startServer(config, createLog("info", { write }));
});
afterAll(async () => {
  await server.stop();
  await collector.stop();
  rmSync(folder, { recursive: true, force: true });
});

it("a fault of the server is an error in the log and in its trace, with the cause", async () => {
  await sql.raw("alter table jobs rename to lost_jobs").execute(server.kernel.database.read);
  const traceId = "c".repeat(32);
  const { status, body } = await exchange(
    { url: server.url, port: Number(new URL(server.url).port) },
    "GET",
    "/v3/jobs",
    { "x-api-key": adminKey, "x-request-id": "fault", traceparent: `00-${traceId}-b7ad6b7169203331-01` },
  );
  expect(status).toBe(500);
  expect(body.toString()).not.toContain("no such table");

  const line = log
    .split("\n")
    .filter(Boolean)
    .map((text) => JSON.parse(text))
    .find(({ requestId }) => requestId === "fault");
  expect(line).toMatchObject({
    level: 50,
    msg: "call failed",
    code: "INTERNAL",
    reason: "INTERNAL",
    traceId,
    err: { message: expect.stringContaining("no such table") },
  });

  const span = await until(() => collector.spans.find((each) => each.traceId === traceId));
  expect(span.status.code).toBe(2);
  expect(span.attributes).toMatchObject({ "error.type": "INTERNAL", "http.response.status_code": 500 });
  expect(span.events.map(({ name }) => name)).toEqual(["exception"]);
  expect(JSON.stringify(span)).toContain("no such table");
});

it("a secret that a service logs is not in the log", () => {
  server.kernel.log.error({ err: new Error(`bad value "${adminKey}"`), pin: "40821" }, `key ${adminKey}`);
  expect(log).toContain("[redacted]");
  expect(log).not.toContain(adminKey);
  expect(log).not.toContain("40821");
});
