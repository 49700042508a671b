import http from "node:http";
import http2 from "node:http2";
import { promisify } from "node:util";
import zlib from "node:zlib";
import { create, toBinary, toJsonString } from "@bufbuild/protobuf";
import { type Order, OrderSchema } from "../lanes/testdata/probe.ts";
import { frame } from "./lanes.ts";

const gzip = promisify(zlib.gzip);
const brotli = promisify(zlib.brotliCompress);

/** A way to bring calls of the probe to the wire, written against the specifications. */
export interface Wire {
  readonly name: string;
  readonly http: 1 | 2;
  readonly binary: boolean;
  readonly type: string;
  /** Whether messages stand in envelopes. */
  readonly enveloped: boolean;
  /** By GET, with the message in the query. */
  readonly get?: true;
  /** Kinds of RPC that it carries. */
  readonly kinds: readonly Kind[];
  readonly names: { readonly timeout: string; readonly encoding: string; readonly accept: string };
}

export type Kind = "Echo" | "Watch" | "Gather" | "Talk";

const grpcNames = { timeout: "grpc-timeout", encoding: "grpc-encoding", accept: "grpc-accept-encoding" };
const unaryNames = { timeout: "connect-timeout-ms", encoding: "content-encoding", accept: "accept-encoding" };
const streamNames = {
  timeout: "connect-timeout-ms",
  encoding: "connect-content-encoding",
  accept: "connect-accept-encoding",
};
const all: readonly Kind[] = ["Echo", "Watch", "Gather", "Talk"];

const codecs = [
  ["proto", true],
  ["json", false],
] as const;

/** Every protocol in every codec over every version of HTTP. */
export const wires: readonly Wire[] = codecs.flatMap(([codec, binary]) => [
  {
    name: `gRPC ${codec}`,
    http: 2,
    binary,
    type: `application/grpc+${codec}`,
    enveloped: true,
    kinds: all,
    names: grpcNames,
  },
  ...([1, 2] as const).flatMap((version): Wire[] => [
    {
      name: `gRPC-Web ${codec}, HTTP/${version}`,
      http: version,
      binary,
      type: `application/grpc-web+${codec}`,
      enveloped: true,
      kinds: all,
      names: grpcNames,
    },
    {
      name: `Connect ${codec}, HTTP/${version}`,
      http: version,
      binary,
      type: `application/${codec}`,
      enveloped: false,
      kinds: ["Echo"],
      names: unaryNames,
    },
    {
      name: `Connect GET ${codec}, HTTP/${version}`,
      http: version,
      binary,
      type: "",
      enveloped: false,
      get: true,
      kinds: ["Echo"],
      names: unaryNames,
    },
    {
      name: `Connect stream ${codec}, HTTP/${version}`,
      http: version,
      binary,
      type: `application/connect+${codec}`,
      enveloped: true,
      kinds: ["Watch", "Gather", "Talk"],
      names: streamNames,
    },
  ]),
]);

/** A request as it goes out. */
export interface WireRequest {
  readonly http: 1 | 2;
  readonly verb: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: Buffer;
}

/** An answer as it came in; whatever did not come is missing. */
export interface WireAnswer {
  readonly status: number;
  readonly headers: Record<string, unknown>;
  readonly body: Buffer;
  readonly trailers: Record<string, unknown>;
  /** HTTP/2 error code of a stream that was reset. */
  readonly reset: number;
}

/** A call, in terms that do not depend on the wire. */
export interface Call {
  readonly kind?: Kind;
  readonly method?: string;
  readonly orders?: readonly Order[];
  /** Coding of the request. */
  readonly coding?: string;
  /** Codings that the client accepts. */
  readonly accept?: string;
  /** Milliseconds, or text that goes out as it is. */
  readonly timeout?: number | string;
  readonly headers?: Record<string, string>;
  readonly type?: string | ((type: string) => string | undefined);
  readonly verb?: string;
  readonly path?: (path: string) => string;
  /** Changes the bytes of a message before it is compressed. */
  readonly message?: (bytes: Buffer, binary: boolean) => Buffer;
  /** Changes the bytes of the body. */
  readonly body?: (bytes: Buffer) => Buffer;
  readonly query?: (query: URLSearchParams) => void;
}

const encodeOrder = (order: Order, binary: boolean): Buffer => {
  const message = create(OrderSchema, order as never);
  return Buffer.from(binary ? toBinary(OrderSchema, message) : toJsonString(OrderSchema, message));
};

async function compress(bytes: Buffer, coding: string | undefined): Promise<Buffer> {
  if (coding === "gzip") return gzip(bytes);
  if (coding === "br") return brotli(bytes, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } });
  return bytes;
}

/** The request of a call. */
export async function requestOf(wire: Wire, call: Call): Promise<WireRequest> {
  const { orders = [{}], message = (bytes: Buffer) => bytes, body: change = (bytes: Buffer) => bytes } = call;
  const messages = await Promise.all(
    orders.map((order) => compress(message(encodeOrder(order, wire.binary), wire.binary), call.coding)),
  );
  const flags = call.coding && call.coding !== "identity" ? 1 : 0;
  const plain = wire.enveloped
    ? Buffer.concat(messages.map((one) => frame(one, flags)))
    : Buffer.concat(messages);
  const type = typeof call.type === "function" ? call.type(wire.type) : (call.type ?? wire.type);
  const plainPath = `/probe.v1.ProbeService/${call.method ?? call.kind ?? "Echo"}`;
  const path = call.path?.(plainPath) ?? plainPath;
  const timeout =
    typeof call.timeout === "number" && wire.names === grpcNames
      ? `${call.timeout}m`
      : String(call.timeout ?? "");
  const headers: Record<string, string> = {
    "x-request-id": "differential-1",
    ...(type && { "content-type": type }),
    ...(timeout && { [wire.names.timeout]: timeout }),
    ...(call.accept !== undefined && { [wire.names.accept]: call.accept }),
    ...(call.coding && !wire.get && { [wire.names.encoding]: call.coding }),
    ...(wire.http === 2 && { te: "trailers" }),
    ...call.headers,
  };
  if (!wire.get) {
    return { http: wire.http, verb: call.verb ?? "POST", path, headers, body: change(plain) };
  }
  const query = new URLSearchParams({ connect: "v1", encoding: wire.binary ? "proto" : "json" });
  if (call.coding) query.set("compression", call.coding);
  const base64 = wire.binary || call.coding !== undefined;
  if (base64) query.set("base64", "1");
  const bytes = change(plain);
  query.set("message", base64 ? bytes.toString("base64url") : bytes.toString());
  call.query?.(query);
  return {
    http: wire.http,
    verb: call.verb ?? "GET",
    path: `${path}?${query}`,
    headers,
    body: Buffer.alloc(0),
  };
}

/** A client of one server, which keeps its connections. */
export function createWireClient({ url, port }: { readonly url: string; readonly port: number }) {
  const session = http2.connect(url);
  session.on("error", () => {});
  const kept = new http.Agent({ keepAlive: true });

  function over1({ verb, path, headers, body }: WireRequest): Promise<WireAnswer> {
    // A body that is refused half-way may leave a connection unfit for another request.
    const agent = body.length > 1024 * 1024 ? false : kept;
    return new Promise((resolve, reject) => {
      const request = http.request(
        { host: "127.0.0.1", port, method: verb, path, headers, agent },
        (response) => {
          const chunks: Buffer[] = [];
          response.on("data", (chunk) => chunks.push(chunk));
          response.on("error", reject);
          response.on("end", () =>
            resolve({
              status: response.statusCode ?? 0,
              headers: { ...response.headers },
              body: Buffer.concat(chunks),
              trailers: { ...response.trailers },
              reset: 0,
            }),
          );
        },
      );
      request.on("error", reject);
      if (verb === "POST") request.setHeader("content-length", body.length);
      request.end(body);
    });
  }

  function over2({ verb, path, headers, body }: WireRequest): Promise<WireAnswer> {
    return new Promise((resolve) => {
      const stream = session.request(
        { ":method": verb, ":path": path, ...headers },
        { endStream: body.length === 0 },
      );
      let head: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader = {};
      let trailers: http2.IncomingHttpHeaders = {};
      const chunks: Buffer[] = [];
      stream.on("response", (received) => {
        head = received;
      });
      stream.on("trailers", (received) => {
        trailers = received;
      });
      stream.on("data", (chunk: Buffer) => chunks.push(chunk as Buffer));
      stream.on("error", () => {});
      stream.on("close", () => {
        const { ":status": status = 0, ...rest } = head;
        resolve({
          status,
          headers: { ...rest },
          body: Buffer.concat(chunks),
          trailers: { ...trailers },
          reset: stream.rstCode ?? 0,
        });
      });
      if (body.length > 0) stream.end(body);
    });
  }

  return {
    session,
    send: (request: WireRequest): Promise<WireAnswer> =>
      request.http === 1 ? over1(request) : over2(request),
    close() {
      session.destroy();
      kept.destroy();
    },
  };
}
