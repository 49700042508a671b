import type { DescMethod, Message } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";

/**
 * One RPC ready to be called by any lane: its descriptor and a function that has the gate built
 * in. Unary and client-streaming methods return a promise, server-streaming and bidi methods an
 * async iterable; client-streaming and bidi methods take an async iterable. Every failure is a
 * `ConnectError`.
 */
export interface Endpoint {
  readonly method: DescMethod;
  invoke(
    input: Message | AsyncIterable<Message>,
    context: HandlerContext,
  ): Promise<Message> | AsyncIterable<Message>;
}
