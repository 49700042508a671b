import http from "node:http";
import http2 from "node:http2";
import { fromBinary } from "@bufbuild/protobuf";
import { BadRequestSchema, ErrorInfoSchema, RequestInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "#gen/google/rpc/status_pb.js";
import type { TestAddress } from "./gateway.ts";

/** What a lane said about a call, in terms that all lanes share. */
export interface Outcome {
  /** Name of the status code, such as `NOT_FOUND`; empty where a lane has none. */
  readonly code: string;
  readonly httpStatus: number;
  readonly message: string;
  readonly reason: string;
  readonly domain: string;
  readonly metadata: Record<string, string>;
  /** Paths of the fields in BadRequest. */
  readonly fields: string[];
  readonly requestId: string;
  /** The headers of the response. */
  readonly headers: http.IncomingHttpHeaders;
}

/** One RPC with a JSON request, whichever lane it takes. */
export interface Attempt {
  /** `package.Service/Method`. */
  readonly method: string;
  /** The same over REST; in the path, fields of the body may stand as `{jobId}`. */
  readonly rest: { readonly verb: string; readonly path: string };
  /** A value, or text that goes out as it is. */
  readonly body: unknown;
  readonly headers: Record<string, string>;
}

/** Names of the status codes, each at its number. */
export const codes = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
];

type Details = Pick<Outcome, "reason" | "domain" | "metadata" | "fields" | "requestId">;

function readDetails(details: { type: string; value: Uint8Array }[]): Details {
  const of = (name: string) => details.find(({ type }) => type === `google.rpc.${name}`)?.value;
  const [info, bad, request] = [of("ErrorInfo"), of("BadRequest"), of("RequestInfo")];
  const { reason, domain, metadata } = fromBinary(ErrorInfoSchema, info ?? new Uint8Array());
  return {
    reason,
    domain,
    metadata,
    fields: fromBinary(BadRequestSchema, bad ?? new Uint8Array()).fieldViolations.map(({ field }) => field),
    requestId: fromBinary(RequestInfoSchema, request ?? new Uint8Array()).requestId,
  };
}

function readStatus(
  trailer: Record<string, unknown>,
  httpStatus: number,
  headers: http.IncomingHttpHeaders,
): Outcome {
  const bytes = Buffer.from(String(trailer["grpc-status-details-bin"] ?? ""), "base64");
  const status = fromBinary(StatusSchema, bytes);
  const details = status.details.map(({ typeUrl, value }) => ({
    type: typeUrl.replace("type.googleapis.com/", ""),
    value,
  }));
  return {
    code: codes[Number(trailer["grpc-status"])] ?? "",
    httpStatus,
    message: decodeURIComponent(String(trailer["grpc-message"] ?? "")),
    headers,
    ...readDetails(details),
  };
}

const text = (body: unknown): string => (typeof body === "string" ? body : JSON.stringify(body));

/** A message in the envelope of gRPC, gRPC-Web and Connect streams. */
export function frame(data: Uint8Array | string, flags = 0): Buffer {
  const bytes = Buffer.from(data as string);
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

/** A raw HTTP/1.1 answer. */
export interface RawAnswer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Sends one HTTP/1.1 request on a connection of its own. */
export function exchange(
  { port }: TestAddress,
  method: string,
  path: string,
  headers: http.OutgoingHttpHeaders,
  body?: Uint8Array | string,
  signal?: AbortSignal,
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const request = http.request({
      host: "127.0.0.1",
      port,
      method,
      path,
      headers,
      agent: false,
      ...(signal && { signal }),
    });
    let answered = false;
    // A server that has refused a body need not read the rest of it.
    request.on("error", (error) => answered || reject(error));
    request.on("response", (response) => {
      answered = true;
      const chunks: Buffer[] = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
      );
    });
    request.end(body);
  });
}

async function grpc({ url }: TestAddress, { method, body, headers }: Attempt): Promise<Outcome> {
  const session = http2.connect(url);
  try {
    return await new Promise<Outcome>((resolve, reject) => {
      session.on("error", reject);
      const stream = session.request({
        ":method": "POST",
        ":path": `/${method}`,
        "content-type": "application/grpc+json",
        te: "trailers",
        ...headers,
      });
      let head: http2.IncomingHttpHeaders = {};
      let trailer: http2.IncomingHttpHeaders = {};
      stream.on("response", (received) => {
        head = received;
      });
      stream.on("trailers", (received) => {
        trailer = received;
      });
      stream.on("error", reject);
      stream.on("close", () => resolve(readStatus({ ...head, ...trailer }, Number(head[":status"]), head)));
      stream.resume();
      stream.end(frame(text(body)));
    });
  } finally {
    session.destroy();
  }
}

async function grpcWeb(server: TestAddress, { method, body, headers }: Attempt): Promise<Outcome> {
  const type = { "content-type": "application/grpc-web+json", ...headers };
  const answer = await exchange(server, "POST", `/${method}`, type, frame(text(body)));
  if (answer.headers["grpc-status"]) return readStatus(answer.headers, answer.status, answer.headers);
  let { body: rest } = answer;
  while (rest.length > 5 && ((rest[0] ?? 0) & 0x80) === 0) rest = rest.subarray(5 + rest.readUInt32BE(1));
  const lines = rest.subarray(5).toString().split("\r\n");
  const pairs = lines.map((line) => [
    line.slice(0, line.indexOf(":")).toLowerCase(),
    line.slice(line.indexOf(":") + 1).trim(),
  ]);
  return readStatus(Object.fromEntries(pairs), answer.status, answer.headers);
}

async function connect(server: TestAddress, { method, body, headers }: Attempt): Promise<Outcome> {
  const type = { "content-type": "application/json", "connect-protocol-version": "1", ...headers };
  const {
    status,
    headers: told,
    body: bytes,
  } = await exchange(server, "POST", `/${method}`, type, text(body));
  const { code = "ok", message = "", details = [] } = JSON.parse(bytes.toString());
  const values = details.map(({ type: name, value }: { type: string; value: string }) => ({
    type: name,
    value: Buffer.from(value, "base64"),
  }));
  // Connect spells this one code in the American way.
  const name = String(code).toUpperCase().replace("CANCELED", "CANCELLED");
  return { code: name, httpStatus: status, message, headers: told, ...readDetails(values) };
}

async function rest(server: TestAddress, { rest: { verb, path }, body, headers }: Attempt): Promise<Outcome> {
  const fields = typeof body === "string" ? {} : ({ ...(body as object) } as Record<string, unknown>);
  const target = path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = String(fields[name]);
    delete fields[name];
    return encodeURIComponent(value);
  });
  const hasBody = verb !== "GET" && verb !== "DELETE";
  const sent = typeof body === "string" ? body : JSON.stringify(fields);
  const answer = await exchange(
    server,
    verb,
    target,
    { ...(hasBody && { "content-type": "application/json" }), ...headers },
    hasBody ? sent : undefined,
  );
  const { success, message = "", details = {}, requestId = "" } = JSON.parse(answer.body.toString());
  const { reason = "", violations = [], ...metadata } = details;
  return {
    code: success ? "OK" : "",
    httpStatus: answer.status,
    message,
    reason,
    domain: "",
    metadata,
    fields: violations.map(({ field }: { field: string }) => field),
    requestId,
    headers: answer.headers,
  };
}

/** Every lane that takes unary calls, each written by hand against the wire. */
export const lanes = { gRPC: grpc, "gRPC-Web": grpcWeb, "Connect JSON": connect, REST: rest };
