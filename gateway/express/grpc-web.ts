import {
  contentTypeJson,
  contentTypeProto,
  trailerFlag,
  trailerSerialize,
} from "@connectrpc/connect/protocol-grpc-web";
import type { EnvelopedWire } from "./enveloped.ts";
import type { Exchange } from "./exchange.ts";
import { grpcHeaders, statusOf } from "./grpc.ts";
import type { Fields } from "./headers.ts";

const ok = trailerSerialize(new Headers({ "grpc-status": "0" }));

function wire(binary: boolean, contentType: string): EnvelopedWire {
  return {
    ...grpcHeaders,
    protocolName: "grpc-web",
    binary,
    header: { "content-type": contentType },
    endFlag: trailerFlag,
    end: (trailer, error) => (trailer.touched || error ? trailerSerialize(statusOf(trailer, error)) : ok),
  };
}

/** gRPC-Web, whose trailers are the last envelope of the body. */
export const grpcWeb = {
  proto: wire(true, contentTypeProto),
  json: wire(false, contentTypeJson),
  /** To be served over `inBase64`. */
  text: wire(true, "application/grpc-web-text+proto"),
};

/** The exchange of a client that can only read text: both bodies travel in Base64. */
export function inBase64(exchange: Exchange): Exchange {
  const encode = (bytes: Uint8Array) => Buffer.from(Buffer.from(bytes).toString("base64"), "latin1");
  return {
    method: exchange.method,
    path: exchange.path,
    headers: exchange.headers,
    connection: exchange.connection,
    remoteAddress: exchange.remoteAddress,
    get url() {
      return exchange.url;
    },
    get gone() {
      return exchange.gone;
    },
    onClose: (listener) => exchange.onClose(listener),
    receive(onChunk, onEnd) {
      // Four characters hold three bytes; a group may be cut in two by the chunks.
      let rest = "";
      exchange.receive((chunk) => {
        const text = rest + Buffer.from(chunk).toString("latin1");
        const whole = text.length - (text.length % 4);
        rest = text.slice(whole);
        // What was encoded in pieces has padding in between.
        for (const part of text.slice(0, whole).match(/[^=]+=*/g) ?? []) onChunk(Buffer.from(part, "base64"));
      }, onEnd);
    },
    begin: (status: number, fields: Fields) => exchange.begin(status, fields),
    write: (bytes) => exchange.write(encode(bytes)),
    drained: () => exchange.drained(),
    end: (bytes) => exchange.end(bytes && encode(bytes)),
    destroy: () => exchange.destroy(),
  };
}
