import { base64Decode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError } from "@connectrpc/connect";
import type {
  UniversalHandler,
  UniversalServerRequest,
  UniversalServerResponse,
} from "@connectrpc/connect/protocol";
import {
  codeToHttpStatus,
  endStreamFlag,
  endStreamFromJson,
  endStreamToJson,
  errorFromJsonBytes,
  errorToJsonBytes,
} from "@connectrpc/connect/protocol-connect";
import { findTrailerError, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { trailerFlag, trailerParse, trailerSerialize } from "@connectrpc/connect/protocol-grpc-web";
import { RequestInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { callInfo } from "#kernel/call.ts";
import { fail, type Reason, reasonOf } from "#kernel/errors.ts";
import { toFailure } from "../wire-error.ts";

/** Is told of an error that arose before a handler ran. */
export type OnRefused = (error: ConnectError, request: UniversalServerRequest) => void;

type Explain = (error: ConnectError | undefined) => ConnectError | undefined;

/**
 * Gives errors that arise before a handler runs (bodies that do not decode, broken frames, sizes,
 * codings) the same reason and request id as all others. The protocol library puts them on the
 * wire by itself, so they are read back from the response and written anew.
 */
export function explainErrors(handler: UniversalHandler, onRefused: OnRefused): UniversalHandler {
  const explained = async (request: Parameters<UniversalHandler>[0]): Promise<UniversalServerResponse> => {
    const response = isReadable(request) ? await handler(request) : unreadable();
    const requestId = request.contextValues?.get(callInfo).requestId ?? "";
    const explain: Explain = (error) => {
      // An error that has a reason comes through the gate. The library never raises NOT_FOUND: with
      // that the health service answers for itself, as its contract says.
      if (!error || reasonOf(error) || error.code === Code.NotFound) return undefined;
      const explained = toFailure(error);
      onRefused(explained, request);
      explained.details.push({ desc: RequestInfoSchema, value: { requestId } });
      return explained;
    };
    response.header?.set("x-request-id", requestId);
    const type = response.header?.get("content-type") ?? "";
    if (response.status !== 200) {
      if (!response.body) onRefused(fail(bare[response.status] ?? "MALFORMED_REQUEST"), request);
      return explainUnary(response, explain);
    }
    if (!response.body) return response;
    if (type.startsWith("application/grpc-web")) {
      return {
        ...response,
        body: lastFrame(response.body, trailerFlag, (data) => webTrailer(data, explain)),
      };
    }
    if (type.startsWith("application/connect+")) {
      return {
        ...response,
        body: lastFrame(response.body, endStreamFlag, (data) => endStream(data, explain)),
      };
    }
    if (type.startsWith("application/grpc") && response.trailer) {
      const { trailer } = response;
      return { ...response, body: then(response.body, () => setStatus(trailer, explain)) };
    }
    return response;
  };
  return Object.assign(explained, handler);
}

/** Whether the message in the query of a GET is base64 if it says so: the library takes it for a defect. */
function isReadable({ method, url }: Parameters<UniversalHandler>[0]): boolean {
  if (method !== "GET") return true;
  const { searchParams } = new URL(url);
  if (searchParams.get("base64") !== "1") return true;
  try {
    base64Decode(searchParams.get("message") ?? "");
    return true;
  } catch {
    return false;
  }
}

/** The answer to a query whose message is not base64. */
function unreadable(): UniversalServerResponse {
  const error = new ConnectError("the message is not base64", Code.InvalidArgument);
  return {
    status: 400,
    header: new Headers({ "content-type": "application/json" }),
    body: one(errorToJsonBytes(error, undefined)),
    trailer: new Headers(),
  };
}

/** What an answer without a body means: the protocol library says no more than the status. */
const bare: Record<number, Reason> = { 405: "METHOD_NOT_ALLOWED", 415: "UNSUPPORTED_MEDIA_TYPE" };

function setStatus(trailer: Headers, explain: Explain): boolean {
  const error = explain(findTrailerError(trailer));
  if (error) setTrailerStatus(trailer, error);
  return error !== undefined;
}

async function explainUnary(response: UniversalServerResponse, explain: Explain) {
  if (!response.body || !response.header?.get("content-type")?.startsWith("application/json"))
    return response;
  const chunks: Uint8Array[] = [];
  for await (const chunk of response.body) chunks.push(chunk);
  let bytes: Uint8Array = Buffer.concat(chunks);
  let { status } = response;
  if (!response.header.has("content-encoding")) {
    const fallback = new ConnectError("", Code.Unknown);
    const error = explain(errorFromJsonBytes(bytes, undefined, fallback));
    if (error) {
      bytes = errorToJsonBytes(error, undefined);
      status = codeToHttpStatus(error.code);
    }
  }
  response.header.delete("content-length");
  return { ...response, status, body: one(bytes) };
}

function webTrailer(data: Uint8Array, explain: Explain): Uint8Array {
  const trailer = trailerParse(data);
  return setStatus(trailer, explain) ? trailerSerialize(trailer) : data;
}

function endStream(data: Uint8Array, explain: Explain): Uint8Array {
  const end = endStreamFromJson(data);
  const error = explain(end.error);
  return error ? Buffer.from(JSON.stringify(endStreamToJson(end.metadata, error, undefined))) : data;
}

/** Rewrites the data of the uncompressed frame with this flag alone. */
async function* lastFrame(
  body: AsyncIterable<Uint8Array>,
  flag: number,
  rewrite: (data: Uint8Array) => Uint8Array,
): AsyncIterable<Uint8Array> {
  for await (const chunk of body) {
    if (chunk[0] !== flag) {
      yield chunk;
      continue;
    }
    const data = rewrite(chunk.subarray(5));
    const frame = Buffer.alloc(5 + data.byteLength);
    frame[0] = flag;
    frame.writeUInt32BE(data.byteLength, 1);
    frame.set(data, 5);
    yield frame;
  }
}

async function* then(body: AsyncIterable<Uint8Array>, done: () => void): AsyncIterable<Uint8Array> {
  yield* body;
  done();
}

async function* one(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}
