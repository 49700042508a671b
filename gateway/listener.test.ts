import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import http2, {
  type ClientHttp2Session,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type SecureClientSessionOptions,
} from "node:http2";
import https from "node:https";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { type Listener, type ListenerOptions, listen } from "./listener.ts";

type Req = IncomingMessage | Http2ServerRequest;
type Res = ServerResponse | Http2ServerResponse;

const open: Listener[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((listener) => listener.drain(0)));
});

/** Answers with the protocol and the length of the body; /hold waits until `release` is called. */
async function start(options: Partial<ListenerOptions> = {}) {
  const held: (() => void)[] = [];
  const arrivals: (() => void)[] = [];
  let waiting = 0;
  const handler = (req: Req, res: Res) => {
    let length = 0;
    req.on("data", (chunk) => {
      length += chunk.length;
    });
    req.on("end", () => {
      const finish = () => res.end(`${req.httpVersion} ${length}`);
      if (req.url !== "/hold") return finish();
      held.push(finish);
      waiting++;
      for (const arrived of arrivals.splice(0)) arrived();
    });
  };
  const listener = await listen({ host: "127.0.0.1", port: 0, handler, ...options });
  open.push(listener);
  return {
    listener,
    release: () => {
      for (const finish of held.splice(0)) finish();
    },
    arrived: async (count: number) => {
      while (waiting < count) await new Promise<void>((resolve) => arrivals.push(resolve));
    },
  };
}

function get1(url: string, options: https.RequestOptions = {}, body?: Buffer) {
  return new Promise<{ status: number; headers: http.IncomingHttpHeaders; text: string }>(
    (resolve, reject) => {
      const request = (url.startsWith("https") ? https : http).request(url, options, (res) => {
        let text = "";
        res.on("data", (chunk) => {
          text += chunk;
        });
        res.on("end", () => resolve({ status: res.statusCode ?? 0, headers: res.headers, text }));
        res.on("error", reject);
      });
      request.on("error", reject);
      request.end(body);
    },
  );
}

function get2(session: ClientHttp2Session, path: string, body?: Buffer) {
  return new Promise<{ status: number; text: string }>((resolve, reject) => {
    const stream = session.request({ ":path": path, ":method": body ? "POST" : "GET" });
    let status = 0;
    let text = "";
    stream.on("response", (headers) => {
      status = headers[":status"] ?? 0;
    });
    stream.on("data", (chunk) => {
      text += chunk;
    });
    stream.on("end", () => resolve({ status, text }));
    stream.on("error", reject);
    stream.end(body);
  });
}

function connect2(url: string, options: SecureClientSessionOptions = {}) {
  const session = http2.connect(url, options);
  session.on("error", () => {});
  return session;
}

/** Sends raw bytes and returns all that comes back until the server closes. */
function raw(port: number, send: (socket: net.Socket) => void | Promise<void>): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: "127.0.0.1", noDelay: true });
    let text = "";
    socket.setEncoding("latin1");
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(text));
    socket.on("connect", () => Promise.resolve(send(socket)).catch(reject));
  });
}

async function trickle(socket: net.Socket, bytes: Buffer | string) {
  for (const byte of Buffer.from(bytes)) {
    socket.write(Buffer.of(byte));
    await sleep(2);
  }
}

describe("cleartext", () => {
  test("serves HTTP/1.1 and HTTP/2 on one port", async () => {
    const { listener } = await start();
    expect(listener.url).toBe(`http://127.0.0.1:${listener.port}`);
    expect(await get1(listener.url)).toMatchObject({ status: 200, text: "1.1 0" });
    const session = connect2(listener.url);
    expect(await Promise.all([get2(session, "/"), get2(session, "/")])).toEqual([
      { status: 200, text: "2.0 0" },
      { status: 200, text: "2.0 0" },
    ]);
    expect(session.remoteSettings).toMatchObject({
      maxConcurrentStreams: 1000,
      initialWindowSize: 256 * 1024,
    });
    session.close();
  });

  test("loses no bytes of large bodies", async () => {
    const { listener } = await start();
    const body = Buffer.alloc(3_000_000, "x");
    const agent = new http.Agent({ keepAlive: true });
    for (let i = 0; i < 3; i++) {
      const answer = await get1(listener.url, { method: "POST", agent }, body);
      expect(answer.text).toBe("1.1 3000000");
    }
    agent.destroy();
    const session = connect2(listener.url);
    expect((await get2(session, "/", body)).text).toBe("2.0 3000000");
    session.close();
  });

  test("tells the protocols apart when bytes arrive one by one", async () => {
    const { listener } = await start();
    const answer = await raw(listener.port, (socket) =>
      trickle(socket, "PROPFIND / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    );
    expect(answer).toMatch(/^HTTP\/1.1 200 OK/);

    // A relay slows down a real HTTP/2 client.
    const relay = net.createServer({ noDelay: true }, (client) => {
      const upstream = net.connect({ port: listener.port, host: "127.0.0.1", noDelay: true });
      for (const socket of [client, upstream]) socket.on("error", () => {});
      upstream.pipe(client);
      client.on("end", () => upstream.end());
      let sending = Promise.resolve();
      client.on("data", (chunk) => {
        sending = sending.then(() => trickle(upstream, chunk));
      });
    });
    await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", resolve));
    const session = connect2(`http://127.0.0.1:${(relay.address() as net.AddressInfo).port}`);
    expect(await get2(session, "/")).toEqual({ status: 200, text: "2.0 0" });
    session.close();
    relay.close();
  });

  test("answers a client that closed its half", async () => {
    const { listener } = await start();
    const answer = await raw(listener.port, (socket) => {
      socket.end("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    });
    expect(answer).toMatch(/1\.1 0/);
  });

  test("closes what begins like HTTP/2 and ends", async () => {
    const { listener } = await start();
    expect(await raw(listener.port, (socket) => void socket.end("PRI * HT"))).toBe("");
  });

  test("closes connections that are silent or whose headers never end", async () => {
    const { listener } = await start();
    const began = Date.now();
    const silent = raw(listener.port, () => {}).then((text) => [text, Date.now() - began] as const);
    const slow = raw(listener.port, (socket) => void socket.write("GET / HTTP/1.1\r\nHost: "));
    const [text, took] = await silent;
    expect(text).toBe("");
    expect(took).toBeGreaterThan(9_000);
    expect(await slow).toMatch(/^HTTP\/1.1 408 /);
  });

  test.each([
    ["garbage", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello", 400],
    ["a bad header", "GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400],
    ["headers too large", `GET / HTTP/1.1\r\nHost: x\r\nx: ${"y".repeat(20_000)}\r\n\r\n`, 431],
  ])("answers %s with JSON and closes", async (_, bytes, status) => {
    const { listener } = await start();
    const answer = await raw(listener.port, (socket) => void socket.write(bytes, "latin1"));
    const [head = "", body = ""] = answer.split("\r\n\r\n");
    expect(head).toContain(`HTTP/1.1 ${status} `);
    expect(JSON.parse(body)).toEqual({ error: "MALFORMED_REQUEST", message: expect.any(String) });
    expect((await get1(listener.url)).status).toBe(200);
  });

  test("bounds the headers as told, in both protocols", async () => {
    const { listener } = await start({ maxHeaderBytes: 2_000 });
    const headers = { large: "x".repeat(4_000) };
    expect((await get1(listener.url, { headers })).status).toBe(431);
    const session = connect2(listener.url);
    const send = (path: string) =>
      new Promise<unknown>((resolve) => {
        const stream = session.request({ ":path": path, ...headers });
        stream.on("response", (answer) => resolve(answer[":status"]));
        stream.on("error", () => resolve("reset"));
      });
    // The first request is under way before the client knows the limit.
    expect(await send("/")).toBe(431);
    expect((await get2(session, "/")).status).toBe(200);
    expect(await send("/")).toBe("reset");
    expect((await get2(session, "/")).status).toBe(200);
    session.close();
  });

  test("survives broken HTTP/2 and resets", async () => {
    const { listener } = await start();
    const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    await raw(listener.port, (socket) => void socket.end(`${preface}not a frame at all, not at all`));
    await raw(listener.port, (socket) => void socket.write(preface, () => socket.resetAndDestroy()));
    await raw(listener.port, (socket) => void socket.resetAndDestroy());
    await raw(
      listener.port,
      (socket) =>
        void socket.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", () => {
          setTimeout(() => socket.resetAndDestroy(), 50);
        }),
    );
    expect((await get1(listener.url)).status).toBe(200);
  });

  test("answers for a handler that throws or rejects", async () => {
    const { listener } = await start({
      handler: (req) => {
        if (req.url === "/url") new URL("/", "http://a b");
        if (req.url === "/host") throw new Error("no host");
        if (req.url === "/sync") throw new Error("sync");
        return Promise.reject(new Error("async"));
      },
    });
    expect(await get1(`${listener.url}/url`)).toMatchObject({ status: 400 });
    const hostless = await raw(listener.port, (socket) => void socket.write("GET /host HTTP/1.0\r\n\r\n"));
    expect(hostless).toMatch(/^HTTP\/1.1 400 /);
    expect(await get1(`${listener.url}/sync`)).toMatchObject({ status: 500 });
    const session = connect2(listener.url);
    expect(await get2(session, "/async")).toMatchObject({ status: 500 });
    session.close();
  });

  test("hands over WebSocket upgrades only", async () => {
    const { listener } = await start({
      onUpgrade: (_req, socket) => {
        socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        socket.on("data", (chunk) => socket.end(chunk));
      },
    });
    const upgrade = (protocol: string) =>
      `GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`;
    const echoed = await raw(listener.port, (socket) => {
      socket.write(upgrade("websocket"));
      socket.once("data", () => socket.end("ping"));
    });
    expect(echoed).toMatch(/^HTTP\/1.1 101 .*\r\n\r\nping$/s);
    expect(await raw(listener.port, (socket) => void socket.end(upgrade("h2c")))).toMatch(/^HTTP\/1.1 200 /);
  });

  test("rejects when the port is taken", async () => {
    const { listener } = await start();
    await expect(start({ port: listener.port })).rejects.toThrow(/EADDRINUSE/);
  });
});

describe("drain", () => {
  test("lets requests in flight end and closes the rest", async () => {
    const { listener, release, arrived } = await start();
    const agent = new http.Agent({ keepAlive: true });
    await get1(listener.url, { agent });
    const session = connect2(listener.url);
    const idle = connect2(listener.url);
    await get2(idle, "/");
    const undecided = raw(listener.port, () => {});
    const held = [get1(`${listener.url}/hold`), get2(session, "/hold")] as const;
    await arrived(2);

    let done = false;
    const drained = listener.drain(20_000).then(() => {
      done = true;
    });
    expect(await undecided).toBe("");
    await expect(get1(listener.url)).rejects.toThrow(/ECONNREFUSED|ECONNRESET/);
    await new Promise<void>((resolve) => (idle.closed ? resolve() : idle.once("close", resolve)));
    expect(done).toBe(false);
    release();
    const [first, second] = await Promise.all(held);
    expect(first).toMatchObject({ status: 200, headers: { connection: "close" } });
    expect(second).toEqual({ status: 200, text: "2.0 0" });
    await drained;
    agent.destroy();
  });

  test("destroys what outlives the grace", async () => {
    const { listener, arrived } = await start();
    const session = connect2(listener.url);
    const held = [get1(`${listener.url}/hold`), get2(session, "/hold")].map((answer) =>
      answer.then(
        ({ text }) => text,
        () => "",
      ),
    );
    await arrived(2);
    const began = Date.now();
    await Promise.all([listener.drain(300), listener.drain(300)]);
    expect(Date.now() - began).toBeGreaterThanOrEqual(290);
    expect(await Promise.all(held)).toEqual(["", ""]);
  });

  test("closes a kept-alive connection whose headers were sent before", async () => {
    const begun = Promise.withResolvers<Res>();
    const { listener } = await start({
      handler: (_req, res) => {
        (res as ServerResponse).write("a");
        begun.resolve(res);
      },
    });
    const agent = new http.Agent({ keepAlive: true });
    const answer = get1(listener.url, { agent });
    const res = await begun.promise;
    const drained = listener.drain(20_000);
    await sleep(20);
    res.end("b");
    expect((await answer).text).toBe("ab");
    await drained;
    agent.destroy();
  });
});

function certificate(): { key: Buffer; cert: Buffer } | undefined {
  const directory = mkdtempSync(join(tmpdir(), "listener-"));
  const [key, cert] = [join(directory, "key.pem"), join(directory, "cert.pem")];
  try {
    execFileSync(
      "openssl",
      ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"].concat([
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        key,
        "-out",
        cert,
      ]),
      { stdio: "pipe" },
    );
    return { key: readFileSync(key), cert: readFileSync(cert) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const tls = certificate();
describe.skipIf(!tls)(`TLS${tls ? "" : " (skipped: openssl is missing)"}`, () => {
  const ca = tls?.cert;

  test("serves both protocols by ALPN", async () => {
    const { listener } = await start({ tls });
    expect(listener.url).toMatch(/^https:/);
    expect(await get1(listener.url, { ca })).toMatchObject({ status: 200, text: "1.1 0" });
    const session = connect2(listener.url, { ca });
    expect(await get2(session, "/")).toEqual({ status: 200, text: "2.0 0" });
    session.close();
  });

  test("survives cleartext and malformed input", async () => {
    const { listener } = await start({ tls });
    await raw(listener.port, (socket) => void socket.end("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    await raw(listener.port, (socket) => void socket.resetAndDestroy());
    const headers = { large: "x".repeat(20_000) };
    expect((await get1(listener.url, { ca, headers })).status).toBe(431);
    expect((await get1(listener.url, { ca })).status).toBe(200);
  });

  test("drains", async () => {
    const { listener, release, arrived } = await start({ tls });
    const agent = new https.Agent({ keepAlive: true, ca });
    await get1(listener.url, { agent });
    const session = connect2(listener.url, { ca });
    const held = [get1(`${listener.url}/hold`, { ca }), get2(session, "/hold")] as const;
    await arrived(2);
    const drained = listener.drain(20_000);
    release();
    const [first, second] = await Promise.all(held);
    expect(first).toMatchObject({ status: 200, headers: { connection: "close" } });
    expect(second.status).toBe(200);
    await drained;
    agent.destroy();
  });

  test("destroys what outlives the grace", async () => {
    const { listener, arrived } = await start({ tls });
    const session = connect2(listener.url, { ca });
    const held = [get1(`${listener.url}/hold`, { ca }), get2(session, "/hold")].map((answer) =>
      answer.then(
        ({ text }) => text,
        () => "",
      ),
    );
    const silent = raw(listener.port, () => {});
    await arrived(2);
    await listener.drain(300);
    expect(await Promise.all([...held, silent])).toEqual(["", "", ""]);
  });
});
