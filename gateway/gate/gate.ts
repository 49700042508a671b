import { create, type DescMethod, type Message } from "@bufbuild/protobuf";
import { type ConnectError, createContextKey, type HandlerContext } from "@connectrpc/connect";
import type { Logger } from "pino";
import { RequestInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { Access, type Policy } from "#gen/portolan/options/v1/policy_pb.js";
import { callInfo, demand, type Principal } from "#kernel/call.ts";
import type { Database } from "#kernel/database.ts";
import type { Endpoint } from "#kernel/endpoint.ts";
import { fail, reasonOf } from "#kernel/errors.ts";
import type { Registration } from "#kernel/kernel.ts";
import type { Standing } from "#kernel/standing.ts";
import type { Observer } from "../observe/observer.ts";
import { noticeOfMethod } from "../versions.ts";
import { toFailure } from "../wire-error.ts";
import { type Admission, type MethodRules, rulesOf } from "./admission/index.ts";
import { createAudit } from "./audit.ts";
import { type Lease, leaseOf } from "./live.ts";
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

/** Counts what callers do. */
export interface UsageMeter {
  /** Adds calls, failures, and the time in milliseconds that the calls took, to the account of a caller. */
  count(principal: Principal, method: DescMethod, usage: Usage): void;
}

/** An addition to an account. */
export interface Usage {
  readonly requests?: number;
  readonly errors?: number;
  readonly durationMs?: number;
}

/** What the gate needs. */
export interface GateOptions {
  readonly database: Database;
  readonly log: Logger;
  readonly observer: Observer;
  readonly authenticator: Authenticator;
  readonly admission: Admission;
  readonly standing: Standing;
  readonly usage: UsageMeter;
}

/** A call that was let in. */
interface Entry {
  /** Tells that the call is over; only the first time counts. */
  leave(): void;
  /** Why the caller may not make the call, if it may not. */
  readonly denial: unknown;
}

const entered = createContextKey<Entry | undefined>(undefined);

/** What a service asks another in the course of a call is that same call: it is not counted again. */
const isInner = (context: HandlerContext) => context.protocolName === "local";

const nothing = () => {};

type Handler = (input: unknown, context: HandlerContext) => unknown;

/**
 * Turns handlers into endpoints that every lane calls alike. A call passes, once and in this
 * order: authenticate, authorize, admit, validate, replay; then the handler runs, and its response
 * is cut down to the fields asked for. On the way out the call is counted and, if its RPC is
 * audited, it has a row in the audit log. Whatever fails leaves as an error with a reason and the
 * request id. The observer sees each call from here, once.
 */
export function createGate(options: GateOptions) {
  const { database, log, observer, authenticator, admission, standing, usage } = options;
  const replay = createReplay(database);
  const auditOf = createAudit(database, log);

  async function authorize(policy: Policy, context: HandlerContext): Promise<void> {
    if (policy.access === Access.PUBLIC) return;
    const info = context.values.get(callInfo);
    info.principal ??= await authenticator.authenticate(context.requestHeader);
    if (policy.access === Access.SHARE && !info.principal) return;
    demand(context, policy.permission);
  }

  /**
   * Lets the call in. A caller who may not make it is let in and told by `prepare`, when it is known
   * what it wanted, so that the audit log can say so.
   */
  async function admit(policy: Policy, rules: MethodRules, context: HandlerContext): Promise<void> {
    let denial: unknown;
    await authorize(policy, context).catch((error: unknown) => {
      denial = error;
    });
    let leave = nothing;
    const { principal, remoteAddress } = context.values.get(callInfo);
    const refused = denial !== undefined && !principal;
    if (!isInner(context)) {
      const { responseHeader: header, signal } = context;
      leave = await admission.admit({ rules, principal, remoteAddress, refused, header, signal });
    }
    if (refused) {
      leave();
      throw denial;
    }
    context.values.set(entered, { leave, denial });
    if (context.signal.aborted) leave();
    else context.signal.addEventListener("abort", leave, { once: true });
  }

  async function* validated(method: DescMethod, messages: AsyncIterable<Message>) {
    for await (const message of messages) {
      validate(method.input, message);
      yield message;
    }
  }

  function failure(context: HandlerContext, thrown: unknown): ConnectError {
    const { requestId } = context.values.get(callInfo);
    let error = toFailure(thrown);
    // What breaks because the client went away is no defect.
    if (reasonOf(error) === "INTERNAL" && context.signal.aborted)
      error = fail("CANCELLED", { cause: thrown });
    // A failure of a peer has passed the gate already.
    if (error.findDetails(RequestInfoSchema).length === 0) {
      error.details.push({ desc: RequestInfoSchema, value: { requestId } });
    }
    return error;
  }

  function count(method: DescMethod, context: HandlerContext, added: Usage): void {
    const { principal } = context.values.get(callInfo);
    if (principal && !isInner(context)) usage.count(principal, method, added);
  }

  function endpoint(method: DescMethod, handler: Handler): Endpoint {
    const policy = policyOf(method);
    const rules = rulesOf(method, policy);
    const enter = async (context: HandlerContext) => {
      try {
        await admit(policy, rules, context);
      } catch (thrown) {
        count(method, context, { requests: 1, errors: 1 });
        const error = failure(context, thrown);
        observer.begin(method, context).end(error);
        throw error;
      }
    };
    const sparse = createSparse(method);
    const audit = auditOf(method);
    const takesStream = method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming";
    const run = async (ready: Message | AsyncIterable<Message>, context: HandlerContext) => {
      const request = takesStream ? leaseOf(standing, context).bound(ready as AsyncIterable<Message>) : ready;
      return create(method.output, (await handler(request, context)) as never);
    };
    const notice = Object.entries(noticeOfMethod(method) ?? {});
    const prepare = async (input: Message | AsyncIterable<Message>, context: HandlerContext) => {
      for (const [name, value] of notice) context.responseHeader.set(name, value);
      if (!context.values.get(entered)) await admit(policy, rules, context);
      const denial = context.values.get(entered)?.denial;
      if (denial) throw denial;
      if (takesStream) {
        return validated(method, input as AsyncIterable<Message>);
      }
      validate(method.input, input as Message);
      return input;
    };
    const unary = async (
      input: Message | AsyncIterable<Message>,
      context: HandlerContext,
    ): Promise<Message> => {
      const call = observer.begin(method, context);
      const began = performance.now();
      const done = (error?: ConnectError) => {
        const durationMs = performance.now() - began;
        count(method, context, { requests: 1, durationMs, ...(error && { errors: 1 }) });
        return audit?.close(context, error);
      };
      try {
        audit?.open(input, context);
        const ready = await prepare(input, context);
        const cut = sparse?.(ready as Message);
        const answer = await (policy.idempotencyKey
          ? replay(ready as Message, context, () => run(ready, context))
          : run(ready, context));
        await done();
        call.end();
        return cut ? cut(answer) : answer;
      } catch (thrown) {
        const error = failure(context, thrown);
        await done(error);
        call.end(error);
        throw error;
      } finally {
        context.values.get(entered)?.leave();
      }
    };
    const streaming = async function* (input: Message | AsyncIterable<Message>, context: HandlerContext) {
      const call = observer.begin(method, context);
      let lease: Lease | undefined;
      try {
        audit?.open(input, context);
        const ready = await prepare(input, context);
        // A stream counts when it begins, since it may go on for days.
        count(method, context, { requests: 1 });
        lease = leaseOf(standing, context);
        const request = takesStream ? lease.bound(ready as AsyncIterable<Message>) : ready;
        for await (const message of handler(request, lease.context) as AsyncIterable<Message>) {
          call.sent();
          yield message;
        }
        const over = lease.over();
        if (over) throw over;
        await audit?.close(context);
      } catch (thrown) {
        const error = failure(context, lease?.over() ?? thrown);
        count(method, context, { ...(!lease && { requests: 1 }), errors: 1 });
        await audit?.close(context, error);
        call.end(error);
        throw error;
      } finally {
        call.end();
        context.values.get(entered)?.leave();
      }
    };
    const streams = method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming";
    return { method, enter, invoke: streams ? streaming : unary };
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
