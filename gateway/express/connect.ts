import { base64Decode } from "@bufbuild/protobuf/wire";
import { mergeNonProtocolHeaders } from "@connectrpc/connect/protocol";
import {
  codeToHttpStatus,
  contentTypeStreamJson,
  contentTypeStreamProto,
  contentTypeUnaryJson,
  contentTypeUnaryProto,
  createEndStreamSerialization,
  endStreamFlag,
  errorToJsonBytes,
  parseTimeout,
} from "@connectrpc/connect/protocol-connect";
import { wireOptions } from "../connect/lane.ts";
import { admit, contextOf, discard, type ExpressCall, failureOf, fieldsOf, receive } from "./call.ts";
import { negotiate } from "./compression.ts";
import type { EnvelopedWire } from "./enveloped.ts";
import { tooLarge } from "./framing.ts";

const { readMaxBytes, compressMinBytes, maxTimeoutMs } = wireOptions;

const endStream = createEndStreamSerialization(undefined);
const ok = endStream.serialize({ metadata: new Headers() } as never);

function stream(binary: boolean): EnvelopedWire {
  return {
    protocolName: "connect",
    binary,
    header: { "content-type": binary ? contentTypeStreamProto : contentTypeStreamJson },
    timeoutHeader: "connect-timeout-ms",
    encodingHeader: "connect-content-encoding",
    acceptHeader: "connect-accept-encoding",
    parseTimeout,
    endFlag: endStreamFlag,
    trailer: {},
    end(trailer, error) {
      if (!trailer.touched && !error) return ok;
      return endStream.serialize({ metadata: new Headers(trailer), ...(error && { error }) } as never);
    },
  };
}

/** Streams of Connect, whose last envelope tells the end. */
export const connectStream = { proto: stream(true), json: stream(false) };

/** The request of a Connect GET, which stands in the query. */
export interface ConnectQuery {
  readonly binary: boolean;
  readonly data: Uint8Array;
  readonly compression: string | null;
}

const parameters = new Set(["connect", "encoding", "base64", "message", "compression"]);

/** Reads the query of a Connect GET; undefined if it is not as a Connect client writes it. */
export function parseQuery(path: string): ConnectQuery | undefined {
  const query = new URLSearchParams(path.slice(path.indexOf("?") + 1));
  const names = [...query.keys()];
  const encoding = query.get("encoding");
  if (new Set(names).size < names.length || !names.every((name) => parameters.has(name))) return undefined;
  if (encoding !== "proto" && encoding !== "json") return undefined;
  const data = messageOf(query);
  return data && { binary: encoding === "proto", data, compression: query.get("compression") };
}

function messageOf(query: URLSearchParams): Uint8Array | undefined {
  const message = query.get("message") ?? "";
  if (query.get("base64") !== "1") return Buffer.from(message);
  try {
    return base64Decode(message);
  } catch {
    return undefined;
  }
}

/** Serves a unary call of Connect, by POST or, with a query, by GET. */
export async function serveUnary(binary: boolean, call: ExpressCall, query?: ConnectQuery): Promise<void> {
  const { plan, exchange } = call;
  const { headers } = exchange;
  const timeout = parseTimeout((headers["connect-timeout-ms"] as string | undefined) ?? null, maxTimeoutMs);
  const used = query ? query.compression : (headers["content-encoding"] ?? null);
  const accepted = (headers["accept-encoding"] as string | undefined) ?? null;
  const codings = negotiate(used, accepted, "Accept-Encoding");
  const header = { "content-type": binary ? contentTypeUnaryProto : contentTypeUnaryJson };
  const context = contextOf(call, "connect", timeout, header, {});

  let status = 200;
  let body: Uint8Array;
  try {
    await admit(call, context, codings.error ?? timeout.error);
    if (query) discard(call);
    const data = query?.data ?? (await readBody(call));
    const whole = codings.request ? await codings.request.decompress(data as never, readMaxBytes) : data;
    const output = await plan.endpoint.invoke(plan.decode(whole, binary), context);
    body = plan.encode(output, binary);
  } catch (thrown) {
    const error = failureOf(thrown, call);
    status = codeToHttpStatus(error.code);
    context.responseHeader.set("content-type", contentTypeUnaryJson);
    if (!error.isWireError) mergeNonProtocolHeaders(context.responseHeader, error.metadata);
    body = errorToJsonBytes(error, undefined);
  }
  context.lifetime.end();
  if (codings.response && body.length >= compressMinBytes) {
    body = await codings.response.compress(body as never);
    context.responseHeader.set("content-encoding", codings.response.name);
  }
  if (exchange.gone) return;
  const fields = fieldsOf(call, context);
  for (const [name, value] of context.responseTrailer.touched ? context.responseTrailer : [])
    fields[`trailer-${name}`] = value;
  fields["content-length"] = String(body.length);
  exchange.begin(status, fields);
  exchange.end(body);
}

function readBody(call: ExpressCall): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Uint8Array[] = [];
    let size = 0;
    receive(call, {
      chunk(bytes) {
        size += bytes.length;
        if (size > readMaxBytes) throw tooLarge();
        chunks.push(bytes);
      },
      end: () => resolve(chunks.length === 1 ? (chunks[0] as Uint8Array) : Buffer.concat(chunks)),
      fail: reject,
    });
    const announced = Number(call.exchange.headers["content-length"] ?? 0);
    if (announced > readMaxBytes) reject(tooLarge(announced));
  });
}
