import http2 from "node:http2";
import net from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { type Listener, listen } from "./listener.ts";

const open: Listener[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((listener) => listener.drain(0)));
});

async function start(): Promise<Listener> {
  const listener = await listen({
    host: "127.0.0.1",
    port: 0,
    handler: (req, res) => {
      req.resume();
      if (req.url === "/quick") res.end();
    },
  });
  open.push(listener);
  return listener;
}

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const type = { data: 0, headers: 1, settings: 4, ping: 6, goaway: 7, windowUpdate: 8, continuation: 9 };

function frame(kind: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = kind;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** A connection that speaks frames, and remembers the code with which the server said good-bye. */
async function raw({ port }: Listener, { reads = true } = {}) {
  const socket = net.connect(port, "127.0.0.1");
  let received: Buffer = Buffer.alloc(0);
  let goaway: number | undefined;
  socket.on("error", () => {});
  if (reads) {
    socket.on("data", (bytes: Buffer) => {
      received = Buffer.concat([received, bytes]);
      while (received.length >= 9) {
        const size = 9 + received.readUIntBE(0, 3);
        if (received.length < size) break;
        if (received[3] === type.goaway) goaway = received.readUInt32BE(13);
        received = received.subarray(size);
      }
    });
  }
  await new Promise((resolve) => socket.once("connect", resolve));
  socket.write(Buffer.concat([PREFACE, frame(type.settings, 0, 0)]));
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  return {
    socket,
    closed,
    goaway: () => goaway,
    /** Writes until the server has had enough. */
    async flood(bytes: Buffer): Promise<void> {
      for (let i = 0; i < 10_000 && !socket.destroyed; i++) {
        if (socket.write(bytes)) await new Promise((resolve) => setImmediate(resolve));
        else {
          await Promise.race([new Promise((resolve) => socket.once("drain", resolve)), closed]);
        }
      }
      await closed;
    },
  };
}

/** Literal header fields without indexing, as HPACK writes them. */
const header = (name: string, value: string) =>
  Buffer.concat([
    Buffer.from([0, name.length]),
    Buffer.from(name),
    Buffer.from([value.length]),
    Buffer.from(value),
  ]);
const get = (path: string) =>
  Buffer.concat([
    header(":method", "GET"),
    header(":scheme", "http"),
    header(":authority", "a"),
    header(":path", path),
  ]);

describe("abuse of HTTP/2", () => {
  test("a connection whose streams are opened only to be reset is told to calm down", async () => {
    const session = http2.connect((await start()).url);
    session.on("error", () => {});
    const goaway = new Promise<number>((resolve) => session.once("goaway", resolve));
    for (let i = 0; i < 1900 && !session.destroyed && !session.closed; i++) {
      const stream = session.request({ ":path": "/" });
      stream.on("error", () => {});
      stream.close(http2.constants.NGHTTP2_CANCEL);
      if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await goaway).toBe(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM);
  });

  test("a connection that is used much is left alone", async () => {
    const session = http2.connect((await start()).url);
    for (let round = 0; round < 20; round++) {
      await Promise.all(
        Array.from({ length: 100 }, async () => {
          const stream = session.request({ ":path": "/quick" });
          stream.resume();
          await new Promise((resolve) => stream.once("close", resolve));
          expect(stream.rstCode).toBe(0);
        }),
      );
    }
    expect(session.closed).toBe(false);
    session.destroy();
  });

  test("hundreds of streams that are cancelled at once are no abuse", async () => {
    const session = http2.connect((await start()).url);
    const streams = Array.from({ length: 800 }, () => session.request({ ":path": "/" }));
    for (const stream of streams) stream.on("error", () => {});
    await new Promise((resolve) => session.ping(resolve));
    for (const stream of streams) stream.close(http2.constants.NGHTTP2_CANCEL);
    await new Promise((resolve) => session.ping(resolve));
    expect(session.closed).toBe(false);
    session.destroy();
  });

  test.each([
    ["pings whose answers nobody reads", frame(type.ping, 0, 0, Buffer.alloc(8)), false],
    ["settings whose acknowledgements nobody reads", frame(type.settings, 0, 0), false],
  ])("%s end the connection", async (_, bytes, reads) => {
    const connection = await raw(await start(), { reads });
    await connection.flood(Buffer.concat(Array.from({ length: 500 }, () => bytes)));
    expect(connection.socket.destroyed).toBe(true);
  });

  test("headers that go on and on end the connection", async () => {
    const connection = await raw(await start());
    connection.socket.write(frame(type.headers, 0x1, 1, get("/quick")));
    await connection.flood(frame(type.continuation, 0, 1, header("x", "y")));
    expect(connection.goaway()).toBeGreaterThan(0);
  });

  test("frames that make us reset streams end the connection", async () => {
    const connection = await raw(await start());
    let id = 1;
    for (let i = 0; i < 4000 && !connection.socket.destroyed; i++, id += 2) {
      const nothing = Buffer.alloc(4);
      connection.socket.write(
        Buffer.concat([frame(type.headers, 0x4, id, get("/")), frame(type.windowUpdate, 0, id, nothing)]),
      );
      if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await connection.closed;
    expect(connection.goaway()).toBeGreaterThan(0);
  });
});
