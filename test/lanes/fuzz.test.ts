import { rmSync } from "node:fs";
import http2 from "node:http2";
import net from "node:net";
import { brotliCompressSync, gzipSync } from "node:zlib";
import type { DescField, DescMethod } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { TokenService } from "#gen/portolan/identity/v1/token_service_pb.js";
import { DispatchService } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { TrackService } from "#gen/portolan/streams/v1/track_service_pb.js";
import { startDevice } from "../support/device.ts";
import { adminKey, get, grpcTransport, type SpawnedServer, spawnServer } from "../support/gateway.ts";
import { frame } from "../support/lanes.ts";
import { random } from "../support/random.ts";

const cases = Number(process.env.PORTOLAN_FUZZ_CASES ?? 1000);

/** Requests that are open at a time. */
const workers = 8;

/** Longer than any stall of a busy machine: what is not answered by then hangs. */
const hangMs = 60_000;

const dock = "fuzz-dock";

/** The HTTP statuses from 500 on that are documented: UNIMPLEMENTED, UNAVAILABLE, and Node's own 505. */
const documentedStatuses = [501, 503, 505];

/** UNKNOWN, INTERNAL and DATA_LOSS tell of a defect of the server. */
const defectCodes = ["2", "13", "15"];
const defectNames = ["unknown", "internal", "data_loss"];

let server: SpawnedServer;

beforeAll(async () => {
  server = await spawnServer();
  const device = await startDevice(grpcTransport(server.url), dock);
  await device.stop();
}, 180_000);

afterAll(async () => {
  await server?.kill();
  if (server) rmSync(server.dataDir, { recursive: true, force: true });
});

/** What a request came to: an answer, or the end of its connection. */
interface Result {
  readonly status?: number;
  readonly grpcStatus?: string;
  readonly text?: string;
}

interface Malformed {
  /** Enough to send it again by hand. */
  readonly about: string;
  send(signal: AbortSignal): Promise<Result>;
}

const methods: DescMethod[] = [
  ApiKeyService,
  TokenService,
  DispatchService,
  JobService,
  ShareService,
  ResourceService,
  TelemetryService,
  TrackService,
].flatMap((service) => service.methods as DescMethod[]);

const restPaths = [
  "/v3/jobs/create",
  "/v3/jobs",
  "/v3/jobs/{}",
  "/v3/jobs/{}/cancel",
  "/v3/jobs/{}/report",
  "/v3/jobs/{}/status/ws",
  "/v3/streams/share",
  "/v3/shares",
  "/v3/shares/{}",
  "/v3/shares/{}/resources",
  "/v3/shares/{}/sessions/{}",
  "/v3/shares/{}/status/ws",
  "/v3/resources",
  "/v3/resources/{}",
  "/v3/devices/{}/telemetry",
  "/v3/devices/{}/replay",
  "/v3/devices/{}/status/ws",
  "/v3/devices/{}/dispatches",
  "/v3/devices/{}/dispatches/{}/acknowledge",
  "/v3/auth/token",
  "/.well-known/jwks.json",
  "/api/v1/api-keys",
  "/api/v1/api-keys/{}",
  "/api/v1/api-keys/{}/usage",
  "/prod",
  "/prod/prod",
  "/readyz",
  "/",
];

it(`${cases} malformed requests on every protocol neither crash nor hang the server nor make it fail`, {
  timeout: 300_000 + cases * 200,
}, async () => {
  const next = random("PORTOLAN_FUZZ_SEED");
  const make = generator(next);
  const failures: string[] = [];
  const tally = new Map<string, number>();
  let begun = 0;
  let dead = false;
  void server.exited.then(() => {
    dead = true;
  });

  await Promise.all(
    Array.from({ length: workers }, async () => {
      while (begun < cases && failures.length < 10 && !dead) {
        const number = begun++;
        const { kind, request } = make();
        const hang = new AbortController();
        const timer = setTimeout(() => hang.abort(new Error("no answer")), hangMs);
        const result = await request.send(hang.signal).catch((error): Result => {
          if (hang.signal.aborted) failures.push(`#${number} ${kind} hangs: ${request.about}`);
          // A connection that the server cuts is an answer to what is no request.
          return { text: String(error) };
        });
        clearTimeout(timer);
        const outcome = result.grpcStatus ? `grpc ${result.grpcStatus}` : (result.status ?? "closed");
        tally.set(`${kind} ${outcome}`, (tally.get(`${kind} ${outcome}`) ?? 0) + 1);
        const fault = faultOf(result);
        if (fault) failures.push(`#${number} ${kind} ${fault}: ${request.about}\n  ${result.text ?? ""}`);
      }
    }),
  );
  console.log(
    [...tally]
      .sort()
      .map(([what, count]) => `${what}: ${count}`)
      .join(", "),
  );

  expect(failures).toEqual([]);
  expect(dead).toBe(false);
  expect((await get(server, "/readyz")).status).toBe(200);
  const transport = grpcTransport(server.url);
  const jobs = createClient(JobService, transport);
  const { job } = await jobs.createJob({ name: "After", deviceGroupId: dock });
  const read = await get(server, `/v3/jobs/${job?.jobId}`);
  expect(read.json.job.name).toBe("After");
  expect(server.stderr()).not.toMatch(/call failed|uncaught|unhandled|TypeError|RangeError/i);
});

function faultOf({ status, grpcStatus, text = "" }: Result): string | undefined {
  if (status !== undefined && status >= 500 && !documentedStatuses.includes(status))
    return `status ${status}`;
  if (grpcStatus && defectCodes.includes(grpcStatus)) return `grpc-status ${grpcStatus}`;
  const [, code] = /"code":"([a-z_]+)"/.exec(text) ?? [];
  if (status !== undefined && code && defectNames.includes(code)) return `code ${code}`;
  const [, trailer] = /grpc-status: ?(\d+)/.exec(text) ?? [];
  if (trailer && defectCodes.includes(trailer)) return `trailer ${trailer}`;
  return undefined;
}

/** Makes malformed requests from random numbers. */
function generator(next: (bound: number) => number) {
  const pick = <T>(options: readonly T[]): T => options[next(options.length)] as T;
  const chance = (percent: number) => next(100) < percent;
  const bytes = (length: number) => Buffer.from(Array.from({ length }, () => next(256)));

  const strings = [
    "",
    dock,
    "job-x",
    "share-x",
    "\u0000",
    "\ud800",
    "\u202e‮",
    "'; DROP TABLE jobs; --",
    "%s%n%00",
    "../../../etc/passwd",
    "__proto__",
    "constructor",
    "NaN",
    "-Infinity",
    "1e400",
    "9223372036854775808",
    "2026-13-45T99:99:99Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "315576000001s",
    "JOB_STATE_PENDING",
    "😀".repeat(70),
    "x".repeat(3000),
  ];
  const numbers = [0, -1, 1, 3, 11, 0.5, -0.0, 1e308, 2 ** 31, 2 ** 53, 2 ** 64, -(2 ** 63), 1e-320];

  function value(depth = 0): unknown {
    switch (next(depth > 4 ? 5 : 8)) {
      case 0:
        return pick(strings);
      case 1:
        return pick(numbers);
      case 2:
        return chance(50);
      case 3:
        return null;
      case 4:
        return pick(["", "Point", 7]);
      case 5:
        return Array.from({ length: next(4) }, () => value(depth + 1));
      default:
        return Object.fromEntries(
          Array.from({ length: next(4) }, () => [
            pick(["type", "coordinates", ...strings]),
            value(depth + 1),
          ]),
        );
    }
  }

  function field(of: DescField): unknown {
    if (chance(25)) return value();
    if (of.message && of.fieldKind === "message") {
      return of.message.typeName.startsWith("portolan.") ? message(of.message.fields) : value();
    }
    if (of.fieldKind === "enum") return chance(50) ? pick(of.enum.values).name : next(20);
    return of.fieldKind === "scalar" && of.scalar === 9 ? pick(strings) : value();
  }

  function message(fields: readonly DescField[]): Record<string, unknown> {
    const entries = fields
      .filter(() => chance(60))
      .map((each) => [chance(70) ? each.jsonName : each.name, field(each)] as const);
    if (chance(10)) entries.push([pick(strings), value()]);
    return Object.fromEntries(entries);
  }

  /** JSON for a method, often broken. */
  function json(method: DescMethod): string {
    const text = JSON.stringify(message(method.input.fields));
    switch (next(10)) {
      case 0:
        return text.slice(0, next(text.length));
      case 1: {
        const at = next(text.length);
        return text.slice(0, at) + String.fromCharCode(next(0x3000)) + text.slice(at);
      }
      case 2:
        return "[".repeat(next(20_000));
      case 3:
        return `${'{"metadata":'.repeat(next(3000))}1`;
      case 4:
        return JSON.stringify(value());
      case 5:
        return text.replace("{", '{"name":1,"name":"twice",');
      case 6:
        return text.replace(/\d+/, "1e999");
      default:
        return text;
    }
  }

  /** Protobuf for a message, as the wire allows it or not. */
  function protobuf(): Buffer {
    const parts: Buffer[] = [];
    for (let i = next(6); i >= 0; i--) {
      const number = chance(90) ? 1 + next(16) : next(2 ** 29);
      const wireType = next(8);
      let tag = number * 8 + wireType;
      const varint: number[] = [];
      for (; tag >= 128; tag = Math.floor(tag / 128)) varint.push((tag % 128) + 128);
      parts.push(Buffer.from([...varint, tag]));
      if (wireType === 2) {
        const data = chance(50) ? Buffer.from(pick(strings)) : bytes(next(20));
        const claimed = chance(80) ? Math.min(data.length, 127) : next(128);
        parts.push(Buffer.from([claimed]), data.subarray(0, 127));
      } else parts.push(bytes(next(12)));
    }
    return Buffer.concat(parts);
  }

  function compressed(data: Buffer): { coding: string; data: Buffer } {
    const coding = pick(["gzip", "br", "identity", "deflate", "zstd", "", "gzip, br", "nonsense"]);
    const honest = chance(60);
    if (honest && coding === "gzip") return { coding, data: gzipSync(data) };
    if (honest && coding === "br") return { coding, data: brotliCompressSync(data) };
    // A small body that unpacks to far more than may be sent.
    if (chance(3)) return { coding: "gzip", data: gzipSync(Buffer.alloc(32 * 1024 * 1024)) };
    return { coding, data };
  }

  /** An envelope, or several, with lengths and flags that need not fit. */
  function frames(data: Buffer): Buffer {
    const one = frame(data, pick([0, 0, 0, 1, 2, 0x80, 0x81, 0xff, next(256)]));
    switch (next(8)) {
      case 0:
        one.writeUInt32BE(next(2 ** 32), 1);
        return one;
      case 1:
        return one.subarray(0, next(one.length));
      case 2:
        return Buffer.concat([one, one]);
      case 3:
        return Buffer.concat([one, bytes(next(8))]);
      case 4:
        return Buffer.alloc(0);
      default:
        return one;
    }
  }

  const headerValue = () =>
    pick([
      "",
      "x",
      "Bearer",
      "Bearer ..",
      "Bearer a.b.c",
      "Basic OmFk",
      "99999999999999999999H",
      "-1m",
      "1n",
      "100m",
      "0",
      "identity;q=5",
      "*/*;q=nan",
      "application/vnd.idi-fly.api-v3+json",
      "a".repeat(500),
      "\u00e9\u00ff",
      "%00",
      Buffer.from(protobuf()).toString("base64"),
    ]);
  const headerName = () =>
    pick([
      "authorization",
      "x-request-id",
      "idempotency-key",
      "accept",
      "accept-encoding",
      "grpc-timeout",
      "connect-timeout-ms",
      "connect-protocol-version",
      "connect-accept-encoding",
      "grpc-accept-encoding",
      "x-bin",
      "traceparent",
      "expect-ct",
      "last-event-id",
      "range",
      "if-match",
      "x-http-method-override",
    ]);

  function headers(base: Record<string, string>): Record<string, string> {
    const made: Record<string, string> = { ...(chance(85) && { "x-api-key": adminKey }), ...base };
    for (let i = next(3); i > 0; i--) made[headerName()] = headerValue();
    return made;
  }

  const segment = () =>
    pick([
      ...strings.filter((each) => each.length < 300).map((each) => encodeURIComponent(each.toWellFormed())),
      "%",
      "%zz",
      "%2f",
      "%2e%2e",
      "a%00b",
      "a:b",
      ";",
      "%ff%fe",
      "a".repeat(2000),
    ]);
  const query = () => {
    const names = [
      "status",
      "limit",
      "pageToken",
      "page_token",
      "token",
      "resourceId",
      "device_group_id",
      "x.y",
    ];
    const pairs = Array.from({ length: next(4) }, () => `${pick([...names, segment()])}=${segment()}`);
    return pairs.length > 0 ? `?${pairs.join(pick(["&", "&&", ";"]))}` : "";
  };

  const show = (data: Uint8Array | string) =>
    typeof data === "string" ? data.slice(0, 300) : Buffer.from(data).subarray(0, 300).toString("base64");

  /** An HTTP/1.1 request that Node's own client might refuse to send. */
  function http1(
    verb: string,
    path: string,
    head: Record<string, string>,
    body: Uint8Array | string,
    streams: boolean,
  ): Malformed {
    const data = Buffer.from(body as string);
    const lines = Object.entries({ host: "localhost", ...head, "content-length": String(data.length) });
    const text = `${verb} ${path} HTTP/1.1\r\n${lines.map(([name, content]) => `${name}: ${content}`).join("\r\n")}\r\nconnection: close\r\n\r\n`;
    return {
      about: `${text.slice(0, 900)}${show(body)}`,
      send: (signal) => raw(Buffer.concat([Buffer.from(text, "latin1"), data]), signal, streams, false),
    };
  }

  function raw(data: Buffer, signal: AbortSignal, streams: boolean, half: boolean): Promise<Result> {
    return new Promise((resolve, reject) => {
      const socket = net.connect(server.port, "127.0.0.1");
      let text = "";
      const done = () => {
        signal.removeEventListener("abort", abort);
        socket.destroy();
        const [, status] = /^HTTP\/1\.1 (\d+)/.exec(text) ?? [];
        const body = text.slice(text.indexOf("\r\n\r\n") + 4);
        const [, grpcStatus] = /^grpc-status: ?(\d+)/im.exec(text) ?? [];
        resolve({ ...(status && { status: Number(status) }), ...(grpcStatus && { grpcStatus }), text: body });
      };
      const abort = () => {
        socket.destroy();
        reject(signal.reason);
      };
      signal.addEventListener("abort", abort);
      socket.on("data", (chunk) => {
        text += chunk.toString("latin1");
        // A stream that was opened has been answered.
        if (streams && /^HTTP\/1\.1 200 /.test(text)) done();
      });
      socket.on("error", done);
      socket.on("close", done);
      socket.write(data);
      if (half) socket.end();
    });
  }

  const streamsOf = (method: DescMethod) => /server_streaming|bidi/.test(method.methodKind);

  const kinds: Record<string, () => Malformed> = {
    REST() {
      const path = pick(restPaths).replaceAll("{}", segment);
      const verb = pick(["GET", "GET", "POST", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE"]);
      const { coding, data } = compressed(Buffer.from(json(pick(methods))));
      const type = pick([
        "application/json",
        "application/json",
        "text/plain",
        "application/json; charset=utf-16",
        "multipart/form-data",
        "",
      ]);
      const head = headers({ "content-type": type, ...(chance(30) && { "content-encoding": coding }) });
      return http1(verb, path + query(), head, chance(20) ? bytes(next(200)) : data, true);
    },

    "Connect unary"() {
      const method = pick(methods);
      const binary = chance(40);
      const body = binary ? protobuf() : Buffer.from(json(method));
      const { coding, data } = compressed(body);
      const head = headers({
        "content-type": binary ? "application/proto" : "application/json",
        ...(chance(30) && { "content-encoding": coding }),
      });
      const sent = "content-encoding" in head ? data : body;
      return http1("POST", `/${method.parent.typeName}/${method.name}`, head, sent, streamsOf(method));
    },

    "Connect GET"() {
      const method = pick(methods);
      const base64 = chance(50);
      const body = chance(50) ? Buffer.from(json(method).slice(0, 2000)) : protobuf();
      const content = base64
        ? body.toString(pick(["base64", "base64url"]))
        : encodeURIComponent(body.toString("latin1"));
      const query = [
        `connect=${pick(["v1", "v1", "v2", ""])}`,
        `encoding=${pick(["json", "proto", "xml", ""])}`,
        `message=${content}`,
        ...(base64 ? ["base64=1"] : []),
        ...(chance(20) ? [`compression=${pick(["gzip", "br", "zstd"])}`] : []),
      ].join("&");
      return http1(
        "GET",
        `/${method.parent.typeName}/${method.name}?${query}`,
        headers({}),
        "",
        streamsOf(method),
      );
    },

    "Connect stream"() {
      const method = pick(methods);
      const binary = chance(40);
      const { coding, data } = compressed(binary ? protobuf() : Buffer.from(json(method)));
      const head = headers({
        "content-type": `application/connect+${binary ? "proto" : "json"}`,
        ...(chance(40) && { "connect-content-encoding": coding }),
      });
      return http1(
        "POST",
        `/${method.parent.typeName}/${method.name}`,
        head,
        frames(data),
        streamsOf(method),
      );
    },

    "gRPC-Web"() {
      const method = pick(methods);
      const binary = chance(60);
      const { coding, data } = compressed(binary ? protobuf() : Buffer.from(json(method)));
      const type = pick([
        "application/grpc-web",
        `application/grpc-web+${binary ? "proto" : "json"}`,
        "application/grpc-web-text",
      ]);
      const head = headers({
        "content-type": type,
        "x-grpc-web": "1",
        ...(chance(40) && { "grpc-encoding": coding }),
      });
      return http1(
        "POST",
        `/${method.parent.typeName}/${method.name}`,
        head,
        frames(data),
        streamsOf(method),
      );
    },

    gRPC() {
      const method = pick(methods);
      const binary = chance(70);
      const { coding, data } = compressed(binary ? protobuf() : Buffer.from(json(method)));
      const body = frames(data);
      const path = chance(90) ? `/${method.parent.typeName}/${method.name}` : `/${segment()}/${segment()}`;
      const head = headers({
        "content-type": pick([
          "application/grpc",
          `application/grpc+${binary ? "proto" : "json"}`,
          "application/grpc+xml",
        ]),
        te: "trailers",
        ...(chance(40) && { "grpc-encoding": coding }),
      });
      const reset = chance(10);
      return {
        about: `${path} ${JSON.stringify(head)} ${show(body)}`,
        send: (signal) => http2Call(path, head, body, signal, streamsOf(method), reset),
      };
    },

    "raw HTTP/1.1"() {
      const lines = [
        pick([
          "GET / HTTP/1.1",
          "POST /v3/jobs/create HTTP/1.1",
          "GET /v3/jobs HTTP/9.9",
          "GET  / HTTP/1.1",
          "PRI * HTTP/1.1",
          "get /",
          `GET /${"a".repeat(next(30_000))} HTTP/1.1`,
          "GET http://[::1/ HTTP/1.1",
          "GET //v3//jobs HTTP/1.1",
          "OPTIONS * HTTP/1.1",
          "CONNECT a:1 HTTP/1.1",
        ]),
        ...Array.from({ length: next(6) }, () =>
          pick([
            "host: localhost",
            "host: a b",
            "host: %",
            `x-api-key: ${adminKey}`,
            "transfer-encoding: chunked",
            "transfer-encoding: gzip, chunked",
            "content-length: 5",
            "content-length: -1",
            "content-length: 5, 6",
            "content-type: application/json",
            "expect: 100-continue",
            "expect: the unexpected",
            "upgrade: h2c",
            "upgrade: websocket",
            "connection: upgrade",
            " folded",
            "no colon",
            "x: \u0000",
            `x: ${"y".repeat(next(20_000))}`,
          ]),
        ),
        "",
        pick(["", "5\r\nhello\r\n0\r\n\r\n", "ffffffffffffffff\r\n", "zz\r\n", "-5\r\n", "{}", "hello"]),
      ];
      const data = chance(15) ? bytes(1 + next(400)) : Buffer.from(lines.join(chance(90) ? "\r\n" : "\n"));
      return { about: show(data), send: (signal) => raw(data, signal, true, true) };
    },

    "raw HTTP/2"() {
      const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
      const settings = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);
      const garbage = Array.from({ length: 1 + next(6) }, () => {
        const payload = bytes(next(60));
        const head = Buffer.alloc(9);
        head.writeUIntBE(chance(80) ? payload.length : next(2 ** 24), 0, 3);
        head[3] = chance(90) ? next(10) : next(256);
        head[4] = next(256);
        head.writeUInt32BE(pick([0, 1, 1, 2, 3, next(2 ** 31)]), 5);
        return Buffer.concat([head, payload]);
      });
      const start = chance(90) ? preface : preface.subarray(0, next(preface.length));
      const data = Buffer.concat([start, ...(chance(80) ? [settings] : []), ...garbage]);
      return { about: show(data), send: (signal) => raw(data, signal, false, true) };
    },
  };

  function http2Call(
    path: string,
    head: Record<string, string>,
    body: Buffer,
    signal: AbortSignal,
    streams: boolean,
    reset: boolean,
  ): Promise<Result> {
    return new Promise((resolve, reject) => {
      const session = http2.connect(server.url);
      const answer: { status?: number; grpcStatus?: string } = {};
      let text = "";
      const done = () => {
        signal.removeEventListener("abort", abort);
        session.destroy();
        resolve({ ...answer, text });
      };
      const abort = () => {
        session.destroy();
        reject(signal.reason);
      };
      signal.addEventListener("abort", abort);
      session.on("error", done);
      const stream = session.request({ ":method": "POST", ":path": path, ...head });
      const read = (received: http2.IncomingHttpHeaders) => {
        if (received[":status"]) answer.status = Number(received[":status"]);
        if (received["grpc-status"]) answer.grpcStatus = String(received["grpc-status"]);
        text += received["grpc-message"] ?? "";
      };
      stream.on("response", read);
      stream.on("trailers", read);
      // A stream that has sent a message has been answered.
      stream.on("data", () => streams && done());
      stream.on("error", done);
      stream.on("close", done);
      if (reset)
        stream.write(body.subarray(0, next(body.length + 1)), () =>
          stream.close(http2.constants.NGHTTP2_CANCEL),
        );
      else stream.end(body);
    });
  }

  const names = Object.keys(kinds);
  let turn = 0;
  return () => {
    const kind = names[turn++ % names.length] as string;
    return { kind, request: (kinds[kind] as () => Malformed)() };
  };
}
