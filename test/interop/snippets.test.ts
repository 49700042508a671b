import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { adminKey, startTestServer, type TestServer } from "../support/gateway.ts";
import { has, run } from "../support/tools.ts";

/**
 * Clients as the published documents show them, changed in nothing but host, key and, where the
 * service of the document is not there yet, the resource.
 */
let server: TestServer;
let jobId: string;

beforeAll(async () => {
  server = await startTestServer();
  await createClient(ResourceService, server.grpc()).registerResource({
    deviceGroupId: "dock",
    name: "Dock",
  });
  const { job } = await createClient(JobService, server.grpc()).createJob({
    name: "a",
    deviceGroupId: "dock",
  });
  jobId = job?.jobId ?? "";
});
afterAll(() => server?.stop());

describe("integration layer", () => {
  it("curl with the key as a bearer token gets a bare array", async () => {
    const { code, stdout } = await run("curl", [
      ...["-s", "-X", "GET", `${server.url}/api/v1/api-keys`],
      ...["-H", `Authorization: Bearer ${adminKey}`, "-H", "Content-Type: application/json"],
    ]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual(
      expect.arrayContaining([expect.objectContaining({ id: "key-admin" })]),
    );
  });

  it("fetch that throws on an error sees an `error` field in the body", async () => {
    const response = await fetch(`${server.url}/api/v1/api-keys/none/usage`, {
      headers: { Authorization: `Bearer ${adminKey}`, "Content-Type": "application/json" },
    });
    expect(response.ok).toBe(false);
    expect(response.statusText).toBe("Not Found");
    expect(await response.json()).toMatchObject({ error: "API key not found" });
  });

  const python = "/usr/bin/python3";
  it.skipIf(!has(python, "-c", "import requests"))("Python's requests posts JSON", async () => {
    const script = `
import requests

API_KEY = '${adminKey}'
BASE_URL = '${server.url}/api/v1'

def create_key(name):
    response = requests.post(
        f'{BASE_URL}/api-keys',
        headers={
            'Authorization': f'Bearer {API_KEY}',
            'Content-Type': 'application/json',
        },
        json={'name': name}
    )
    response.raise_for_status()
    return response.json()

print(create_key('from-python')['secret'][:3])
`;
    const { stdout, stderr } = await run(python, ["-c", script]);
    expect([stdout.trim(), stderr]).toEqual(["sk_", ""]);
  });
});

describe("AI platform", () => {
  it("fetch sends a batch", async () => {
    const batchRequest = {
      operations: [
        { method: "GET", path: `/v3/jobs/${jobId}` },
        { method: "POST", path: "/v3/jobs/create", body: { name: "b", deviceGroupId: "dock" } },
      ],
    };
    const response = await fetch(`${server.url}/v1/batch`, {
      method: "POST",
      headers: { Authorization: `Bearer ${adminKey}`, "Content-Type": "application/json" },
      body: JSON.stringify(batchRequest),
    });
    expect(response.status).toBe(200);
    const { results } = (await response.json()) as { results: { status: number }[] };
    expect(results.map(({ status }) => status)).toEqual([200, 201]);
  });

  it("rate limit headers are as shown, and the reset is a time to come", async () => {
    const { headers } = await fetch(`${server.url}/v3/jobs`, { headers: { "x-api-key": adminKey } });
    const numbers = ["limit", "remaining", "reset", "window"].map((name) =>
      Number(headers.get(`x-ratelimit-${name}`)),
    );
    expect(numbers.every((number) => Number.isInteger(number) && number > 0)).toBe(true);
    expect(numbers[2]).toBeGreaterThanOrEqual(Math.floor(Date.now() / 1000));
  });
});
