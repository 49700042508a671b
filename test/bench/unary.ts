import { create, toBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { HealthCheckRequestSchema } from "#gen/grpc/health/v1/health_pb.js";
import {
  CreateJobRequestSchema,
  GetJobRequestSchema,
  JobService,
} from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { h2load, type Shot, wrk } from "./load.ts";
import { benchKey, type Server, startPeer, startPortolan } from "./process.ts";
import { type Case, race } from "./rates.ts";

const group = "bench-dock";
const key = { "x-api-key": benchKey };
const grpc = { "content-type": "application/grpc", te: "trailers" };

/** A gRPC message in its envelope. */
export function framed(message: Uint8Array): Uint8Array {
  const frame = Buffer.alloc(5 + message.byteLength);
  frame.writeUInt32BE(message.byteLength, 1);
  frame.set(message, 5);
  return frame;
}

/** A client of ours as its administrator. */
export const transport = (server: Server) =>
  createGrpcTransport({
    baseUrl: server.url,
    interceptors: [
      (next) => (request) => {
        request.header.set("x-api-key", benchKey);
        return next(request);
      },
    ],
  });

/** Registers the device group of the bench, and gives a job of it. */
export async function newJob(server: Server): Promise<string> {
  const resources = createClient(ResourceService, transport(server));
  await resources.registerResource({ deviceGroupId: group, name: "Bench" }).catch(() => {});
  const { job } = await createClient(JobService, transport(server)).createJob({
    name: "Bench",
    deviceGroupId: group,
  });
  if (!job) throw new Error("no job");
  return job.jobId;
}

const getJob = async (server: Server): Promise<Shot> => ({
  path: "/portolan.jobs.v1.JobService/GetJob",
  headers: { ...grpc, ...key },
  body: framed(toBinary(GetJobRequestSchema, create(GetJobRequestSchema, { jobId: await newJob(server) }))),
  minBytes: 60,
});

const hello: Shot = {
  path: "/grpc.health.v1.Health/Check",
  headers: grpc,
  body: framed(toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema))),
  minBytes: 7,
};

const peer = (name: string, program: string, work: (server: Server) => ReturnType<typeof h2load>): Case => ({
  name,
  start: () => startPeer(program),
  prepare: async () => work,
});

/** gRPC unary over 8 connections with 16 calls in flight on each. */
export async function benchGrpc(rounds: number, size: number): Promise<void> {
  const volley = { requests: 40_000 * size, connections: 8, streams: 16 };
  const work = (server: Server) => h2load(server, hello, volley);
  await race(
    "gRPC unary",
    [
      {
        name: "Portolan GetJob, whole stack",
        start: startPortolan,
        async prepare(server) {
          const shot = await getJob(server);
          return () => h2load(server, shot, volley);
        },
      },
      peer("bare Connect, hello", "connect", work),
      peer("bare grpc-js, hello", "grpc-js", work),
      peer("raw node:http2, fixed reply", "http2", work),
    ],
    rounds,
  );
}

/** GET of one job as JSON over 64 connections of HTTP/1.1. */
export async function benchRest(rounds: number, size: number): Promise<void> {
  const plain = (server: Server) => wrk(server, { path: "/hello" }, 2 * size);
  await race(
    "REST GET, JSON",
    [
      {
        name: "Portolan GET /v3/jobs/{id}, whole stack",
        start: startPortolan,
        async prepare(server) {
          const path = `/v3/jobs/${await newJob(server)}`;
          return () => wrk(server, { path, headers: key }, 2 * size);
        },
      },
      {
        name: "Fastify with a token, ajv and SQLite",
        start: () => startPeer("fastify"),
        async prepare(server) {
          const token = await (await fetch(`${server.url}/token`)).text();
          const shot = { path: "/v3/jobs/job-1", headers: { authorization: `Bearer ${token}` } };
          return () => wrk(server, shot, 2 * size);
        },
      },
      peer("Fastify bare, hello", "fastify", plain),
      peer("bare node:http, hello", "http", plain),
    ],
    rounds,
  );
}

/** Connect's unary JSON by POST over 64 connections of HTTP/1.1. */
export async function benchConnect(rounds: number, size: number): Promise<void> {
  const volley = { requests: 20_000 * size, connections: 64, streams: 1, http1: true };
  const json = { "content-type": "application/json" };
  await race(
    "Connect unary, JSON",
    [
      {
        name: "Portolan GetJob, whole stack",
        start: startPortolan,
        async prepare(server) {
          const body = Buffer.from(JSON.stringify({ jobId: await newJob(server) }));
          const shot = { path: "/portolan.jobs.v1.JobService/GetJob", headers: { ...json, ...key }, body };
          return () => h2load(server, shot, volley);
        },
      },
      peer("bare Connect, hello", "connect", (server) =>
        h2load(server, { ...hello, headers: json, body: Buffer.from("{}") }, volley),
      ),
    ],
    rounds,
  );
}

/** Jobs created and on disk when they are answered, 64 in flight. */
export async function benchCreate(rounds: number, size: number): Promise<void> {
  const requests = 2_000 * size;
  await race(
    "CreateJob, durable",
    [
      {
        name: "Portolan CreateJob, 64 in flight",
        start: startPortolan,
        async prepare(server) {
          await newJob(server);
          const scheduledAt = { seconds: 4_000_000_000n };
          const request = create(CreateJobRequestSchema, {
            name: "Bench",
            deviceGroupId: group,
            scheduledAt,
          });
          const body = framed(toBinary(CreateJobRequestSchema, request));
          const shot = {
            path: "/portolan.jobs.v1.JobService/CreateJob",
            headers: { ...grpc, ...key },
            body,
            minBytes: 60,
          };
          return () => h2load(server, shot, { requests, connections: 4, streams: 16 });
        },
      },
      {
        name: "raw SQLite, a transaction a row, synchronous=FULL",
        start: () => startPeer("sqlite"),
        async prepare(server) {
          return async () => {
            const before = server.cpu();
            const perSecond = Number(await (await fetch(`${server.url}/?rows=${requests}`)).text());
            return { perSecond, cpuMicros: ((server.cpu() - before) / requests) * 1e6 };
          };
        },
      },
    ],
    rounds,
  );
}
