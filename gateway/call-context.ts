import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { type ContextValues, createContextValues } from "@connectrpc/connect";
import { type CallInfo, callInfo } from "#kernel/call.ts";
import { slotCount } from "#kernel/ticker.ts";
import type { Request } from "./connect/lane.ts";
import type { Performing } from "./rest/index.ts";

/** A step that has no factor in common with the number of slots, so that connections spread evenly. */
const slotStep = 37;

/** Where a request comes from. */
export interface Origin {
  readonly headers: IncomingHttpHeaders;
  /** The connection, which other requests may share. */
  readonly connection: object;
  readonly remoteAddress: string;
}

/** Makes the CallInfo of each request: its id, origin, and the slot of its connection. */
export function createCallContexts(): (origin: Origin, route?: string) => ContextValues {
  const slots = new WeakMap<object, number>();
  let connections = 0;
  const slotOf = (connection: object): number => {
    let slot = slots.get(connection);
    if (slot === undefined) {
      slot = (connections++ * slotStep) % slotCount;
      slots.set(connection, slot);
    }
    return slot;
  };
  return (origin, route) =>
    createContextValues().set(callInfo, {
      requestId: requestIdOf(origin),
      remoteAddress: origin.remoteAddress,
      slot: slotOf(origin.connection),
      ...(route !== undefined && { route }),
    });
}

/** Where a request of Node comes from. */
export function originOf(request: Request): Origin {
  return {
    headers: request.headers,
    connection: "stream" in request ? (request.stream.session ?? request.stream) : request.socket,
    remoteAddress: request.socket?.remoteAddress ?? "",
  };
}

/** How the transcoder serves an operation that is part of another call. */
export const performingAs = (info: CallInfo): Performing => ({
  contextValues: createContextValues().set(callInfo, info),
  responseHeaders: { "x-request-id": info.requestId },
});

/** The request id that the client sent, if it is sane, or a new one; asked twice, the same. */
export function requestIdOf({ headers }: Pick<Origin, "headers">): string {
  const sent = headers["x-request-id"];
  if (typeof sent === "string" && /^[\w.:-]{1,128}$/.test(sent)) return sent;
  const made = randomUUID();
  headers["x-request-id"] = made;
  return made;
}
