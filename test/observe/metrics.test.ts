import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { startDevice } from "../support/device.ts";
import { adminKey, root, startTestServer, type TestServer, until } from "../support/gateway.ts";
import { exchange, frame, lanes } from "../support/lanes.ts";

const service = "portolan.jobs.v1.JobService";
const admin = { "x-api-key": adminKey };
let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.stop());

/** The samples that are served now, by name and labels. */
async function scrape(): Promise<{ types: Map<string, string>; samples: Map<string, number> }> {
  const { status, headers, body } = await exchange(server, "GET", "/metrics", {});
  expect(status).toBe(200);
  expect(headers["content-type"]).toBe("text/plain; version=0.0.4; charset=utf-8");
  const types = new Map<string, string>();
  const samples = new Map<string, number>();
  for (const line of body.toString().split("\n")) {
    const [, name, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
    if (name && type) types.set(name, type);
    const [, key, value] = /^([^#\s].*) (\S+)$/.exec(line) ?? [];
    if (key) samples.set(key, Number(value));
  }
  return { types, samples };
}

const sample = async (name: string, labels: Record<string, string>): Promise<number> => {
  const text = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  return (await scrape()).samples.get(`${name}{${text.join(",")}}`) ?? 0;
};

const protocols = { gRPC: "grpc", "gRPC-Web": "grpc-web", "Connect JSON": "connect", REST: "rest" } as const;

describe.each(Object.entries(protocols))("over %s", (lane, protocol) => {
  const call = (headers: Record<string, string>, body: unknown = { limit: 1 }, method = "ListJobs") =>
    lanes[lane as keyof typeof protocols](server, {
      method: `${service}/${method}`,
      rest: {
        verb: method === "ListJobs" ? "GET" : "POST",
        path: method === "ListJobs" ? "/v3/jobs" : "/v3/jobs/create",
      },
      body,
      headers,
    });

  it("counts calls and their durations by method, protocol and status", async () => {
    const labels = { rpc_method: `${service}/ListJobs`, protocol, rpc_status_code: "OK" };
    const name = "rpc_server_call_duration_seconds";
    const before = await sample(`${name}_count`, labels);
    for (let i = 0; i < 3; i++) await call(admin, {});
    expect(await sample(`${name}_count`, labels)).toBe(before + 3);
    const { samples } = await scrape();
    const buckets = [...samples].filter(([key]) =>
      key.startsWith(
        `${name}_bucket{rpc_method="${service}/ListJobs",protocol="${protocol}",rpc_status_code="OK"`,
      ),
    );
    const values = buckets.map(([, value]) => value);
    expect(values).toEqual(values.toSorted((a, b) => a - b));
    expect(buckets.at(-1)?.[0]).toContain('le="+Inf"');
    expect(values.at(-1)).toBe(before + 3);
  });

  it("counts failures by reason", async () => {
    const labels = {
      rpc_method: `${service}/ListJobs`,
      protocol,
      rpc_status_code: "UNAUTHENTICATED",
      error_type: "INVALID_TOKEN",
    };
    const before = await sample("rpc_server_errors_total", labels);
    await call({ "x-api-key": "sk_nobody" }, {});
    expect(await sample("rpc_server_errors_total", labels)).toBe(before + 1);
  });

  it("counts what is refused before the gate, with the method if it is known", async () => {
    const labels = {
      rpc_method: `${service}/CreateJob`,
      protocol,
      rpc_status_code: "INVALID_ARGUMENT",
      error_type: "MALFORMED_REQUEST",
    };
    const before = await sample("rpc_server_errors_total", labels);
    await call(admin, '{"name": ', "CreateJob");
    expect(await sample("rpc_server_errors_total", labels)).toBe(before + 1);
  });

  it("counts methods that do not exist under one name, however many there are", async () => {
    const isRest = protocol === "rest";
    const labels = {
      rpc_method: "_OTHER",
      protocol,
      rpc_status_code: isRest ? "NOT_FOUND" : "UNIMPLEMENTED",
      error_type: isRest ? "UNKNOWN_PATH" : "UNKNOWN_METHOD",
    };
    const before = await sample("rpc_server_errors_total", labels);
    for (const name of ["Nothing", "Nobody"]) {
      await lanes[lane as keyof typeof protocols](server, {
        method: `${service}/${name}`,
        rest: { verb: "GET", path: `/v3/${name}` },
        body: {},
        headers: admin,
      });
    }
    expect(await sample("rpc_server_errors_total", labels)).toBe(before + 2);
    expect([...(await scrape()).samples.keys()].join("\n")).not.toMatch(/Nothing|Nobody/);
  });
});

it("counts a call of another service that a call makes, as local", async () => {
  const labels = {
    rpc_method: "portolan.streams.v1.ResourceService/GetResource",
    protocol: "local",
    rpc_status_code: "NOT_FOUND",
  };
  const before = await sample("rpc_server_call_duration_seconds_count", labels);
  const job = JSON.stringify({ name: "Survey", deviceGroupId: "nowhere" });
  await exchange(server, "POST", "/v3/jobs/create", { ...admin, "content-type": "application/json" }, job);
  expect(await sample("rpc_server_call_duration_seconds_count", labels)).toBe(before + 1);
});

it("shows the streams that are open, the messages sent on them and the ticks", async () => {
  const device = await startDevice(server.grpc(), "metrics-dock");
  const labels = { rpc_method: "portolan.streams.v1.ResourceService/TrackResource", protocol: "grpc" };
  const stop = new AbortController();
  const stream = createClient(ResourceService, server.grpc())
    .trackResource({ deviceGroupId: "metrics-dock" }, { signal: stop.signal })
    [Symbol.asyncIterator]();
  await stream.next();
  await stream.next();
  expect(await sample("rpc_server_streams_open", labels)).toBe(1);
  expect(await sample("rpc_server_stream_messages_sent_total", labels)).toBeGreaterThanOrEqual(2);
  expect((await scrape()).samples.get("portolan_ticks_total")).toBeGreaterThanOrEqual(1);
  stop.abort();
  await stream.next().catch(() => {});
  await until(async () => (await sample("rpc_server_streams_open", labels)) === 0);
  const cancelled = { ...labels, rpc_status_code: "CANCELLED" };
  expect(await sample("rpc_server_call_duration_seconds_count", cancelled)).toBe(1);
  await device.stop();
});

it.each(["connect", "rest"])(
  "counts a stream over %s that ends at its deadline as such",
  async (protocol) => {
    const deviceGroupId = `late-${protocol}`;
    await createClient(ResourceService, server.grpc()).registerResource({ deviceGroupId, name: "Dock" });
    const headers = { ...admin, "connect-timeout-ms": "300" };
    if (protocol === "rest") await exchange(server, "GET", `/v3/devices/${deviceGroupId}/status/ws`, headers);
    else {
      const path = "/portolan.streams.v1.ResourceService/TrackResource";
      const type = { "content-type": "application/connect+json" };
      await exchange(server, "POST", path, { ...headers, ...type }, frame(JSON.stringify({ deviceGroupId })));
    }
    const labels = {
      rpc_method: "portolan.streams.v1.ResourceService/TrackResource",
      protocol,
      rpc_status_code: "DEADLINE_EXCEEDED",
    };
    await until(async () => (await sample("rpc_server_call_duration_seconds_count", labels)) === 1);
    const failed = { ...labels, error_type: "DEADLINE_EXCEEDED" };
    expect(await sample("rpc_server_errors_total", failed)).toBe(1);
  },
);

it("shows the process and the delay of its event loop", async () => {
  const { samples } = await scrape();
  expect(samples.get("process_resident_memory_bytes")).toBeGreaterThan(0);
  expect([...samples.keys()]).toContain("nodejs_eventloop_lag_p99_seconds");
});

it("serves exactly the metrics that the documentation lists", async () => {
  const document = readFileSync(join(root, "docs/observability.md"), "utf8");
  const table = /## Metrics\n([\s\S]*?)\n## /.exec(document)?.[1] ?? "";
  const documented = [...table.matchAll(/^\| `(\w+)`\s*\| (counter|gauge|histogram) /gm)].map(
    ([, name, type]) => [name, type],
  );
  const { types } = await scrape();
  const own = [...types].filter(([name]) => !/^(process|nodejs)_/.test(name));
  expect(documented.toSorted()).toEqual(own.toSorted());
});

describe("who may read", () => {
  const ask = async (env: Record<string, string>, headers: Record<string, string> = {}) => {
    const other = await startTestServer(env);
    try {
      return (await exchange(other, "GET", "/metrics", headers)).status;
    } finally {
      await other.stop();
    }
  };

  it.each([
    ["this machine", {}, {}, 200],
    ["nobody whose request came through a proxy", {}, { "x-forwarded-for": "192.0.2.1" }, 403],
    ["no page of another origin", { PORTOLAN_CORS_ORIGINS: "*" }, { origin: "https://app.example.com" }, 403],
    ["everybody, if on", { PORTOLAN_METRICS: "on" }, { "x-forwarded-for": "192.0.2.1" }, 200],
    ["nobody, if off", { PORTOLAN_METRICS: "off" }, {}, 404],
    ["nobody without the token", { PORTOLAN_METRICS_TOKEN: "scrape-me-not" }, {}, 401],
    [
      "nobody with another",
      { PORTOLAN_METRICS_TOKEN: "scrape-me-not" },
      { authorization: "Bearer scrape-me-now" },
      401,
    ],
    [
      "who has the token",
      { PORTOLAN_METRICS_TOKEN: "scrape-me-not" },
      { authorization: "Bearer scrape-me-not", "x-forwarded-for": "192.0.2.1" },
      200,
    ],
  ])("%s", async (_, env, headers, status) => {
    expect(await ask(env, headers)).toBe(status);
  });
});
