import http from "node:http";
import http2 from "node:http2";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { create, type DescMethod, isMessage, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createContextKey, createContextValues } from "@connectrpc/connect";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { DebugInfoSchema, ErrorInfoSchema, RetryInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { type Dialect, httpStatusOf, Spelling } from "./index.ts";
import { messageOf } from "./testdata/contract.ts";
import { Host, registry } from "./testdata/host.ts";
import { exchangeRaw, type Served, serve } from "./testdata/server.ts";

const host = new Host();
const done: { status: number; method: string | undefined; code: Code | undefined; cause?: unknown }[] = [];
const USER = createContextKey("nobody");
const short: Dialect = {
  enumStyle: "short-lower",
  protoNames: true,
  successStatus: 201,
  envelope: (body, response, method) => ({ ok: body, of: method.name, is: isMessage(response) }),
  errorBody: (error, { httpStatus, requestId }) => ({
    oops: error.rawMessage,
    httpStatus,
    requestId: requestId ?? null,
  }),
  errorStatus: (error) => (error.code === Code.FailedPrecondition ? 422 : undefined),
};
let server: Served;
let dialect: Served;

beforeAll(async () => {
  server = await serve(
    host.transcoder({
      credentialQueryParameters: ["token"],
      contextValues: (req) => createContextValues().set(USER, String(req.headers["x-user"])),
      onDone: ({ status, method, error }) =>
        done.push({
          status,
          method: method?.name,
          code: error?.code,
          ...(error?.cause !== undefined && { cause: error.cause }),
        }),
    }),
  );
  const dialectOf = (method: DescMethod): Dialect =>
    method.name === "Cancel" ? { successStatus: 204 } : short;
  dialect = await serve(host.transcoder({ dialect: dialectOf, unmatchedDialect: () => short }));
});
afterAll(async () => {
  await server.close();
  await dialect.close();
});
afterEach(() => {
  host.respond = undefined;
});

const answers = (error: unknown) => {
  host.respond = () => {
    throw error;
  };
};
const accept = (type: string) => ({ headers: { accept: type } });

describe("unary", () => {
  test("canonical JSON, with what is empty but not what is unset", async () => {
    host.respond = () => ({
      id: "1",
      cargo: "CARGO_TYPE_OIL",
      tons: "9007199254740993",
      place: {},
      extra: { cargo: 1 },
    });
    const { json, headers } = await server.send("GET", "/v1/voyages/1");
    expect(headers["content-type"]).toBe("application/json");
    expect(json).toMatchObject({
      id: "1",
      displayName: "",
      cargo: "CARGO_TYPE_OIL",
      mode: "HTTP_MODE_OFF",
      tons: "9007199254740993",
      stops: [],
      place: { coordinates: [], takes: "CARGO_TYPE_UNSPECIFIED" },
    });
    expect(json).not.toHaveProperty("at");
    expect(json).not.toHaveProperty("rank");
  });

  test("spelled by a dialect, in its envelope, with its status", async () => {
    host.respond = () => ({
      displayName: "x",
      cargo: "CARGO_TYPE_DRY_BULK",
      secondCargo: "CARGO_TYPE_UNSPECIFIED",
      allowed: ["CARGO_TYPE_OIL", "CARGO_TYPE_UNSPECIFIED", 99],
      holds: { a: "CARGO_TYPE_OIL" },
      place: { takes: "CARGO_TYPE_OIL", near: { near: { takes: "CARGO_TYPE_OIL" } } },
      stops: [{ dock: "A" }],
      berths: { 1: { takes: "CARGO_TYPE_OIL" } },
      extra: { cargo: "CARGO_TYPE_OIL" },
      detail: { "@type": "type.googleapis.com/voyages.v1.Place", takes: "CARGO_TYPE_OIL" },
    });
    const { json, status } = await dialect.send("GET", "/v1/voyages/1");
    expect(status).toBe(201);
    expect(json).toMatchObject({ of: "Get", is: true });
    expect(json.ok).toMatchObject({
      display_name: "x",
      cargo: "dry_bulk",
      mode: "off",
      allowed: ["oil", "unspecified", 99],
      holds: { a: "oil" },
      place: { takes: "oil", near: { near: { takes: "oil" } } },
      stops: [{ dock: "A", coordinates: [] }],
      berths: { 1: { takes: "oil" } },
      extra: { cargo: "CARGO_TYPE_OIL" },
      detail: { takes: "CARGO_TYPE_OIL" },
    });
    expect(json.ok).not.toHaveProperty("second_cargo");
    expect(json.ok.stops[0]).not.toHaveProperty("takes");
  });

  test("no content", async () => {
    const answer = await dialect.send("POST", "/v1/voyages/1:cancel");
    expect([answer.status, answer.text]).toEqual([204, ""]);
    expect(answer.headers).not.toHaveProperty("content-type");
  });

  test("a field as the body", async () => {
    host.respond = () => ({ names: ["a", "b"] });
    expect((await server.send("GET", "/v1/voyages:names")).text).toBe('["a","b"]');
  });

  test("headers and trailers of the handler", async () => {
    host.respond = (_, context) => {
      context.responseHeader.set("location", "/v1/voyages/9");
      context.responseHeader.append("set-cookie", "a=1");
      context.responseHeader.append("set-cookie", "b=2");
      context.responseHeader.set("content-length", "1");
      context.responseTrailer.set("x-cost", "3");
      expect(context.values.get(USER)).toBe("ann");
      return {};
    };
    const { headers } = await server.send("GET", "/v1/voyages/1", { headers: { "x-user": "ann" } });
    expect(headers).toMatchObject({ location: "/v1/voyages/9", "x-cost": "3", "set-cookie": ["a=1", "b=2"] });
  });

  test("compressed when it is large and asked for", async () => {
    host.respond = () => ({ note: "x".repeat(5000) });
    const of = (encoding: string) =>
      server.send("GET", "/v1/voyages/1", { headers: { "accept-encoding": encoding } });
    const [br, gzip, none] = [await of("gzip, br"), await of("gzip;q=0.5, br;q=0.1"), await of("br;q=0")];
    expect(JSON.parse(brotliDecompressSync(br.bytes).toString()).note).toHaveLength(5000);
    expect(JSON.parse(gunzipSync(gzip.bytes).toString()).note).toHaveLength(5000);
    expect([br, gzip, none].map((a) => a.headers["content-encoding"])).toEqual(["br", "gzip", undefined]);
    expect([br, gzip, none].map((a) => a.headers.vary)).toEqual(Array(3).fill("Accept-Encoding"));
    host.respond = () => ({});
    expect((await of("gzip")).headers).not.toHaveProperty("content-encoding");
  });
});

describe("methods", () => {
  test("HEAD is GET without the body", async () => {
    host.respond = () => ({ id: "7" });
    const get = await server.send("GET", "/v1/voyages/7");
    const head = await server.send("HEAD", "/v1/voyages/7");
    expect([head.status, head.text, head.headers["content-length"]]).toEqual([
      200,
      "",
      String(get.bytes.length),
    ]);
    const stream = await server.send("HEAD", "/v1/ticks?forever=true");
    expect([stream.status, stream.text]).toEqual([200, ""]);
    expect(host.returned).toBe(true);
    answers(new ConnectError("gone", Code.NotFound));
    expect((await server.send("HEAD", "/v1/voyages/7")).status).toBe(404);
  });

  test("OPTIONS, 405 and 404", async () => {
    const options = await server.send("OPTIONS", "/v1/voyages/7");
    expect([options.status, options.headers.allow]).toEqual([204, "GET, HEAD, OPTIONS, PATCH, PURGE"]);
    const wrong = await server.send("DELETE", "/v1/voyages/7:cancel");
    expect([wrong.status, wrong.headers.allow]).toEqual([405, "OPTIONS, POST"]);
    expect(wrong.json).toMatchObject({ code: 12, message: "DELETE is not a method of /v1/voyages/7:cancel" });
    for (const path of ["/v1/voyages/7/", "/v1//voyages", "/nothing", "/v1/unbound"]) {
      const answer = await server.send("GET", path);
      expect([answer.status, answer.json.code]).toEqual([404, 5]);
    }
    expect((await dialect.send("GET", "/nothing")).json).toEqual({
      oops: "nothing is at /nothing",
      httpStatus: 404,
      requestId: null,
    });
    expect((await server.send("PROPFIND", "/v1/any/7")).status).toBe(200);
  });
});

describe("errors", () => {
  test("the status of every code", () => {
    const codes = Array.from({ length: 16 }, (_, i) => httpStatusOf(new ConnectError("", (i + 1) as Code)));
    expect(codes).toEqual([499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]);
  });

  test("google.rpc.Status with details, Retry-After and headers", async () => {
    const error = new ConnectError("full", Code.ResourceExhausted, { "x-limit": "5" }, [
      { desc: RetryInfoSchema, value: { retryDelay: { seconds: 2n, nanos: 1 } } },
      { desc: ErrorInfoSchema, value: { reason: "FULL", metadata: { a: "b" } } },
    ]);
    error.details.push(
      {
        type: "google.rpc.DebugInfo",
        value: toBinary(DebugInfoSchema, create(DebugInfoSchema, { detail: "d" })),
      },
      { type: "no.Such", value: new Uint8Array([1]) },
    );
    answers(error);
    const answer = await server.send("GET", "/v1/voyages/1");
    expect(answer.status).toBe(429);
    expect(answer.headers).toMatchObject({
      "retry-after": "3",
      "x-limit": "5",
      "content-type": "application/json",
    });
    expect(answer.json).toEqual({
      code: 8,
      message: "full",
      details: [
        { "@type": "type.googleapis.com/google.rpc.RetryInfo", retryDelay: "2.000000001s" },
        { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "FULL", metadata: { a: "b" } },
        { "@type": "type.googleapis.com/google.rpc.DebugInfo", detail: "d" },
        { "@type": "type.googleapis.com/no.Such", value: "AQ==" },
      ],
    });
  });

  test("401 asks for a bearer token, and what is no ConnectError is internal", async () => {
    answers(new ConnectError("who", Code.Unauthenticated));
    expect((await server.send("GET", "/v1/voyages/1")).headers["www-authenticate"]).toBe("Bearer");
  });

  test.each<[string, unknown, number]>([
    ["an error", new Error("SELECT secret"), 13],
    ["no error at all", "SELECT secret", 13],
    ["an abort", new DOMException("secret", "AbortError"), 1],
  ])("what a handler throws that is %s is for the log alone", async (_, thrown, code) => {
    done.length = 0;
    answers(thrown);
    const [answer, stream] = [
      await server.send("GET", "/v1/voyages/1"),
      await server.send("GET", "/v1/ticks"),
    ];
    expect([answer.json.code, stream.json.code]).toEqual([code, code]);
    expect(answer.text + stream.text).not.toContain("secret");
    expect(done.map((d) => d.cause)).toEqual([thrown, thrown]);
  });

  test("in a dialect", async () => {
    answers(new ConnectError("not yet", Code.FailedPrecondition));
    const headers = { "x-request-id": "r1" };
    const answer = await dialect.send("GET", "/v1/voyages/1", { headers });
    expect([answer.status, answer.json]).toEqual([
      422,
      { oops: "not yet", httpStatus: 422, requestId: "r1" },
    ]);
    const streamed = await dialect.send("GET", "/v1/ticks", { headers });
    expect(streamed.status).toBe(422);
    const type = await dialect.send("POST", "/v1/voyages", {
      headers: { "content-type": "text/x" },
      body: "x",
    });
    expect([type.status, type.json.httpStatus]).toEqual([415, 415]);
  });

  test("by the host's own making", async () => {
    const own = await serve(
      host.transcoder({
        error: (kind, message, fields) =>
          new ConnectError(`${kind} | ${message} | ${fields.length}`, Code.OutOfRange),
      }),
    );
    const messages = await Promise.all([
      own.send("GET", "/v1/voyages?x=1"),
      own.send("GET", "/no"),
      own.send("PUT", "/v1/voyages"),
      own.send("POST", "/v1/voyages", { body: "{" }),
      own.send("POST", "/v1/voyages", { body: '{"x":1}' }),
    ]);
    expect(messages.map((m) => `${m.status} ${m.json.message}`)).toEqual([
      "400 unknown-query | unknown query parameter: x | 1",
      "400 not-found | nothing is at /no | 0",
      "405 method-not-allowed | PUT is not a method of /v1/voyages | 0",
      "400 malformed | the body is not valid JSON | 1",
      "400 unknown-field | voyage.x is not a field of Voyage | 1",
    ]);
    await own.close();
  });

  test("every answer is told of", async () => {
    done.length = 0;
    await server.send("GET", "/v1/voyages/1");
    answers(new ConnectError("no", Code.NotFound));
    await server.send("GET", "/v1/voyages/1");
    await server.send("PUT", "/v1/voyages");
    await server.send("GET", "/v1/ticks?count=2&failAt=2").catch(() => {});
    expect(done).toMatchObject([
      { status: 200, method: "Get", code: undefined },
      { status: 404, method: "Get", code: Code.NotFound },
      { status: 405, method: undefined, code: Code.Unimplemented },
      { status: 404, method: "Watch", code: Code.NotFound },
    ]);
  });
});

describe("streams", () => {
  const tick = (i: number) => `{"sequence":"${i * 10}","text":"tick ${i}","cargo":"CARGO_TYPE_OIL"}`;

  test.each([
    [undefined],
    ["*/*"],
    ["application/x-ndjson"],
    ["text/html"],
    ["text/event-stream;q=0.1, application/x-ndjson"],
  ])("lines for Accept %s", async (type) => {
    const answer = await server.send("GET", "/v1/ticks?count=2", type ? accept(type) : {});
    expect(answer.headers).toMatchObject({
      "content-type": "application/x-ndjson",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
    });
    expect(answer.text).toBe(`${tick(1)}\n${tick(2)}\n`);
  });

  test("events, with the sequence as the id", async () => {
    const answer = await server.send("GET", "/v1/ticks?count=2", accept("text/event-stream"));
    expect(answer.headers["content-type"]).toBe("text/event-stream");
    expect(answer.text).toBe(
      `:\n\nid: 10\ndata: ${tick(1)}\n\nid: 20\ndata: ${tick(2)}\n\nevent: end\ndata: {}\n\n`,
    );
  });

  test("events of a field, with a counter as the id", async () => {
    const answer = await server.send("GET", "/v1/ticks/names?count=2", accept("text/event-stream"));
    expect(answer.text).toBe(`:\n\nid: 1\ndata: "v1"\n\nid: 2\ndata: "v2"\n\nevent: end\ndata: {}\n\n`);
  });

  test("an array, also of nothing", async () => {
    const answer = await server.send("GET", "/v1/ticks?count=3", accept("application/json"));
    expect(answer.headers["content-type"]).toBe("application/json");
    expect(answer.json).toEqual([1, 2, 3].map((i) => JSON.parse(tick(i))));
    expect((await server.send("GET", "/v1/ticks", accept("application/json"))).json).toEqual([]);
    expect((await server.send("GET", "/v1/ticks")).text).toBe("");
  });

  test("bytes", async () => {
    const answer = await server.send("GET", "/v1/download?count=3");
    expect([answer.headers["content-type"], answer.text]).toEqual(["text/csv", "1,2,3,"]);
    await expect(server.send("GET", "/v1/download?count=3&failAt=2")).rejects.toThrow();
  });

  const status = '{"code":14,"message":"engine stopped","details":[]}';
  test.each([
    ["application/x-ndjson", `${tick(1)}\n{"error":${status}}\n`],
    ["text/event-stream", `:\n\nid: 10\ndata: ${tick(1)}\n\nevent: error\ndata: ${status}\n\n`],
    ["application/json", `[${tick(1)},\n{"error":${status}}]\n`],
  ])("an error in the middle of %s", async (type, text) => {
    const answer = await server.send("GET", "/v1/ticks?count=3&failAt=2", accept(type));
    expect([answer.status, answer.text]).toEqual([200, text]);
  });

  test("an error before the first message is an answer of its own", async () => {
    const answer = await server.send("GET", "/v1/ticks?count=3&failAt=1", accept("text/event-stream"));
    expect([answer.status, answer.text]).toEqual([503, status]);
    expect((await server.send("GET", "/v1/ticks?count=x", accept("text/event-stream"))).status).toBe(400);
  });

  test("a slow first message does not hold the headers", async () => {
    const started = Date.now();
    const headersAfter = await new Promise<number>((resolve) => {
      http.get(
        { port: server.port, path: "/v1/ticks?count=1&waitMs=20000", ...accept("text/event-stream") },
        (res) => {
          const after = Date.now() - started;
          res.on("end", () => resolve(after)).resume();
        },
      );
    });
    expect(headersAfter).toBeLessThan(18_000);
  });

  test("resumed by the last event id", async () => {
    const resume = async (path: string, id: string) => {
      const answer = await server.send("GET", path, { headers: { "last-event-id": id } });
      return answer.status === 200 ? host.input.afterSequence : answer.status;
    };
    expect(await resume("/v1/ticks", "20")).toBe("20");
    expect(await resume("/v1/ticks?after_sequence=5", "20")).toBe("5");
    expect(await resume("/v1/ticks", "x")).toBe(400);
  });

  test("a credential in the query", async () => {
    const seen = () => host.context?.requestHeader.get("authorization");
    expect((await server.send("GET", "/v1/ticks?count=1&token=s%2B1&size=1")).status).toBe(200);
    expect(seen()).toBe("Bearer s+1");
    expect(host.context?.url).toMatch(/\/v1\/ticks\?count=1&size=1$/);
    await server.send("GET", "/v1/ticks?token=s1", { headers: { authorization: "Bearer s2" } });
    expect(seen()).toBe("Bearer s2");
    expect((await server.send("GET", "/v1/voyages?token=s1")).status).toBe(400);
  });

  test.each(["%00", "a%0D%0Ax:y", "%C3%A9", "a+b"])(
    "a credential %s that no header can hold",
    async (token) => {
      const answer = await server.send("GET", `/v1/ticks?token=${token}`);
      expect([answer.status, answer.json]).toMatchObject([
        400,
        {
          code: 3,
          message: "token is not a bearer token",
          details: [{ fieldViolations: [{ field: "token", description: "is not a bearer token" }] }],
        },
      ]);
    },
  );

  test("a comment keeps a silent stream of events alive, and no other", async () => {
    const lively = await serve(host.transcoder({ keepAliveMs: 10 }));
    const open = (type: string) =>
      new Promise<[http.IncomingMessage, () => string]>((resolve, reject) => {
        const path = "/v1/ticks?count=1&waitMs=60000";
        const req = http.get({ port: lively.port, path, ...accept(type) }, (res) => {
          let text = "";
          res.on("data", (chunk) => {
            text += chunk;
          });
          resolve([res, () => text]);
        });
        req.on("error", reject);
      });
    const [events, textOfEvents] = await open("text/event-stream");
    const [lines, textOfLines] = await open("application/x-ndjson");
    await expect.poll(textOfEvents, { timeout: 20_000 }).toMatch(/^(:\n\n){5}/);
    expect(textOfLines()).toBe("");
    events.destroy();
    lines.destroy();
    await lively.close();
  });

  test("a client that leaves ends the source", async () => {
    done.length = 0;
    const req = http.get({ port: server.port, path: "/v1/ticks?forever=true" }, (res) =>
      res.once("data", () => req.destroy()),
    );
    req.on("error", () => {});
    await expect.poll(() => host.returned && done.length === 1, { timeout: 20_000 }).toBe(true);
    expect(host.context?.signal.aborted).toBe(true);
    expect(done).toEqual([{ status: 499, method: "Watch", code: Code.Canceled }]);
  });

  test("a client that leaves while the source is silent", async () => {
    done.length = 0;
    const req = http.get({ port: server.port, path: "/v1/ticks?waitMs=60000" });
    req.on("error", () => {});
    req.on("response", () => req.destroy());
    await expect.poll(() => host.returned && done.length === 1, { timeout: 20_000 }).toBe(true);
  });

  test("a slow client is waited for", async () => {
    const res = await new Promise<http.IncomingMessage>((resolve) =>
      http.get({ port: server.port, path: "/v1/ticks?forever=true&size=65536" }, resolve),
    );
    res.pause();
    let before = -1;
    while (before !== host.pulled) {
      before = host.pulled;
      await sleep(300);
    }
    expect(before).toBeLessThan(400);
    res.resume();
    await expect.poll(() => host.pulled, { timeout: 20_000 }).toBeGreaterThan(before + 10);
    res.destroy();
  });

  test("a deadline ends the stream", async () => {
    const headers = { "connect-timeout-ms": "200" };
    const answer = await server.send("GET", "/v1/ticks?forever=true", { headers });
    expect(answer.text.trimEnd().split("\n").at(-1)).toContain('{"error":{"code":4');
  });
});

test("over HTTP/2", async () => {
  host.respond = undefined;
  const session = http2.connect(`http://127.0.0.1:${server.http2Port}`);
  const send = (headers: http2.OutgoingHttpHeaders, body?: string) =>
    new Promise<[number | undefined, string]>((resolve, reject) => {
      const stream = session.request(headers, { endStream: body === undefined });
      let status: number | undefined;
      let text = "";
      stream.on("response", (h) => {
        status = h[":status"];
      });
      stream.on("data", (chunk) => {
        text += chunk;
      });
      stream.on("error", reject);
      stream.on("end", () => resolve([status, text]));
      if (body !== undefined) stream.end(body);
    });
  const created = await send({ ":method": "POST", ":path": "/v1/voyages" }, '{"crew":3}');
  expect(created[0]).toBe(200);
  expect(host.input).toEqual({ voyage: { crew: 3 } });
  expect(host.context?.url).toBe(`http://127.0.0.1:${server.http2Port}/v1/voyages`);
  expect([...(host.context?.requestHeader.keys() ?? [])].filter((k) => k.startsWith(":"))).toEqual([]);
  expect(await send({ ":path": "/v1/ticks/names?count=2" })).toEqual([200, '"v1"\n"v2"\n']);
  expect((await send({ ":path": "/no" }))[0]).toBe(404);
  expect((await send({ ":path": "/v1/voyages", ":method": "DELETE" }))[0]).toBe(405);
  expect((await send({ ":path": "/v1/voyages/1", ":method": "HEAD" }))[0]).toBe(200);
  await expect(send({ ":path": "/v1/download?count=3&failAt=2" })).rejects.toThrow();

  const stream = session.request({ ":path": "/v1/ticks?forever=true" });
  stream.once("data", () => stream.close(http2.constants.NGHTTP2_CANCEL));
  stream.on("error", () => {});
  await expect.poll(() => host.returned, { timeout: 20_000 }).toBe(true);
  await expect.poll(() => done.at(-1)?.status, { timeout: 20_000 }).toBe(499);

  session.close();

  const cut = http2.connect(`http://127.0.0.1:${server.http2Port}`);
  const upload = cut.request({ ":path": "/v1/voyages", ":method": "POST" }, { endStream: false });
  upload.on("error", () => {});
  upload.write('{"crew":');
  await sleep(200);
  done.length = 0;
  cut.destroy();
  await expect.poll(() => done, { timeout: 20_000 }).toMatchObject([{ status: 499, method: "Create" }]);
});

test("a client that leaves within its body", async () => {
  done.length = 0;
  for (const coding of ["", "content-encoding: gzip\r\n"]) {
    const socket = net.connect(server.port, "127.0.0.1", () => {
      socket.write(`POST /v1/voyages HTTP/1.1\r\nhost: h\r\n${coding}content-length: 100\r\n\r\n{`);
      setTimeout(() => socket.destroy(), 100);
    });
  }
  const gone = { status: 499, method: "Create", code: Code.Canceled };
  await expect.poll(() => done, { timeout: 20_000 }).toEqual([gone, gone]);
});

test("a connection is used again after a refused body", async () => {
  const body = "x".repeat(100_000);
  const first = `POST /v1/voyages HTTP/1.1\r\nhost: h\r\ncontent-type: text/x\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
  const second = "GET /v1/voyages/1 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
  const answer = await exchangeRaw(server.port, first + second);
  expect(answer.match(/HTTP\/1.1 \d+/g)).toEqual(["HTTP/1.1 415", "HTTP/1.1 200"]);
});

test("a frozen message is encoded once", () => {
  const tick = messageOf(registry, "voyages.v1.Tick");
  const spelling = new Spelling({});
  const frozen = Object.freeze(create(tick, { text: "a" } as Record<string, unknown>));
  const open = create(tick, { text: "a" } as Record<string, unknown>) as { text?: string } & ReturnType<
    typeof create
  >;
  expect(spelling.text(tick, frozen, undefined)).toBe(spelling.text(tick, frozen, undefined));
  spelling.text(tick, open, undefined);
  open.text = "b";
  expect(spelling.text(tick, open, undefined)).toContain('"b"');
});
