import type { DescMethod, Message, MessageInitShape, Registry } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ContextValues,
  createHandlerContext,
  type HandlerContext,
} from "@connectrpc/connect";
import type { HttpSchema } from "#gen/google/api/http_pb.js";
import { Binding } from "./binding.ts";
import { type Body, BodyReader } from "./body.ts";
import type { Dialect } from "./dialect.ts";
import { type RefusalError, Refusals, toConnectError } from "./errors.ts";
import { Exchange, type Sink } from "./exchange.ts";
import {
  type Incoming,
  methodOf,
  plainHeaders,
  type Request,
  type Response,
  splitTarget,
  timeoutOf,
  urlOf,
} from "./http.ts";
import {
  innerContext,
  type Operation,
  type Outcome,
  OutcomeSink,
  type Performing,
  requestOf,
} from "./perform.ts";
import { type Parameter, parseQuery } from "./query.ts";
import { type Capture, Router } from "./router.ts";
import { nameOf, type Rule, rulesOf, ServiceConfig } from "./rules.ts";
import { Spelling } from "./spelling.ts";
import { sendStream } from "./stream.ts";
import { parseTemplate } from "./template.ts";
import { orAborted, sendUnary } from "./unary.ts";

export { etagField } from "./conditional.ts";
export type { Dialect } from "./dialect.ts";
export {
  detailsJson,
  httpStatusOf,
  type RefusalError,
  type RefusalKind,
  refusalError,
  statusJson,
} from "./errors.ts";
export { enumOf, isHttpBody, isLeaf, isWellKnown } from "./fields.ts";
export { type Incoming, mediaType, preferences, splitTarget } from "./http.ts";
export type { Operation, Outcome, Performing } from "./perform.ts";
export { type Rendered, type RenderOptions, render } from "./render.ts";
export type { Capture } from "./router.ts";
export { type Rule, rulesOf, variableFields } from "./rules.ts";
export { Spelling } from "./spelling.ts";
export { streamContentTypes } from "./stream.ts";
export { parseTemplate, type Template } from "./template.ts";

/** One method ready to be called. */
export interface RestEndpoint {
  readonly method: DescMethod;
  /** Called as soon as the headers are known, before the body is read; may refuse the call. */
  enter?(context: HandlerContext): Promise<void>;
  invoke(
    input: Message | AsyncIterable<Message>,
    context: HandlerContext,
  ): Promise<Message> | AsyncIterable<Message>;
}

/** What a transcoder is made of. */
export interface TranscoderOptions {
  /** Those without a `google.api.http` annotation or a rule in `http` are passed over. */
  endpoints: Iterable<RestEndpoint>;
  /**
   * A service configuration: rules that override the annotations of the methods they select, and
   * `fully_decode_reserved_expansion`. Each selector must select a method.
   */
  http?: MessageInitShape<typeof HttpSchema>;
  /** Whether a route passes over all query parameters it does not know, rather than refuse them. */
  ignoreUnknownQuery?(rule: Rule): boolean;
  /** How long a stream of server-sent events is silent before a comment is sent; 15 s if not given, 0 for never. */
  keepAliveMs?: number;
  /** For `google.protobuf.Any` and for error details that came as bytes. */
  registry?: Registry;
  /** Called once per binding, when the transcoder is made. */
  dialect?(method: DescMethod, template: string): Dialect;
  /** The limit of a body, or of one message of a stream; 4 MiB if not given. */
  maxBodyBytes?: number;
  /** Called for every request, with the path template of its binding. */
  contextValues?(req: Request, template: string): ContextValues;
  /** Further paths under which to look for a path that nothing is at. */
  otherPaths?(req: Incoming, path: string): Iterable<string>;
  /**
   * Called for every request once its binding is known and before anything of it is read. What it
   * gives goes with the answer, whatever that will be.
   */
  onRoute?(req: Incoming, route: Route, captures: readonly Capture[]): RouteAnswer | undefined;
  /** The dialect of 404 and 405, where no method is known. */
  unmatchedDialect?(path: string): Dialect;
  /**
   * Query parameters that server-streaming methods take as a bearer token, since a browser's
   * EventSource cannot set headers.
   */
  credentialQueryParameters?: readonly string[];
  /** Query parameters passed over where they are not fields of the request. */
  ignoreQueryParameters?: readonly string[];
  /**
   * Called before a request that did not become a call is refused: headers of the answer, and
   * another error to answer with, such as that of a limit.
   */
  stray?(req: Incoming): Promise<{ headers: Headers; error?: ConnectError }>;
  /** Makes the errors of requests that were refused before a handler was called. */
  error?: RefusalError;
  /** Called once for every request that was answered, after the response was written. */
  onDone?(info: { method?: DescMethod; status: number; req: Incoming; error?: ConnectError }): void;
}

/** One binding of a method. */
export interface Route {
  /** Upper case; `*` stands for any. */
  readonly httpMethod: string;
  readonly template: string;
  readonly method: DescMethod;
}

/** What is known of an answer once its binding is known. */
export interface RouteAnswer {
  readonly headers?: Readonly<Record<string, string>>;
  /** The request headers that the answer depends on. */
  readonly vary?: readonly string[];
  /** The media type of JSON bodies, if it is not `application/json`. */
  readonly jsonType?: string | undefined;
  /** Refuses the request. */
  readonly error?: ConnectError | undefined;
}

/** Serves REST requests by calling methods. */
export interface Transcoder {
  /** Serves the request; resolves false, with nothing read or written, when no binding has this path. */
  handle(req: Request, res: Response): Promise<boolean>;
  /**
   * Serves an operation that came over no socket, on the same path as those that did. Never
   * rejects: what goes wrong is in the outcome, 404 for an unknown path included.
   */
  perform(operation: Operation, performing?: Performing): Promise<Outcome>;
  /** Answers 404, or the error given, in the form of `unmatchedDialect`. */
  notFound(req: Request, res: Response, error?: ConnectError): void;
  /** The HTTP methods of a path, as `Allow` tells them; undefined when no binding has this path. */
  allow(path: string): readonly string[] | undefined;
  /** The bindings, in the order of the endpoints. */
  readonly routes: readonly Route[];
}

const DEFAULT_MAX_BODY_BYTES = 4 * 1024 * 1024;
const DEFAULT_KEEP_ALIVE_MS = 15_000;
/** One object for all calls: a reason made per call costs a tenth of a small call. */
const CALL_IS_OVER = new ConnectError("the call is over", Code.Canceled);
/** What a header can hold of a token. */
const TOKEN = /^[\x21-\x7e]*$/;

interface Bound {
  readonly endpoint: RestEndpoint;
  readonly binding: Binding;
  readonly route: Route;
}

/** A request, where its answer goes, and what comes with it. */
interface Served {
  readonly req: Incoming;
  readonly sink: Sink;
  readonly body: Body;
  contextValues?(template: string): ContextValues | undefined;
  readonly performing?: Performing;
}

/**
 * Makes a transcoder for the `google.api.http` annotations of methods. Throws if an annotation is not
 * valid, two of them would answer the same requests, or a selector selects nothing.
 */
export function createTranscoder(options: TranscoderOptions): Transcoder {
  const refusals = new Refusals(options.error);
  const router = new Router<Bound>();
  const routes: Route[] = [];
  const spellings = new Map<Dialect, Spelling>();
  const plain: Dialect = {};
  const config = new ServiceConfig(options.http ?? {});
  const endpoints = [...options.endpoints];
  config.requireUse(endpoints.map(({ method }) => method));

  for (const endpoint of endpoints) {
    const { method } = endpoint;
    const rules = rulesOf(method, config.ruleFor(method));
    if (rules.length === 0) continue;
    for (const rule of rules) {
      const dialect = options.dialect?.(method, rule.template) ?? plain;
      const spelling = spellings.get(dialect) ?? new Spelling(dialect, options.registry);
      spellings.set(dialect, spelling);
      const template = parseTemplate(rule.template);
      const binding = new Binding(rule, template, spelling, refusals, {
        fullyDecode: options.http?.fullyDecodeReservedExpansion ?? false,
        ignoreUnknownQuery: options.ignoreUnknownQuery?.(rule) ?? false,
      });
      const route = { httpMethod: rule.httpMethod, template: rule.template, method };
      router.add(rule.httpMethod, template, nameOf(method), { endpoint, binding, route });
      routes.push(route);
    }
  }

  const done = (exchange: Exchange, method?: DescMethod): void => {
    const { error, req, status } = exchange;
    options.onDone?.({ status, req, ...(method && { method }), ...(error && { error }) });
  };
  const unmatched = (req: Incoming, sink: Sink, path: string): Exchange =>
    new Exchange(req, sink, options.unmatchedDialect?.(path) ?? plain, options.registry);

  function find(httpMethod: string, req: Incoming, path: string) {
    const found = router.find(httpMethod, path);
    if (found) return found;
    for (const other of options.otherPaths?.(req, path) ?? []) {
      const there = router.find(httpMethod, other);
      if (there) return there;
    }
    return undefined;
  }

  /** Serves a request; resolves false, with nothing read or written, when no binding has its path. */
  async function serve(served: Served): Promise<boolean> {
    const { req, sink } = served;
    const { path, query } = splitTarget(req.url ?? "/");
    const httpMethod = methodOf(req);
    const found = find(httpMethod, req, path);
    if (!found) return false;
    if (found.kind === "other-methods") {
      const exchange = unmatched(req, sink, path);
      exchange.setHeader("allow", found.allow.join(", "));
      req.resume();
      if (httpMethod === "OPTIONS") exchange.sendEmpty(204);
      else {
        const message = `${httpMethod} is not a method of ${path}`;
        await refuse(options, served, exchange, refusals.of("method-not-allowed", message));
      }
      done(exchange);
      return true;
    }
    const { binding, endpoint } = found.value;
    const exchange = new Exchange(req, sink, binding.spelling.dialect, options.registry);
    const call = new Call(options, refusals, exchange, found.value, served);
    await call.run(httpMethod, found.captures, query);
    done(exchange, endpoint.method);
    return true;
  }

  async function notFound(served: Pick<Served, "req" | "sink" | "performing">, error?: ConnectError) {
    const { req, sink } = served;
    const { path } = splitTarget(req.url ?? "/");
    const exchange = unmatched(req, sink, path);
    req.resume();
    await refuse(options, served, exchange, error ?? refusals.of("not-found", `nothing is at ${path}`));
    done(exchange);
  }

  const sinkOf = (res: Response): Sink => res as unknown as Sink;

  return {
    routes,
    allow: (path) => router.allow(path),
    handle(req, res) {
      const body = new BodyReader(req, options.maxBodyBytes ?? DEFAULT_MAX_BODY_BYTES, refusals);
      const contextValues = (template: string) => options.contextValues?.(req, template);
      return serve({ req, sink: sinkOf(res), body, contextValues });
    },
    async perform(operation, performing = {}) {
      const sink = new OutcomeSink(performing.responseHeaders);
      const { req, body } = requestOf(operation, refusals);
      const contextValues = () => performing.contextValues;
      if (!(await serve({ req, sink, body, contextValues, performing })))
        await notFound({ req, sink, performing });
      return sink.outcome();
    },
    notFound(req, res, error) {
      void notFound({ req, sink: sinkOf(res) }, error);
    },
  };
}

/** Refuses a request before it became a call. */
async function refuse(
  { stray }: TranscoderOptions,
  { performing }: Pick<Served, "performing">,
  exchange: Exchange,
  error: ConnectError,
): Promise<void> {
  const told = performing ? undefined : await stray?.(exchange.req);
  if (told) exchange.addHeaders(told.headers);
  await exchange.sendError(told?.error ?? error);
}

/** One call of a method by a request. */
class Call {
  readonly #options: TranscoderOptions;
  readonly #refusals: Refusals;
  readonly #exchange: Exchange;
  readonly #binding: Binding;
  readonly #endpoint: RestEndpoint;
  readonly #route: Route;
  readonly #served: Served;

  constructor(
    options: TranscoderOptions,
    refusals: Refusals,
    exchange: Exchange,
    { binding, endpoint, route }: Bound,
    served: Served,
  ) {
    this.#options = options;
    this.#refusals = refusals;
    this.#exchange = exchange;
    this.#binding = binding;
    this.#endpoint = endpoint;
    this.#route = route;
    this.#served = served;
  }

  /** Never rejects: whatever goes wrong is answered. */
  async run(httpMethod: string, captures: readonly Capture[], rawQuery: string): Promise<void> {
    const exchange = this.#exchange;
    let context: ReturnType<typeof createHandlerContext> | undefined;
    try {
      this.#begin(captures);
      const { parameters, query, credential } = this.#query(rawQuery);
      context = this.#context(httpMethod, query, credential);
      await this.#endpoint.enter?.(context);
      const target = this.#binding.target(captures, parameters);
      const input = await this.#input(target);
      if (this.#isStreamOut) {
        const { rule, spelling } = this.#binding;
        const messages = this.#endpoint.invoke(input, context) as AsyncIterable<Message>;
        const { responseBody, method } = rule;
        const { keepAliveMs = DEFAULT_KEEP_ALIVE_MS } = this.#options;
        const { output } = method;
        await sendStream({ exchange, context, messages, output, responseBody, spelling, keepAliveMs });
      } else {
        const response = this.#endpoint.invoke(input, context) as Promise<Message>;
        await sendUnary(exchange, this.#binding, this.#refusals, await orAborted(response, context), context);
      }
    } catch (reason) {
      await this.#fail(reason, context);
    } finally {
      context?.abort(CALL_IS_OVER);
    }
  }

  /** Hears what others have to say about the binding. */
  #begin(captures: readonly Capture[]): void {
    const exchange = this.#exchange;
    const { performing } = this.#served;
    const answer = this.#options.onRoute?.(exchange.req, this.#route, captures);
    for (const [name, value] of Object.entries(answer?.headers ?? {})) exchange.setHeader(name, value);
    for (const name of answer?.vary ?? []) exchange.addVary(name);
    if (answer?.jsonType) exchange.jsonType = answer.jsonType;
    if (answer?.error) throw answer.error;
    if (!performing) return;
    const refused = performing.refuse?.(this.#endpoint.method);
    if (refused) throw refused;
    if (this.#isStreamOut) {
      throw new ConnectError("a stream needs a connection of its own", Code.Unimplemented);
    }
  }

  get #isStreamOut(): boolean {
    const { methodKind } = this.#endpoint.method;
    return methodKind === "server_streaming" || methodKind === "bidi_streaming";
  }

  get #isStreamIn(): boolean {
    const { methodKind } = this.#endpoint.method;
    return methodKind === "client_streaming" || methodKind === "bidi_streaming";
  }

  async #fail(reason: unknown, context: HandlerContext | undefined): Promise<void> {
    const exchange = this.#exchange;
    const error = toConnectError(reason);
    exchange.error = error;
    if (exchange.headersSent) {
      if (!exchange.isOver) exchange.breakOff();
      return;
    }
    // What is left of the body must not hold up the connection.
    exchange.req.resume();
    if (!context) return refuse(this.#options, this.#served, exchange, error);
    exchange.addHeaders(context.responseHeader);
    await exchange.sendError(error);
  }

  /** Takes out of the query what is not for the message. */
  #query(raw: string): { parameters: Parameter[]; query: string; credential: string | undefined } {
    const { credentialQueryParameters = [], ignoreQueryParameters = [] } = this.#options;
    let all: Parameter[];
    try {
      all = parseQuery(raw);
    } catch {
      const message = "the query is not percent-encoded UTF-8";
      throw this.#refusals.of("bad-encoding", message);
    }
    const isField = (name: string) => this.#binding.isParameter(name);
    const takesCredential = this.#endpoint.method.methodKind === "server_streaming";
    const isCredential = ([name]: Parameter) =>
      takesCredential && credentialQueryParameters.includes(name) && !isField(name);
    const isIgnored = ([name]: Parameter) => ignoreQueryParameters.includes(name) && !isField(name);

    const credential = all.find(isCredential);
    if (credential && !TOKEN.test(credential[1])) {
      throw this.#refusals.malformed([{ field: credential[0], description: "is not a bearer token" }]);
    }
    return {
      parameters: all.filter((p) => !isCredential(p) && !isIgnored(p)),
      // A secret must not reach whoever logs the URL.
      query: credential
        ? raw
            .split("&")
            .filter((pair) => !parseQuery(pair).some(isCredential))
            .join("&")
        : raw,
      credential: credential?.[1],
    };
  }

  #context(httpMethod: string, query: string, credential: string | undefined) {
    const exchange = this.#exchange;
    const { req } = exchange;
    const requestHeader = plainHeaders(req.headers);
    // Encoded, for a header takes no character beyond Latin-1; a good credential stays as it is.
    if (credential !== undefined) requestHeader.authorization ??= `Bearer ${encodeURI(credential)}`;
    const { path } = splitTarget(req.url ?? "/");
    const { performing, contextValues: values } = this.#served;
    const timeouts = [timeoutOf(req.headers), performing?.timeoutMs].filter((ms) => ms !== undefined);
    const timeoutMs = timeouts.length > 0 ? Math.min(...timeouts) : undefined;
    const contextValues = values?.(this.#binding.rule.template);
    const init = {
      service: this.#endpoint.method.parent,
      method: this.#endpoint.method,
      protocolName: "rest",
      requestMethod: httpMethod,
      url: urlOf(req, query === "" ? path : `${path}?${query}`),
      requestHeader,
      requestSignal: performing?.signal ?? exchange.gone,
      ...(contextValues && { contextValues }),
    };
    if (timeoutMs === undefined && performing) return innerContext(init);
    return createHandlerContext({ ...init, ...(timeoutMs !== undefined && { timeoutMs }) });
  }

  async #input(target: ReturnType<Binding["target"]>): Promise<Message | AsyncIterable<Message>> {
    const { req } = this.#exchange;
    const binding = this.#binding;
    const reader = this.#served.body;
    if (this.#isStreamIn) return messagesOf(binding, target, reader);

    let message: Message;
    if (!binding.rule.body) {
      req.resume();
      message = binding.fromJson(target, undefined);
    } else if (binding.takesForms && reader.isForm()) {
      message = binding.fromForm(target, await reader.form());
    } else if (binding.isRaw) {
      const data = await reader.bytes();
      message = binding.fromBytes(target, { contentType: reader.contentType, data });
    } else message = binding.fromJson(target, await reader.json());

    const lastEventId = req.headers["last-event-id"];
    if (typeof lastEventId === "string" && lastEventId !== "") binding.resume(message, lastEventId);
    const ifMatch = req.headers["if-match"];
    if (ifMatch !== undefined) binding.ifMatch(message, ifMatch);
    return message;
  }
}

/** The messages of a request stream, each with what the path and the query say. */
async function* messagesOf(
  binding: Binding,
  target: ReturnType<Binding["target"]>,
  reader: Body,
): AsyncGenerator<Message> {
  if (binding.isRaw) {
    const { contentType } = reader;
    for await (const data of reader.chunks()) yield binding.fromBytes(target, { contentType, data });
  } else if (reader.isLines()) {
    let number = 0;
    for await (const json of reader.lines()) {
      number++;
      yield binding.fromJson(target, json, `message ${number}: `);
    }
  } else {
    const json = await reader.json();
    const all = json === undefined ? [] : Array.isArray(json) ? json : [json];
    for (const [i, each] of all.entries()) yield binding.fromJson(target, each, `message ${i + 1}: `);
  }
}
