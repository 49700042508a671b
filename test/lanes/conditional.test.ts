import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adminKey, startTestServer, type TestServer } from "../support/gateway.ts";

let server: TestServer;
let path: string;

beforeAll(async () => {
  server = await startTestServer();
  await send("POST", "/v3/resources", { deviceGroupId: "dock", name: "Dock" });
  const job = { name: "Flight", deviceGroupId: "dock", missionId: "m", priority: 1 };
  const created = await send("POST", "/v3/jobs/create", job);
  path = `/v3/jobs/${created.body.jobId ?? created.body.job?.jobId}`;
});
afterAll(() => server.stop());

async function send(method: string, at: string, json?: object, more: Record<string, string> = {}) {
  const headers = { authorization: `Bearer ${adminKey}`, "content-type": "application/json", ...more };
  const body = json === undefined ? {} : { body: JSON.stringify(json) };
  const answer = await fetch(server.url + at, { method, headers, ...body });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, body: text === "" ? {} : JSON.parse(text) };
}

describe("a job over REST", () => {
  it("is read again only when it changed", async () => {
    const read = await send("GET", path);
    const etag = read.headers.get("etag") ?? "";
    expect([etag, read.headers.get("cache-control")]).toEqual([
      `"${read.body.job.etag}"`,
      "private, no-cache",
    ]);
    expect((await send("GET", path, undefined, { "if-none-match": etag })).status).toBe(304);
    await send("PATCH", path, { name: "Renamed" });
    const changed = await send("GET", path, undefined, { "if-none-match": etag });
    expect([changed.status, changed.body.job.name]).toEqual([200, "Renamed"]);
  });

  it("is changed with If-Match only as it was read", async () => {
    const etag = (await send("GET", path)).headers.get("etag") ?? "";
    const mine = await send("PATCH", path, { name: "Mine" }, { "if-match": etag });
    expect([mine.status, mine.body.job.name]).toEqual([200, "Mine"]);
    const stale = await send("PATCH", path, { name: "Stale" }, { "if-match": etag });
    expect([stale.status, stale.body]).toMatchObject([412, { code: 412, error: "ETAG_MISMATCH" }]);
    const inBody = await send("PATCH", path, { name: "Stale", etag: etag.slice(1, -1) });
    expect([inBody.status, inBody.body.error]).toEqual([412, "ETAG_MISMATCH"]);
    expect((await send("PATCH", path, { name: "Any" }, { "if-match": "*" })).status).toBe(200);
    expect((await send("PATCH", path, { name: "No" }, { "if-match": "1" })).status).toBe(400);
  });
});
