import type { Message } from "@bufbuild/protobuf";
import { Code, ConnectError, createHandlerContext, type HandlerContext } from "@connectrpc/connect";
import type { Binding } from "./binding.ts";
import { BodyReader } from "./body.ts";
import { tagIn } from "./conditional.ts";
import { type Refusals, toConnectError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { isHttpBody } from "./fields.ts";
import { plainHeaders, splitTarget, timeoutOf, urlOf } from "./http.ts";
import type { RestEndpoint, TranscoderOptions } from "./index.ts";
import { type Parameter, parseQuery } from "./query.ts";
import { sendRepresentation } from "./representation.ts";
import type { Capture } from "./router.ts";
import { httpBodyOf, sendStream } from "./stream.ts";

const DEFAULT_MAX_BODY_BYTES = 4 * 1024 * 1024;
const DEFAULT_KEEP_ALIVE_MS = 15_000;
/** One object for all calls: a reason made per call costs a tenth of a small call. */
const CALL_IS_OVER = new ConnectError("the call is over", Code.Canceled);
/** What a header can hold of a token. */
const TOKEN = /^[\x21-\x7e]*$/;

/** One call of a method by a request. */
export class Call {
  readonly #options: TranscoderOptions;
  readonly #refusals: Refusals;
  readonly #exchange: Exchange;
  readonly #binding: Binding;
  readonly #endpoint: RestEndpoint;

  constructor(
    options: TranscoderOptions,
    refusals: Refusals,
    exchange: Exchange,
    binding: Binding,
    endpoint: RestEndpoint,
  ) {
    this.#options = options;
    this.#refusals = refusals;
    this.#exchange = exchange;
    this.#binding = binding;
    this.#endpoint = endpoint;
  }

  /** Never rejects: whatever goes wrong is answered. */
  async run(httpMethod: string, captures: readonly Capture[], rawQuery: string): Promise<void> {
    const exchange = this.#exchange;
    let context: ReturnType<typeof createHandlerContext> | undefined;
    try {
      const { parameters, query, credential } = this.#query(rawQuery);
      context = this.#context(httpMethod, query, credential);
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
        await this.#sendUnary(await orAborted(response, context), context);
      }
    } catch (reason) {
      await this.#fail(reason, context);
    } finally {
      context?.abort(CALL_IS_OVER);
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
    if (context) exchange.addHeaders(context.responseHeader);
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
    if (credential !== undefined) requestHeader.authorization ??= `Bearer ${credential}`;
    const { path } = splitTarget(req.url ?? "/");
    const timeoutMs = timeoutOf(req.headers);
    const contextValues = this.#options.contextValues?.(req);
    return createHandlerContext({
      service: this.#endpoint.method.parent,
      method: this.#endpoint.method,
      protocolName: "rest",
      requestMethod: httpMethod,
      url: urlOf(req, query === "" ? path : `${path}?${query}`),
      requestHeader,
      requestSignal: exchange.gone,
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(contextValues && { contextValues }),
    });
  }

  async #input(target: ReturnType<Binding["target"]>): Promise<Message | AsyncIterable<Message>> {
    const { req } = this.#exchange;
    const binding = this.#binding;
    const maxBytes = this.#options.maxBodyBytes ?? DEFAULT_MAX_BODY_BYTES;
    const reader = new BodyReader(req, maxBytes, this.#refusals);
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

  async #sendUnary(response: Message, context: HandlerContext): Promise<void> {
    const exchange = this.#exchange;
    if (exchange.isOver) return;
    const { rule, spelling } = this.#binding;
    const { output } = rule.method;
    const { successStatus = 200, envelope } = spelling.dialect;
    exchange.addHeaders(context.responseHeader);
    exchange.addHeaders(context.responseTrailer);
    const status = successStatus;
    if (status === 204) {
      exchange.sendEmpty(204);
    } else if (isHttpBody(rule.responseBody?.message ?? output)) {
      const body = httpBodyOf(response, rule.responseBody);
      const data = body?.data ?? new Uint8Array();
      const contentType = body?.contentType || "application/octet-stream";
      await sendRepresentation(exchange, this.#refusals, { status, contentType, data, takesRanges: true });
    } else {
      const json = rule.responseBody
        ? spelling.writeField(output, response, rule.responseBody)
        : spelling.write(output, response);
      const body = envelope ? envelope.call(spelling.dialect, json, response, rule.method) : json;
      const { tagPlace } = this.#binding;
      await sendRepresentation(exchange, this.#refusals, {
        status,
        contentType: "application/json",
        data: Buffer.from(JSON.stringify(body)),
        etag: tagPlace && tagIn(response, tagPlace),
        hasOther: tagPlace?.hasOther,
        ...(spelling.dialect.envelopeVaries && { tagged: () => Buffer.from(JSON.stringify(json)) }),
      });
    }
  }
}

/** The messages of a request stream, each with what the path and the query say. */
async function* messagesOf(
  binding: Binding,
  target: ReturnType<Binding["target"]>,
  reader: BodyReader,
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

/** Settles as the response does, or fails at the deadline if that comes first. */
function orAborted(response: Promise<Message>, context: HandlerContext): Promise<Message> {
  if (context.timeoutMs() === undefined) return response;
  return new Promise((resolve, reject) => {
    const { signal } = context;
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    response.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
