import http from "node:http";
import { brotliCompressSync, brotliDecompressSync, gunzipSync, gzipSync } from "node:zlib";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  compressionBrotli,
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
} from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { type Device, startDevice } from "../support/device.ts";
import { adminKey, startTestServer, type TestServer, withKey } from "../support/gateway.ts";

const dock = "connect-dock";
const { createJob, getJob, listJobs, trackJob } = JobService.method;

interface Reply {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

describe("the Connect protocol on the wire", () => {
  let server: TestServer;
  let device: Device;
  let jobId: string;
  // Long enough that a server which compresses at all compresses it.
  const description = "A long description. ".repeat(90);

  beforeAll(async () => {
    server = await startTestServer();
    device = await startDevice(server.grpc(), dock);
    const jobs = createClient(JobService, server.grpc());
    const scheduledAt = { seconds: 4_000_000_000n };
    const { job } = await jobs.createJob({ name: "Survey", description, deviceGroupId: dock, scheduledAt });
    jobId = job?.jobId ?? "";
  });

  afterAll(async () => {
    await device?.stop();
    await server?.stop();
  });

  function exchange(
    method: string,
    path: string,
    headers: Record<string, string>,
    body?: Uint8Array | string,
  ): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const request = http.request(server.url + path, {
        method,
        agent: false,
        headers: { "x-api-key": adminKey, ...headers },
      });
      request.on("error", reject);
      request.on("response", (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks),
          }),
        );
      });
      request.end(body);
    });
  }

  const pathOf = (method: { name: string }) => `/${JobService.typeName}/${method.name}`;
  const jsonType = { "content-type": "application/json", "connect-protocol-version": "1" };
  const protoType = { "content-type": "application/proto", "connect-protocol-version": "1" };

  it("takes and gives JSON", async () => {
    const { status, headers, body } = await exchange(
      "POST",
      pathOf(getJob),
      jsonType,
      JSON.stringify({ jobId }),
    );
    expect(status).toBe(200);
    expect(headers["content-type"]).toBe("application/json");
    expect(JSON.parse(body.toString()).job).toMatchObject({ jobId, status: "JOB_STATE_PENDING" });
  });

  it("takes and gives binary", async () => {
    const request = toBinary(getJob.input, create(getJob.input, { jobId }));
    const { status, headers, body } = await exchange("POST", pathOf(getJob), protoType, request);
    expect(status).toBe(200);
    expect(headers["content-type"]).toBe("application/proto");
    expect(fromBinary(getJob.output, body).job?.jobId).toBe(jobId);
  });

  it("answers GET for an RPC without side effects, in JSON and in binary", async () => {
    const message = encodeURIComponent(JSON.stringify({ jobId }));
    const json = await exchange("GET", `${pathOf(getJob)}?connect=v1&encoding=json&message=${message}`, {});
    expect(json.status).toBe(200);
    expect(JSON.parse(json.body.toString()).job.jobId).toBe(jobId);

    const bytes = Buffer.from(toBinary(getJob.input, create(getJob.input, { jobId })));
    const query = `connect=v1&encoding=proto&base64=1&message=${bytes.toString("base64url")}`;
    const binary = await exchange("GET", `${pathOf(getJob)}?${query}`, {});
    expect(binary.status).toBe(200);
    expect(fromBinary(getJob.output, binary.body).job?.jobId).toBe(jobId);

    const small = gzipSync(bytes).toString("base64url");
    const compressed = await exchange(
      "GET",
      `${pathOf(getJob)}?connect=v1&encoding=proto&compression=gzip&base64=1&message=${small}`,
      {},
    );
    // Who sends a coding can read it: without accept-encoding a large answer comes in the same one.
    expect(compressed.headers["content-encoding"]).toBe("gzip");
    expect(fromBinary(getJob.output, gunzipSync(compressed.body)).job?.jobId).toBe(jobId);
  });

  it("refuses GET for an RPC with side effects", async () => {
    const message = encodeURIComponent(JSON.stringify({ name: "No", deviceGroupId: dock }));
    const path = `${pathOf(createJob)}?connect=v1&encoding=json&message=${message}`;
    expect((await exchange("GET", path, {})).status).toBe(405);
    const list = await exchange("POST", pathOf(listJobs), jsonType, "{}");
    expect(JSON.parse(list.body.toString()).count).toBe(1);
  });

  const codings = [
    ["gzip", gzipSync, gunzipSync],
    ["br", brotliCompressSync, brotliDecompressSync],
  ] as const;

  it.each(codings)("takes and gives %s", async (coding, compress, decompress) => {
    const headers = { ...jsonType, "content-encoding": coding, "accept-encoding": coding };
    const {
      status,
      headers: answered,
      body,
    } = await exchange("POST", pathOf(getJob), headers, compress(JSON.stringify({ jobId })));
    expect(status).toBe(200);
    expect(answered["content-encoding"]).toBe(coding);
    expect(JSON.parse(decompress(body).toString()).job.description).toBe(description);
  });

  it("refuses a coding that it does not know", async () => {
    const headers = { ...jsonType, "content-encoding": "zstd" };
    const { status, body } = await exchange("POST", pathOf(getJob), headers, "{}");
    expect(status).toBe(501);
    expect(JSON.parse(body.toString()).code).toBe("unimplemented");
  });

  it.each(codings)("takes a compressed message in a stream with %s", async (coding, compress) => {
    const data = compress(JSON.stringify({ jobId: "job-none" }));
    const frame = Buffer.alloc(5 + data.length);
    frame[0] = 1;
    frame.writeUInt32BE(data.length, 1);
    frame.set(data, 5);
    const headers = {
      "content-type": "application/connect+json",
      "connect-protocol-version": "1",
      "connect-content-encoding": coding,
    };
    const { status, body } = await exchange("POST", pathOf(trackJob), headers, frame);
    expect(status).toBe(200);
    expect(body[0]).toBe(2);
    expect(JSON.parse(body.subarray(5).toString()).error).toMatchObject({
      code: "not_found",
      message: "Job not found",
    });
  });

  it("refuses a message in the query that is not base64", async () => {
    const path = `${pathOf(JobService.method.getJob)}?connect=v1&encoding=proto&base64=1&message=*`;
    const { status, body } = await exchange("GET", path, {}, Buffer.alloc(0));
    expect(status).toBe(400);
    expect(JSON.parse(body.toString()).details[0].debug.reason).toBe("MALFORMED_REQUEST");
  });

  const compressions = { gzip: compressionGzip, br: compressionBrotli };
  const makers = { Connect: createConnectTransport, gRPC: createGrpcTransport };

  it.each(
    Object.keys(makers).flatMap((protocol) =>
      Object.keys(compressions).map((coding) => [protocol, coding] as const),
    ),
  )("compresses large messages both ways over %s with %s", async (protocol, coding) => {
    const compression = compressions[coding as keyof typeof compressions];
    let answered: string | null = null;
    const transport = makers[protocol as keyof typeof makers]({
      baseUrl: server.url,
      httpVersion: "2",
      acceptCompression: [compression],
      sendCompression: compression,
      interceptors: [
        withKey(adminKey),
        (next) => async (request) => {
          const response = await next(request);
          answered = response.header.get(protocol === "gRPC" ? "grpc-encoding" : "content-encoding");
          return response;
        },
      ],
    });
    const jobs = createClient(JobService, transport);
    const request = { name: "Large", description, deviceGroupId: dock };
    const { job } = await jobs.createJob({ ...request, scheduledAt: { seconds: 4_000_000_000n } });
    expect(job?.description).toBe(description);
    expect(answered).toBe(coding);
    await jobs.deleteJob({ jobId: job?.jobId ?? "" });
  });

  it("ends a stream at the deadline that the client set", async () => {
    const transport = createConnectTransport({
      baseUrl: server.url,
      httpVersion: "1.1",
      interceptors: [withKey(adminKey)],
    });
    const stream = createClient(JobService, transport).trackJob({ jobId }, { timeoutMs: 2500 });
    let messages = 0;
    const failure = (async () => {
      for await (const _ of stream) messages++;
    })().then(() => expect.unreachable(), ConnectError.from);
    expect((await failure).code).toBe(Code.DeadlineExceeded);
    expect(messages).toBeGreaterThan(0);
  });
});
