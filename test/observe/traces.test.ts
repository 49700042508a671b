import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { type CollectedSpan, type Collector, startCollector } from "../support/collector.ts";
import { adminKey, grpcTransport, type SpawnedServer, spawnServer, until } from "../support/gateway.ts";
import { exchange, lanes } from "../support/lanes.ts";

const service = "portolan.jobs.v1.JobService";
const [internalKind, serverKind] = [1, 2];
const errorStatus = 2;
const admin = { "x-api-key": adminKey };

let collector: Collector;
let server: SpawnedServer;
beforeAll(async () => {
  collector = await startCollector();
  server = await spawnServer({
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_EXPORTER_OTLP_HEADERS: "x-collector=mine",
    OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=test",
    OTEL_BSP_SCHEDULE_DELAY: "50",
    PORTOLAN_ACCESS_LOG: "on",
    PORTOLAN_LOG_LEVEL: "info",
  });
});
afterAll(async () => {
  await server.kill();
  await collector.stop();
});

let traces = 0;
/** A trace context of a client, with a trace id of its own. */
function clientSpan(flags = "01") {
  const traceId = (++traces).toString(16).padStart(32, "a");
  return { traceId, parentId: "b7ad6b7169203331", traceparent: `00-${traceId}-b7ad6b7169203331-${flags}` };
}

const spansOf = (traceId: string) => collector.spans.filter((span) => span.traceId === traceId);
const spanOf = (traceId: string): Promise<CollectedSpan> =>
  until(() => spansOf(traceId).find(({ kind }) => kind === serverKind));
const logLinesOf = (traceId: string) =>
  server
    .stderr()
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line))
    .filter((line) => line.traceId === traceId);

const protocols = {
  gRPC: { protocol: "grpc", system: "grpc" },
  "gRPC-Web": { protocol: "grpc-web", system: "grpc" },
  "Connect JSON": { protocol: "connect", system: "connectrpc" },
  REST: { protocol: "rest", system: undefined },
} as const;

describe.each(Object.entries(protocols))("over %s", (lane, { protocol, system }) => {
  const getJob = (headers: Record<string, string>, body: unknown = { jobId: "job-none" }) =>
    lanes[lane as keyof typeof protocols](server, {
      method: `${service}/GetJob`,
      rest: { verb: "GET", path: "/v3/jobs/{jobId}" },
      body,
      headers,
    });

  it("a call is one server span in the trace of its client", async () => {
    const { traceId, parentId, traceparent } = clientSpan();
    await getJob({
      ...admin,
      traceparent,
      tracestate: "vendor=1,other=2",
      "x-request-id": `trace-${protocol}`,
    });
    const span = await spanOf(traceId);
    expect(spansOf(traceId)).toHaveLength(1);
    expect(span).toMatchObject({
      name: protocol === "rest" ? "GET /v3/jobs/{job_id}" : `${service}/GetJob`,
      parentSpanId: parentId,
      traceState: "vendor=1,other=2",
      kind: serverKind,
    });
    expect(span.attributes).toMatchObject({
      "rpc.method": `${service}/GetJob`,
      "rpc.status_code": "NOT_FOUND",
      "error.type": "JOB_NOT_FOUND",
      "portolan.protocol": protocol,
      "portolan.request_id": `trace-${protocol}`,
      "portolan.tenant": "default",
      "server.address": "127.0.0.1",
      "server.port": server.port,
      "client.address": expect.stringContaining("127.0.0.1"),
    });
    expect(span.attributes["rpc.system.name"]).toBe(system);
    // What the caller did wrong is no error of the server.
    expect(span.status.code ?? 0).not.toBe(errorStatus);
  });

  it("the log line of a call names its trace", async () => {
    const { traceId, traceparent } = clientSpan();
    await getJob({ ...admin, traceparent });
    const line = await until(() => logLinesOf(traceId)[0]);
    expect(line).toMatchObject({
      method: `${service}/GetJob`,
      protocol,
      code: "NOT_FOUND",
      reason: "JOB_NOT_FOUND",
    });
  });

  it("a client that does not sample is followed in that", async () => {
    const unsampled = clientSpan("00");
    const sampled = clientSpan();
    await getJob({ ...admin, traceparent: unsampled.traceparent });
    await getJob({ ...admin, traceparent: sampled.traceparent });
    await spanOf(sampled.traceId);
    expect(spansOf(unsampled.traceId)).toEqual([]);
  });

  it("a malformed context begins a trace of its own", async () => {
    const before = collector.spans.length;
    await getJob({
      ...admin,
      traceparent: "00-zz-b7ad6b7169203331-01",
      "x-request-id": `malformed-${protocol}`,
    });
    const span = await until(() =>
      collector.spans
        .slice(before)
        .find(({ attributes }) => attributes["portolan.request_id"] === `malformed-${protocol}`),
    );
    expect(span.traceId).toMatch(/^[0-9a-f]{32}$/);
    expect(span.parentSpanId ?? "").toBe("");
  });

  it("a body that does not decode is a span, too", async () => {
    const { traceId, parentId, traceparent } = clientSpan();
    await lanes[lane as keyof typeof protocols](server, {
      method: `${service}/CreateJob`,
      rest: { verb: "POST", path: "/v3/jobs/create" },
      body: '{"name": ',
      headers: { ...admin, traceparent },
    });
    const span = await spanOf(traceId);
    expect(span.parentSpanId).toBe(parentId);
    expect(span.attributes).toMatchObject({
      "rpc.status_code": "INVALID_ARGUMENT",
      "error.type": "MALFORMED_REQUEST",
    });
  });
});

it("REST spans have the attributes of HTTP, and no path or query", async () => {
  const { traceId, traceparent } = clientSpan();
  const path = "/v3/jobs/job-none?fields=jobId";
  await exchange(server, "GET", "/v3/jobs/job-none", { ...admin, traceparent, "user-agent": "tester/1" });
  const { attributes } = await spanOf(traceId);
  expect(attributes).toMatchObject({
    "http.request.method": "GET",
    "http.route": "/v3/jobs/{job_id}",
    "http.response.status_code": 404,
    "url.scheme": "http",
    "user_agent.original": "tester/1",
  });
  expect(Object.keys(attributes)).not.toContain("url.path");
  expect(JSON.stringify(attributes)).not.toContain(path);
});

it("the response names the span that served it", async () => {
  const { traceId, traceparent } = clientSpan();
  const { headers } = await exchange(server, "GET", "/v3/jobs/job-none", { ...admin, traceparent });
  const span = await spanOf(traceId);
  expect(headers.traceresponse).toBe(`00-${traceId}-${span.spanId}-01`);
});

it("a call that a service makes for another one is a child of it", async () => {
  const { traceId, traceparent } = clientSpan();
  const job = JSON.stringify({ name: "Survey", deviceGroupId: "nowhere" });
  await exchange(
    server,
    "POST",
    "/v3/jobs/create",
    { ...admin, traceparent, "content-type": "application/json" },
    job,
  );
  const outer = await spanOf(traceId);
  const inner = await until(() => spansOf(traceId).find(({ kind }) => kind === internalKind));
  expect(inner).toMatchObject({
    name: "portolan.streams.v1.ResourceService/GetResource",
    parentSpanId: outer.spanId,
  });
});

it("a stream is one span, whatever the number of its messages", async () => {
  const { traceId, traceparent } = clientSpan();
  await createClient(ResourceService, grpcTransport(server.url)).registerResource({
    deviceGroupId: "traced",
    name: "Dock",
  });
  const jobs = createClient(JobService, grpcTransport(server.url));
  const { job } = await jobs.createJob({ name: "Survey", deviceGroupId: "traced" });
  let messages = 0;
  const transport = createGrpcTransport({
    baseUrl: server.url,
    interceptors: [
      (next) => (request) => {
        request.header.set("x-api-key", adminKey);
        request.header.set("traceparent", traceparent);
        return next(request);
      },
    ],
  });
  for await (const _ of createClient(JobService, transport).trackJob({ jobId: job?.jobId ?? "" })) {
    messages += 1;
    if (messages === 2) await jobs.cancelJob({ jobId: job?.jobId ?? "" });
  }
  const span = await spanOf(traceId);
  expect(messages).toBeGreaterThanOrEqual(3);
  expect(spansOf(traceId)).toHaveLength(1);
  expect(span.events).toEqual([]);
  expect(span.attributes).toMatchObject({ "portolan.messages_sent": messages, "rpc.status_code": "OK" });
});

it("the standard variables name the service, its resource and the headers of the export", () => {
  expect(collector.spans[0]?.resource).toMatchObject({
    "service.name": "portolan",
    "deployment.environment.name": "test",
    "telemetry.sdk.language": "nodejs",
  });
  expect(collector.headers[0]).toMatchObject({ "x-collector": "mine", "content-type": "application/json" });
});

describe("another server", () => {
  const run = async (env: Record<string, string>, calls = 1) => {
    const before = collector.spans.length;
    const other = await spawnServer({ OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...env });
    for (let i = 0; i < calls; i++) await exchange(other, "GET", "/v3/jobs", admin);
    const exit = await other.kill("SIGTERM");
    return { exit, spans: collector.spans.slice(before).filter(({ name }) => name === "GET /v3/jobs") };
  };

  it("sends what is waiting when it is told to stop", async () => {
    const { exit, spans } = await run({ OTEL_BSP_SCHEDULE_DELAY: "600000", OTEL_SERVICE_NAME: "edge" }, 5);
    expect(exit.code).toBe(0);
    expect(spans).toHaveLength(5);
    expect(spans[0]?.resource["service.name"]).toBe("edge");
  });

  it.each([
    ["the sampler takes none", { OTEL_TRACES_SAMPLER: "always_off" }],
    ["the ratio is 0", { OTEL_TRACES_SAMPLER: "traceidratio", OTEL_TRACES_SAMPLER_ARG: "0" }],
    ["the SDK is disabled", { OTEL_SDK_DISABLED: "true" }],
    ["the exporter is none", { OTEL_TRACES_EXPORTER: "none" }],
  ])("sends nothing when %s", async (_, env) => {
    expect((await run(env)).spans).toEqual([]);
  });

  it("serves and stops in time when the collector is away", async () => {
    const { exit } = await run({
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9",
      PORTOLAN_LOG_LEVEL: "error",
    });
    expect(exit.code).toBe(0);
  });
});
