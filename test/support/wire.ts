import http from "node:http";
import http2 from "node:http2";
import {
  createRegistry,
  type DescMethod,
  fromBinary,
  type JsonObject,
  type JsonValue,
  toJson,
} from "@bufbuild/protobuf";
import { rulesOf } from "#gateway/rest/index.ts";
import { ErrorInfoSchema, file_google_rpc_error_details } from "#gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "#gen/google/rpc/status_pb.js";
import { codes, frame } from "./lanes.ts";

/** How a lane answered a call of any kind: headers, code and reason, and the bytes of the body. */
export interface WireAnswer {
  readonly headers: http.IncomingHttpHeaders;
  /** Name of the status code; empty over REST, which has none. */
  readonly code: string;
  readonly httpStatus: number;
  /** Reason of the error, empty for a success or where the surface tells none. */
  readonly reason: string;
  /** Of a stream, what came until it was told apart from an error. */
  readonly body: Buffer;
}

/** One call of a method with a JSON request. */
export interface WireCall {
  readonly method: DescMethod;
  readonly request: JsonObject;
  readonly headers?: Record<string, string>;
  /** Keeps a stream open until aborted, instead of leaving after its first message. */
  readonly until?: AbortSignal;
}

/** Speaks to one server over every lane, each written by hand against the wire. */
export interface Wire {
  readonly lanes: Record<"gRPC" | "gRPC-Web" | "Connect" | "REST", (call: WireCall) => Promise<WireAnswer>>;
  close(): void;
}

const pathOf = ({ parent, name }: DescMethod) => `/${parent.typeName}/${name}`;
const streamsIn = ({ methodKind }: DescMethod) => /^(client|bidi)/.test(methodKind);
const streamsOut = ({ methodKind }: DescMethod) => /^(server|bidi)/.test(methodKind);

/** Opens connections to a server. */
export function openWire(url: string): Wire {
  const session = http2.connect(url);
  session.on("error", () => {});
  const agent = new http.Agent({ keepAlive: true });

  /** One HTTP/1.1 request; resolves once `done` says of a stream that it has come far enough. */
  function ask(
    verb: string,
    path: string,
    headers: Record<string, string>,
    body: Buffer | string | undefined,
    done: (body: Buffer) => boolean,
    until?: AbortSignal,
  ): Promise<{ status: number; headers: http.IncomingHttpHeaders; body: Buffer }> {
    return new Promise((resolve, reject) => {
      const length = body === undefined ? {} : { "content-length": Buffer.byteLength(body) };
      const request = http.request(url + path, { method: verb, headers: { ...headers, ...length }, agent });
      request.on("error", reject);
      request.on("response", (response) => {
        let read: Buffer = Buffer.alloc(0);
        const finish = () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: read });
        response.on("data", (chunk: Buffer) => {
          read = Buffer.concat([read, chunk]);
          if (!done(read)) return;
          finish();
          if (until) until.addEventListener("abort", () => request.destroy(), { once: true });
          else request.destroy();
        });
        response.on("end", finish);
        response.on("error", () => {});
      });
      request.end(body);
    });
  }

  const grpc = ({ method, request, headers, until }: WireCall) =>
    new Promise<WireAnswer>((resolve, reject) => {
      const stream = session.request({
        ":method": "POST",
        ":path": pathOf(method),
        "content-type": "application/grpc+json",
        te: "trailers",
        ...headers,
      });
      let head: http2.IncomingHttpHeaders = {};
      let tail: http2.IncomingHttpHeaders = {};
      let body: Buffer = Buffer.alloc(0);
      const finish = () => {
        const told = { ...head, ...tail };
        const { ":status": status, ...fields } = head;
        resolve({
          headers: fields,
          httpStatus: Number(status),
          body,
          ...(told["grpc-status"] === undefined ? { code: "OK", reason: "" } : statusOf(told)),
        });
      };
      stream.on("response", (received) => {
        head = received;
      });
      stream.on("trailers", (received) => {
        tail = received;
      });
      stream.on("data", (chunk: Buffer) => {
        body = Buffer.concat([body, chunk]);
        if (!streamsOut(method)) return;
        finish();
        if (until) until.addEventListener("abort", () => stream.close(), { once: true });
        else stream.close();
      });
      stream.on("error", reject);
      stream.on("close", finish);
      stream.end(frame(JSON.stringify(request)));
    });

  const hasFrame = (flag: number) => (body: Buffer) => body.length >= 5 && ((body[0] ?? 0) & flag) === 0;

  async function grpcWeb({ method, request, headers, until }: WireCall): Promise<WireAnswer> {
    const type = { "content-type": "application/grpc-web+json", ...headers };
    const done = streamsOut(method) ? hasFrame(0x80) : () => false;
    const answer = await ask("POST", pathOf(method), type, frame(JSON.stringify(request)), done, until);
    let rest = answer.body;
    while (rest.length >= 5 && hasFrame(0x80)(rest)) rest = rest.subarray(5 + rest.readUInt32BE(1));
    const lines = rest.subarray(5).toString().split("\r\n");
    const trailer = Object.fromEntries(
      lines.map((line) =>
        line.toLowerCase().startsWith("grpc-")
          ? [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]
          : ["", ""],
      ),
    );
    const told = { ...answer.headers, ...trailer };
    return {
      ...answer,
      httpStatus: answer.status,
      ...(told["grpc-status"] === undefined ? { code: "OK", reason: "" } : statusOf(told)),
    };
  }

  async function connect({ method, request, headers, until }: WireCall): Promise<WireAnswer> {
    const streams = streamsIn(method) || streamsOut(method);
    const type = { "content-type": streams ? "application/connect+json" : "application/json", ...headers };
    const text = JSON.stringify(request);
    const done = streamsOut(method) ? hasFrame(0x02) : () => false;
    const answer = await ask("POST", pathOf(method), type, streams ? frame(text) : text, done, until);
    let error: JsonObject | undefined;
    if (!streams)
      error = answer.status === 200 ? undefined : (JSON.parse(answer.body.toString()) as JsonObject);
    else {
      let rest = answer.body;
      while (rest.length >= 5 && hasFrame(0x02)(rest)) rest = rest.subarray(5 + rest.readUInt32BE(1));
      if (rest.length > 5) error = JSON.parse(rest.subarray(5).toString()).error;
    }
    const details = (error?.details ?? []) as { type: string; value: string }[];
    const info = details.find(({ type: name }) => name === "google.rpc.ErrorInfo")?.value ?? "";
    return {
      ...answer,
      httpStatus: answer.status,
      // Connect spells this one code in the American way.
      code: String(error?.code ?? "ok")
        .toUpperCase()
        .replace("CANCELED", "CANCELLED"),
      reason: fromBinary(ErrorInfoSchema, Buffer.from(info, "base64")).reason,
    };
  }

  async function rest({ method, request, headers, until }: WireCall): Promise<WireAnswer> {
    const [rule] = rulesOf(method);
    if (!rule) throw new Error(`${method.name} has no REST binding`);
    const left: Record<string, JsonValue> = { ...request };
    const path = rule.template.replace(/\{(\w+)[^}]*\}/g, (_, name: string) => {
      const value = String(left[name]);
      delete left[name];
      return encodeURIComponent(value);
    });
    const body = rule.body === "*" ? left : rule.body ? left[rule.body.name] : undefined;
    const query = rule.body ? "" : new URLSearchParams(left as Record<string, string>).toString();
    const answer = await ask(
      rule.httpMethod,
      query ? `${path}?${query}` : path,
      { ...(body !== undefined && { "content-type": "application/json" }), ...headers },
      body === undefined ? undefined : JSON.stringify(body),
      streamsOut(method) ? (read) => read.length > 0 : () => false,
      until,
    );
    const failed = answer.status >= 400;
    const json = failed ? (JSON.parse(answer.body.toString()) as JsonObject) : {};
    return { ...answer, httpStatus: answer.status, code: "", reason: failed ? restReason(json) : "" };
  }

  return {
    lanes: { gRPC: grpc, "gRPC-Web": grpcWeb, Connect: connect, REST: rest },
    close() {
      session.destroy();
      agent.destroy();
    },
  };
}

const rpcDetails = createRegistry(file_google_rpc_error_details);

function statusOf(told: Record<string, unknown>): { code: string; reason: string } {
  const bytes = Buffer.from(String(told["grpc-status-details-bin"] ?? ""), "base64");
  const { details } = toJson(StatusSchema, fromBinary(StatusSchema, bytes), { registry: rpcDetails }) as {
    details?: JsonObject[];
  };
  const info = details?.find((detail) => String(detail["@type"]).endsWith("google.rpc.ErrorInfo"));
  return { code: codes[Number(told["grpc-status"])] ?? "", reason: String(info?.reason ?? "") };
}

/** The reason in an error body of any surface; that of OAuth has none. */
// biome-ignore lint/suspicious/noExplicitAny: bodies of every surface
function restReason({ code, error, details }: any): string {
  if (typeof details?.reason === "string") return details.reason;
  if (typeof error?.code === "string") return error.code;
  if (typeof code === "string") return code;
  if (!Array.isArray(details)) return "";
  return details.find((detail: JsonObject) => "reason" in detail)?.reason ?? "";
}
