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
  /**
   * Authenticates, authorizes and admits the call, which a lane asks for as soon as it has the
   * headers, so that a refused body is never read. What it sets in the response headers belongs on
   * every response. A call that was not entered is when it is invoked. The call is over when its
   * context is aborted, or `invoke` has ended, whichever comes first.
   */
  enter(context: HandlerContext): Promise<void>;
  invoke(
    input: Message | AsyncIterable<Message>,
    context: HandlerContext,
  ): Promise<Message> | AsyncIterable<Message>;
}
