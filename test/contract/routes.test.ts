import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { adminKey, startTestServer, type TestServer } from "#test/support/gateway.ts";
import { type OpenApi, readOpenApi } from "#test/support/openapi.ts";

/** The routes of the published documents whose domains are here, to the letter but for variable names. */
const published: readonly (readonly [method: string, path: string])[] = [
  ["POST", "/v3/auth/token"],
  ["POST", "/api/v1/api-keys"],
  ["GET", "/api/v1/api-keys"],
  ["DELETE", "/api/v1/api-keys/{id}"],
  ["GET", "/api/v1/api-keys/{id}/usage"],
  ["GET", "/api/v1/tenants"],
  ["GET", "/api/v1/users"],
  ["GET", "/api/v1/audit-logs"],
  ["POST", "/v3/jobs/create"],
  ["GET", "/v3/jobs"],
  ["GET", "/v3/jobs/{jobId}"],
  ["PATCH", "/v3/jobs/{jobId}"],
  ["DELETE", "/v3/jobs/{jobId}"],
  ["POST", "/v3/jobs/{jobId}/cancel"],
  ["GET", "/v3/jobs/{jobID}/status/ws"],
  ["GET", "/v3/resources"],
  ["GET", "/v3/devices/{DeviceGroupID}/status/ws"],
  ["POST", "/v3/devices/{DeviceGroupID}/telemetry"],
  ["GET", "/prod"],
  ["GET", "/prod/prod"],
  ["POST", "/v3/streams/share"],
  ["GET", "/v3/shares"],
  ["GET", "/v3/shares/{shareCode}"],
  ["DELETE", "/v3/shares/{shareCode}"],
  ["GET", "/v3/shares/{sharecode}/resources"],
  ["GET", "/v3/shares/{shareID}/status/ws"],
];

/** Published routes that are no RPCs. */
const pages = ["/api/v1/openapi", "/openapi.json", "/asyncapi.json", "/docs", "/healthz", "/readyz"];

const unnamed = (path: string) => path.replaceAll(/\{[^}]*\}/g, "{}");

let folder: string;
let server: TestServer;
let openApi: OpenApi;
let shareCode: string;

beforeAll(async () => {
  // So many knocks at once are more than callers without a key are let make.
  folder = mkdtempSync(join(tmpdir(), "portolan-plans-"));
  const plans = join(folder, "plans.json");
  writeFileSync(plans, JSON.stringify({ anonymous: { requests: 100_000, per: "second" } }));
  server = await startTestServer({ PORTOLAN_PLANS: plans });
  openApi = readOpenApi(await (await fetch(`${server.url}/openapi.json`)).json());
  const headers = { "content-type": "application/json", "x-api-key": adminKey };
  const post = async (path: string, body: unknown) => {
    const answer = await fetch(server.url + path, { method: "POST", headers, body: JSON.stringify(body) });
    return (await answer.json()) as { share: { shareCode: string } };
  };
  await post("/v3/resources", { deviceGroupId: "dock", name: "Dock" });
  const made = await post("/v3/streams/share", { deviceGroupId: "dock", role: "VIEWER", timeout: 5 });
  shareCode = made.share.shareCode;
});
afterAll(async () => {
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** The status of a call without credentials: guarded routes answer 401, and those for a share its own. */
async function knock(method: string, path: string): Promise<number> {
  const leaving = new AbortController();
  const real = path.replace(/\{share\w+\}/i, shareCode).replaceAll(/\{[^}]*\}/g, "some-id");
  const answer = await fetch(server.url + real, {
    method,
    signal: leaving.signal,
    ...(method !== "GET" && { headers: { "content-type": "application/json" }, body: "{}" }),
  });
  leaving.abort();
  return answer.status;
}

it.each(published)("documents and serves %s %s", async (method, path) => {
  const documented = openApi.operations.map((each) => `${each.method} ${unnamed(each.path)}`);
  expect(documented).toContain(`${method} ${unnamed(path)}`);
  expect([404, 405]).not.toContain(await knock(method, path));
});

it("serves every operation that it documents", async () => {
  for (const { method, path } of openApi.operations) {
    expect([404, 405, 501], `${method} ${path}`).not.toContain(await knock(method, path));
  }
});

it.each(pages)("serves %s", async (path) => {
  expect((await fetch(server.url + path)).status).toBe(200);
});

it("can tell a route that is not there from one that is", async () => {
  expect(await knock("GET", "/v3/no-such-thing")).toBe(404);
  expect(await knock("PUT", "/v3/jobs")).toBe(405);
});
