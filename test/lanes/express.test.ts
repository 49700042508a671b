import http2 from "node:http2";
import net from "node:net";
import { fromBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fail, reasonOf } from "#kernel/errors.ts";
import { until } from "../support/gateway.ts";
import { exchange, frame } from "../support/lanes.ts";
import { createWireClient, requestOf, type Wire, wires } from "../support/raw-wire.ts";
import { type Order, type Probe, ReportSchema, startProbe } from "./testdata/probe.ts";

const path = "/probe.v1.ProbeService";
const grpc = { ":method": "POST", "content-type": "application/grpc", te: "trailers" };

let probe: Probe;
const sessions: http2.ClientHttp2Session[] = [];
const silentBodyMs = 400;

beforeAll(async () => {
  probe = await startProbe(true, { silentBodyMs });
});

afterAll(async () => {
  for (const session of sessions) session.destroy();
  await probe.listener.drain(0);
});

function connect(settings?: http2.Settings): http2.ClientHttp2Session {
  const session = http2.connect(probe.listener.url, { ...(settings && { settings }) });
  session.on("error", () => {});
  sessions.push(session);
  return session;
}

/** A call that is begun, with its body sent as a whole. */
async function begin(session: http2.ClientHttp2Session, method: string, order: Order, headers = {}) {
  const [wire] = wires as [Wire];
  const { body } = await requestOf(wire, { orders: [order] });
  const stream = session.request({ ...grpc, ":path": `${path}/${method}`, ...headers });
  stream.on("error", () => {});
  stream.end(body);
  return stream;
}

const closed = (stream: http2.ClientHttp2Stream) =>
  new Promise<number>((resolve) => stream.once("close", () => resolve(stream.rstCode ?? 0)));

describe("a client that goes away", () => {
  it.each([
    ["resets the stream", (stream: http2.ClientHttp2Stream) => stream.close(http2.constants.NGHTTP2_CANCEL)],
    ["closes the connection", (stream: http2.ClientHttp2Stream) => stream.session?.destroy()],
  ])("and %s aborts the signal", async (_, leave) => {
    const { ended, begun } = probe.streams;
    const stream = await begin(connect(), "Echo", { wait: true });
    await until(() => probe.streams.begun > begun);
    leave(stream);
    await until(() => probe.streams.ended > ended);
    expect(probe.lastReason()).toMatchObject({ rawMessage: "the client went away" });
  });

  it("ends the iteration of a stream that it was reading", async () => {
    const { ended } = probe.streams;
    const stream = await begin(connect(), "Watch", { count: 1_000_000, size: 1000 });
    await new Promise((resolve) => stream.once("data", resolve));
    stream.close(http2.constants.NGHTTP2_CANCEL);
    await until(() => probe.streams.ended > ended);
    expect(probe.streams.made).toBeLessThan(1_000_000);
  });

  it("over HTTP/1.1 aborts the signal, too", async () => {
    const { ended, begun } = probe.streams;
    const leaving = new AbortController();
    const headers = { "content-type": "application/json" };
    const call = exchange(probe.listener, "POST", `${path}/Echo`, headers, '{"wait":true}', leaving.signal);
    await until(() => probe.streams.begun > begun);
    leaving.abort();
    await expect(call).rejects.toThrow();
    await until(() => probe.streams.ended > ended);
  });
});

describe("flow control", () => {
  it("makes no more messages than a client reads that has stalled", async () => {
    const before = probe.streams.made;
    const session = connect({ initialWindowSize: 65_535 });
    const stream = await begin(session, "Watch", { count: 100_000, size: 10_000 });
    await new Promise((resolve) => stream.once("response", resolve));
    // Nobody reads the stream; other calls on the connection go on.
    for (let calls = 0; calls < 20; calls++) {
      const other = await begin(session, "Echo", { text: "hello" });
      other.resume();
      expect(await closed(other)).toBe(0);
    }
    const stalledAt = probe.streams.made - before - 20;
    expect(stalledAt).toBeGreaterThan(0);
    expect(stalledAt).toBeLessThan(30);
    let bytes = 0;
    stream.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    await until(() => bytes > 5_000_000);
    stream.close(http2.constants.NGHTTP2_CANCEL);
  });
});

describe("a body that falls silent", () => {
  it.each<[string, Buffer, Record<string, string>?]>([
    ["before its first byte", Buffer.alloc(0)],
    ["in the middle of a message", frame("hello").subarray(0, 7)],
    ["after a message that was refused", frame("{\u000f")],
    ["after a refusal of its coding", Buffer.alloc(1), { "grpc-encoding": "zip" }],
  ])("%s is broken off over HTTP/2", async (_, bytes, headers = {}) => {
    const stream = connect().request({ ...grpc, ":path": `${path}/Echo`, ...headers });
    stream.on("error", () => {});
    stream.resume();
    if (bytes.length > 0) stream.write(bytes);
    const code = await closed(stream);
    expect(code).not.toBe(0);
  });

  it("is broken off over HTTP/1.1", async () => {
    const socket = net.connect(probe.listener.port, "127.0.0.1");
    socket.on("error", () => {});
    const head = [
      `POST ${path}/Echo HTTP/1.1`,
      "Host: probe",
      "Content-Type: application/json",
      "Content-Length: 9",
    ];
    socket.write(`${head.join("\r\n")}\r\n\r\n{"te`);
    let answer = "";
    socket.on("data", (bytes) => {
      answer += bytes;
    });
    await new Promise((resolve) => socket.once("close", resolve));
    expect(answer).toBe("");
  });

  it("is left alone as long as something arrives", async () => {
    const [wire] = wires as [Wire];
    const { body } = await requestOf(wire, { orders: [{ text: "slow" }] });
    const stream = connect().request({ ...grpc, ":path": `${path}/Echo` });
    stream.resume();
    for (const byte of body) {
      stream.write(Buffer.from([byte]));
      await new Promise((resolve) => setTimeout(resolve, silentBodyMs / 4));
    }
    stream.end();
    expect(await closed(stream)).toBe(0);
  });

  it("is no reason to end a stream of answers", async () => {
    const { ended } = probe.streams;
    const stream = await begin(connect(), "Watch", { wait: true });
    stream.resume();
    await new Promise((resolve) => setTimeout(resolve, silentBodyMs * 2));
    expect(probe.streams.ended).toBe(ended);
    stream.close();
  });
});

describe("gRPC-Web in Base64", () => {
  const type = { "content-type": "application/grpc-web-text", "x-request-id": "text-1" };
  const decode = (text: string) =>
    Buffer.concat((text.match(/[^=]+=*/g) ?? []).map((part) => Buffer.from(part, "base64")));

  it.each([
    ["in one piece", (bytes: Buffer) => bytes.toString("base64")],
    [
      "in pieces with padding",
      (bytes: Buffer) => [...bytes].map((byte) => Buffer.from([byte]).toString("base64")).join(""),
    ],
  ])("answers in kind a request that was encoded %s", async (_, write) => {
    const [wire] = wires.filter(({ name }) => name === "gRPC-Web proto, HTTP/1") as [Wire];
    const order: Order = { text: "hello", count: 3 };
    const client = createWireClient(probe.listener);
    for (const method of ["Echo", "Watch"] as const) {
      const binary = await client.send(await requestOf(wire, { kind: method, orders: [order] }));
      const request = await requestOf(wire, { kind: method, orders: [order] });
      const text = await exchange(probe.listener, "POST", `${path}/${method}`, type, write(request.body));
      expect(text.headers["content-type"]).toBe("application/grpc-web-text+proto");
      expect(decode(text.body.toString())).toEqual(binary.body);
      const size = binary.body.readUInt32BE(1);
      expect(fromBinary(ReportSchema, binary.body.subarray(5, 5 + size))).toMatchObject({ text: "hello" });
    }
    client.close();
  });

  it("tells failures in kind, too", async () => {
    const failing = await exchange(probe.listener, "POST", `${path}/Echo`, type, "AAAA");
    const trailer = decode(failing.body.toString());
    expect(trailer[0]).toBe(0x80);
    expect(trailer.toString()).toContain("grpc-status: 3");
  });
});

describe("hooks", () => {
  const order = { "content-type": "application/json", "x-request-id": "hooks-1" };
  const echo = `${path}/Echo`;

  it("refuse a call before its body has come, and set headers of every answer", async () => {
    const refusing = await startProbe(true, {
      enter: () => Promise.reject(fail("RESOURCE_BUSY")),
      headers: () => ({ "x-everywhere": "1" }),
    });
    const session = http2.connect(refusing.listener.url);
    const stream = session.request({ ...grpc, ":path": echo });
    stream.resume();
    const [head, trailers] = await Promise.all(
      ["response", "trailers"].map((event) => new Promise<object>((resolve) => stream.once(event, resolve))),
    );
    expect(head).toMatchObject({ ":status": 200, "x-everywhere": "1" });
    expect(trailers).toMatchObject({ "grpc-status": "9" });
    const answer = await exchange(refusing.listener, "POST", echo, order, "{}");
    expect([answer.status, answer.headers["x-everywhere"]]).toEqual([400, "1"]);
    expect(refusing.streams.begun).toBe(0);
    session.destroy();
    await refusing.listener.drain(0);
  });

  it.each([
    ["no body", Buffer.alloc(0), "12"],
    ["a body", frame(Buffer.alloc(0)), "0"],
  ])("let in a call with %s that has come before they decide", async (_, body, status) => {
    const enter = () => new Promise<void>((resolve) => setTimeout(resolve, 20));
    const slow = await startProbe(true, { enter });
    const session = http2.connect(slow.listener.url);
    for (let i = 0; i < 20; i++) {
      const stream = session.request({ ...grpc, ":path": echo });
      stream.resume();
      stream.end(body);
      const trailers = await new Promise<http2.IncomingHttpHeaders>((resolve) =>
        stream.once("trailers", resolve),
      );
      expect(trailers["grpc-status"]).toBe(status);
    }
    const type = { "content-type": "application/grpc-web", "x-request-id": "hooks-2" };
    const { body: told } = await exchange(slow.listener, "POST", echo, type, body);
    expect(told.toString("latin1")).toContain(`grpc-status: ${status}`);
    session.destroy();
    await slow.listener.drain(0);
  });

  it("are told of what was refused before its endpoint was called, and of nothing else", async () => {
    const refused: unknown[] = [];
    const telling = await startProbe(true, {
      refused: (error, { plan }) => refused.push([plan.method.name, reasonOf(error)]),
    });
    await exchange(telling.listener, "POST", echo, order, "{");
    await exchange(telling.listener, "POST", echo, order, '{"fail":"JOB_NOT_FOUND"}');
    await exchange(telling.listener, "POST", echo, order, "{}");
    expect(refused).toEqual([["Echo", "MALFORMED_REQUEST"]]);
    await telling.listener.drain(0);
  });
});
