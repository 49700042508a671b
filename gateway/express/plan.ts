import { create, type DescMethod, type Message } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { createMethodSerializationLookup } from "@connectrpc/connect/protocol";
import type { Endpoint } from "#kernel/endpoint.ts";
import { wireOptions } from "../connect/lane.ts";

/** Everything about a method that is the same for all of its calls. */
export interface MethodPlan {
  readonly method: DescMethod;
  readonly endpoint: Endpoint;
  /** Whether it answers with a stream. */
  readonly streams: boolean;
  /** Whether Connect may call it with GET. */
  readonly byGet: boolean;
  /**
   * Reads a request, from Protobuf or JSON.
   * @throws ConnectError if it is malformed or too large
   */
  decode(data: Uint8Array, binary: boolean): Message;
  /**
   * Writes an answer.
   * @throws ConnectError if it is too large
   */
  encode(message: unknown, binary: boolean): Uint8Array;
}

/** The plan of a method, or undefined if its request is a stream, which no express lane speaks. */
export function planOf(endpoint: Endpoint): MethodPlan | undefined {
  const { method } = endpoint;
  if (method.methodKind !== "unary" && method.methodKind !== "server_streaming") return undefined;
  const { readMaxBytes, writeMaxBytes, jsonOptions } = wireOptions;
  const lookup = createMethodSerializationLookup(method, undefined, jsonOptions, {
    readMaxBytes,
    writeMaxBytes,
  });
  const inputs = [lookup.getI(false), lookup.getI(true)] as const;
  const outputs = [lookup.getO(false), lookup.getO(true)] as const;
  return {
    method,
    endpoint,
    streams: method.methodKind === "server_streaming",
    byGet: method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS,
    decode: (data, binary) => inputs[binary ? 1 : 0].parse(data as never),
    encode: (message, binary) => outputs[binary ? 1 : 0].serialize(create(method.output, message as never)),
  };
}
