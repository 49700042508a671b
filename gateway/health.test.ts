import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";
import * as grpc from "@grpc/grpc-js";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  Health,
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as Status,
} from "#gen/grpc/health/v1/health_pb.js";
import { createHealth, type HealthState } from "./health.ts";
import { type Listener, listen } from "./listener.ts";

let health: HealthState;
let listener: Listener;

beforeEach(async () => {
  health = createHealth(["a.A", "b.B"]);
  const handler = connectNodeAdapter({ routes: (router) => void router.service(Health, health.impl) });
  listener = await listen({ host: "127.0.0.1", port: 0, handler });
});
afterEach(() => listener.drain(0));

function client() {
  return createClient(Health, createGrpcTransport({ baseUrl: listener.url }));
}

async function next(statuses: AsyncIterator<{ status: Status }>) {
  const { value, done } = await statuses.next();
  return done ? "end" : Status[value.status];
}

test("checks the server and its services", async () => {
  const { check } = client();
  expect(await check({})).toMatchObject({ status: Status.SERVING });
  health.setServing(false, "a.A");
  expect(await check({ service: "a.A" })).toMatchObject({ status: Status.NOT_SERVING });
  expect(await check({ service: "b.B" })).toMatchObject({ status: Status.SERVING });
  expect(await check({})).toMatchObject({ status: Status.SERVING });
  health.setServing(false);
  expect(await check({ service: "b.B" })).toMatchObject({ status: Status.NOT_SERVING });
  expect(await check({})).toMatchObject({ status: Status.NOT_SERVING });
  const error = await check({ service: "c.C" }).catch(ConnectError.from);
  expect(error).toMatchObject({ code: Code.NotFound });
});

test("lists up to 100 services", async () => {
  const { list } = client();
  health.setServing(false, "b.B");
  const { statuses } = await list({});
  expect(Object.entries(statuses).map(([name, { status }]) => [name, Status[status]])).toEqual([
    ["", "SERVING"],
    ["a.A", "SERVING"],
    ["b.B", "NOT_SERVING"],
  ]);
  for (let i = 0; i < 97; i++) health.setServing(true, `s${i}`);
  expect(Object.keys((await list({})).statuses)).toHaveLength(100);
  health.setServing(true, "one.more");
  expect(await list({}).catch(ConnectError.from)).toMatchObject({ code: Code.ResourceExhausted });
});

test("streams every change, once, until shutdown", async () => {
  const watch = client().watch({ service: "a.A" })[Symbol.asyncIterator]();
  expect(await next(watch)).toBe("SERVING");
  health.setServing(true, "a.A");
  health.setServing(false, "b.B");
  health.setServing(false, "a.A");
  health.setServing(true, "a.A");
  expect(await next(watch)).toBe("NOT_SERVING");
  expect(await next(watch)).toBe("SERVING");
  health.shutdown();
  health.setServing(true);
  expect(await next(watch)).toBe("NOT_SERVING");
  expect(await next(watch)).toBe("end");
  expect(await client().check({ service: "a.A" })).toMatchObject({ status: Status.NOT_SERVING });
  // Who comes late is told the same.
  const late = client().watch({})[Symbol.asyncIterator]();
  expect([await next(late), await next(late)]).toEqual(["NOT_SERVING", "end"]);
});

test("watches a service that is not known yet", async () => {
  const watch = client().watch({ service: "c.C" })[Symbol.asyncIterator]();
  expect(await next(watch)).toBe("SERVICE_UNKNOWN");
  health.setServing(true, "c.C");
  expect(await next(watch)).toBe("SERVING");
  health.shutdown();
  expect(await next(watch)).toBe("NOT_SERVING");
  expect(await next(watch)).toBe("end");
});

test("shutdown and drain end the watches of clients that stay", async () => {
  const watch = client().watch({})[Symbol.asyncIterator]();
  expect(await next(watch)).toBe("SERVING");
  health.shutdown();
  await Promise.all([
    listener.drain(20_000),
    expect(next(watch))
      .resolves.toBe("NOT_SERVING")
      .then(() => next(watch)),
  ]);
});

test("lets go of a watch whose client left", async () => {
  const abort = new AbortController();
  const watch = health.impl
    .watch(create(HealthCheckRequestSchema), {
      signal: abort.signal,
    } as Parameters<typeof health.impl.watch>[1])
    [Symbol.asyncIterator]();
  expect((await watch.next()).value).toEqual({ status: Status.SERVING });
  const waiting = watch.next();
  abort.abort();
  expect(await waiting).toMatchObject({ done: true });
});

test("answers @grpc/grpc-js", async () => {
  const grpcClient = new grpc.Client(`127.0.0.1:${listener.port}`, grpc.credentials.createInsecure());
  const codec = <D extends DescMessage>(desc: D) => ({
    write: (message: MessageShape<D>) => Buffer.from(toBinary(desc, message)),
    read: (bytes: Buffer) => fromBinary(desc, bytes),
  });
  const { write } = codec(HealthCheckRequestSchema);
  const { read } = codec(HealthCheckResponseSchema);
  const check = (service: string) =>
    new Promise<unknown>((resolve) => {
      const request = create(HealthCheckRequestSchema, { service });
      grpcClient.makeUnaryRequest("/grpc.health.v1.Health/Check", write, read, request, (error, answer) =>
        resolve(error?.code ?? answer?.status),
      );
    });
  expect(await check("a.A")).toBe(Status.SERVING);
  expect(await check("c.C")).toBe(grpc.status.NOT_FOUND);

  const request = create(HealthCheckRequestSchema, { service: "a.A" });
  const watch = grpcClient.makeServerStreamRequest("/grpc.health.v1.Health/Watch", write, read, request);
  const seen: string[] = [];
  for await (const { status } of watch as AsyncIterable<{ status: Status }>) {
    seen.push(String(Status[status]));
    if (seen.length === 1) health.shutdown();
  }
  expect(seen).toEqual(["SERVING", "NOT_SERVING"]);
  grpcClient.close();
});
