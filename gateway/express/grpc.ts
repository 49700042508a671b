import type { ConnectError } from "@connectrpc/connect";
import {
  contentTypeJson,
  contentTypeProto,
  parseTimeout,
  setTrailerStatus,
} from "@connectrpc/connect/protocol-grpc";
import type { EnvelopedWire } from "./enveloped.ts";
import type { Fields, LazyHeaders } from "./headers.ts";

const ok: Fields = { "grpc-status": "0" };

/** The headers that gRPC and gRPC-Web share. */
export const grpcHeaders = {
  timeoutHeader: "grpc-timeout",
  encodingHeader: "grpc-encoding",
  acceptHeader: "grpc-accept-encoding",
  parseTimeout,
  trailer: ok,
} as const;

/** The trailers that tell how a call went, after those that the handler has set. */
export function statusOf(trailer: LazyHeaders, error: ConnectError | undefined): Headers {
  const status = new Headers(trailer);
  return error ? setTrailerStatus(status, error) : status;
}

function wire(binary: boolean): EnvelopedWire {
  return {
    ...grpcHeaders,
    protocolName: "grpc",
    binary,
    header: { "content-type": binary ? contentTypeProto : contentTypeJson },
    endFlag: undefined,
    end: (trailer, error) => (trailer.touched || error ? Object.fromEntries(statusOf(trailer, error)) : ok),
  };
}

/** gRPC, whose end is told in HTTP/2 trailers. */
export const grpc = { proto: wire(true), json: wire(false) };
