import { create, type DescMethod, type Message } from "@bufbuild/protobuf";
import type { ConnectError, HandlerContext } from "@connectrpc/connect";
import type { Logger } from "pino";
import { RequestInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { Access, type Policy } from "#gen/portolan/options/v1/policy_pb.js";
import { callInfo, demand, type Principal } from "#kernel/call.ts";
import type { Database } from "#kernel/database.ts";
import type { Endpoint } from "#kernel/endpoint.ts";
import { fail, reasonOf } from "#kernel/errors.ts";
import type { Registration } from "#kernel/kernel.ts";
import { toFailure } from "../wire-error.ts";
import { policyOf } from "./policy.ts";
import { createReplay } from "./replay.ts";
import { createSparse } from "./sparse.ts";
import { validate } from "./validate.ts";

/** Finds out who calls. */
export interface Authenticator {
  /**
   * The caller behind the credentials in the headers, or undefined if there are none.
   * @throws ConnectError INVALID_TOKEN or TOKEN_EXPIRED if there are and they do not hold
   */
  authenticate(headers: Headers): Promise<Principal | undefined>;
}

/** What the gate needs. */
export interface GateOptions {
  readonly database: Database;
  readonly log: Logger;
  readonly authenticator: Authenticator;
}

type Handler = (input: unknown, context: HandlerContext) => unknown;

/**
 * Turns handlers into endpoints that every lane calls alike. A call passes, once and in this
 * order: authenticate, authorize, validate, replay; then the handler runs, and its response is cut
 * down to the fields asked for. Whatever fails leaves as an error with a reason and the request id.
 */
export function createGate({ database, log, authenticator }: GateOptions) {
  const replay = createReplay(database);

  async function admit(policy: Policy, context: HandlerContext): Promise<void> {
    if (policy.access === Access.PUBLIC) return;
    const info = context.values.get(callInfo);
    info.principal ??= await authenticator.authenticate(context.requestHeader);
    if (policy.access === Access.SHARE && !info.principal) return;
    demand(context, policy.permission);
  }

  async function* validated(method: DescMethod, messages: AsyncIterable<Message>) {
    for await (const message of messages) {
      validate(method.input, message);
      yield message;
    }
  }

  function failure(method: DescMethod, context: HandlerContext, thrown: unknown): ConnectError {
    const { requestId } = context.values.get(callInfo);
    let error = toFailure(thrown);
    // What breaks because the client went away is no defect.
    if (reasonOf(error) === "INTERNAL" && context.signal.aborted)
      error = fail("CANCELLED", { cause: thrown });
    if (reasonOf(error) === "INTERNAL") {
      log.error(
        { requestId, method: `${method.parent.typeName}/${method.name}`, err: error.cause },
        "call failed",
      );
    }
    // A failure of a peer has passed the gate already.
    if (error.findDetails(RequestInfoSchema).length === 0) {
      error.details.push({ desc: RequestInfoSchema, value: { requestId } });
    }
    return error;
  }

  function endpoint(method: DescMethod, handler: Handler): Endpoint {
    const policy = policyOf(method);
    const sparse = createSparse(method);
    const prepare = async (input: Message | AsyncIterable<Message>, context: HandlerContext) => {
      await admit(policy, context);
      if (method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming") {
        return validated(method, input as AsyncIterable<Message>);
      }
      validate(method.input, input as Message);
      return input;
    };
    const unary = async (
      input: Message | AsyncIterable<Message>,
      context: HandlerContext,
    ): Promise<Message> => {
      try {
        const ready = await prepare(input, context);
        const cut = sparse?.(ready as Message);
        const run = async () => create(method.output, (await handler(ready, context)) as never);
        const response = await (policy.idempotencyKey ? replay(ready as Message, context, run) : run());
        return cut ? cut(response) : response;
      } catch (thrown) {
        throw failure(method, context, thrown);
      }
    };
    const streaming = async function* (input: Message | AsyncIterable<Message>, context: HandlerContext) {
      try {
        const ready = await prepare(input, context);
        yield* handler(ready, context) as AsyncIterable<Message>;
      } catch (thrown) {
        throw failure(method, context, thrown);
      }
    };
    const streams = method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming";
    return { method, invoke: streams ? streaming : unary };
  }

  return {
    /** The endpoints of a service; a method without a handler is refused at start. */
    bind({ service, handlers }: Registration): Endpoint[] {
      return service.methods.map((method) => {
        const handler = handlers[method.localName] as Handler | undefined;
        if (!handler) throw new Error(`${service.typeName}.${method.name} has no handler`);
        return endpoint(method, handler.bind(handlers));
      });
    },
  };
}
