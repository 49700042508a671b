import type { DescMethod, Message, MessageInitShape, Registry } from "@bufbuild/protobuf";
import type { ConnectError, ContextValues, HandlerContext } from "@connectrpc/connect";
import type { HttpSchema } from "#gen/google/api/http_pb.js";
import { Binding } from "./binding.ts";
import { Call } from "./call.ts";
import type { Dialect } from "./dialect.ts";
import { type RefusalError, Refusals } from "./errors.ts";
import { Exchange } from "./exchange.ts";
import { methodOf, type Request, type Response, splitTarget } from "./http.ts";
import { Router } from "./router.ts";
import { nameOf, type Rule, rulesOf, ServiceConfig } from "./rules.ts";
import { Spelling } from "./spelling.ts";
import { parseTemplate } from "./template.ts";

export type { Dialect } from "./dialect.ts";
export {
  detailsJson,
  httpStatusOf,
  type RefusalError,
  type RefusalKind,
  refusalError,
  statusJson,
} from "./errors.ts";

export { type Rendered, type RenderOptions, render } from "./render.ts";
export { type Rule, rulesOf } from "./rules.ts";
export { Spelling } from "./spelling.ts";
export { parseTemplate, type Template } from "./template.ts";

/** One method ready to be called. */
export interface RestEndpoint {
  readonly method: DescMethod;
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
  /** For `google.protobuf.Any` and for error details that came as bytes. */
  registry?: Registry;
  /** Called once per method, when the transcoder is made. */
  dialect?(method: DescMethod): Dialect;
  /** The limit of a body, or of one message of a stream; 4 MiB if not given. */
  maxBodyBytes?: number;
  /** Called for every request. */
  contextValues?(req: Request): ContextValues;
  /** The dialect of 404 and 405, where no method is known. */
  unmatchedDialect?(path: string): Dialect;
  /**
   * Query parameters that server-streaming methods take as a bearer token, since a browser's
   * EventSource cannot set headers.
   */
  credentialQueryParameters?: readonly string[];
  /** Query parameters passed over where they are not fields of the request. */
  ignoreQueryParameters?: readonly string[];
  /** Whether a route passes over all query parameters it does not know, rather than refuse them. */
  ignoreUnknownQuery?(rule: Rule): boolean;
  /** How long a stream of server-sent events is silent before a comment is sent; 15 s if not given, 0 for never. */
  keepAliveMs?: number;
  /** Makes the errors of requests that were refused before a handler was called. */
  error?: RefusalError;
  /**
   * Called once for every request that was answered, after the response was written. What a handler threw
   * that is no `ConnectError` is the error's `cause`.
   */
  onDone?(info: { method?: DescMethod; status: number; req: Request; error?: ConnectError }): void;
}

/** Serves REST requests by calling methods. */
export interface Transcoder {
  /** Serves the request; resolves false, with nothing read or written, when no binding has this path. */
  handle(req: Request, res: Response): Promise<boolean>;
  /** Answers 404, or the error given, in the form of `unmatchedDialect`. */
  notFound(req: Request, res: Response, error?: ConnectError): void;
  /** The bindings, in the order of the endpoints. */
  readonly routes: readonly { httpMethod: string; template: string; method: DescMethod }[];
}

interface Route {
  readonly endpoint: RestEndpoint;
  readonly binding: Binding;
}

/**
 * Makes a transcoder for the `google.api.http` annotations of methods. Throws if an annotation is not
 * valid, two of them would answer the same requests, or a selector selects nothing.
 */
export function createTranscoder(options: TranscoderOptions): Transcoder {
  const refusals = new Refusals(options.error);
  const router = new Router<Route>();
  const routes: { httpMethod: string; template: string; method: DescMethod }[] = [];
  const spellings = new Map<Dialect, Spelling>();
  const plain: Dialect = {};
  const config = new ServiceConfig(options.http ?? {});
  const endpoints = [...options.endpoints];
  config.requireUse(endpoints.map(({ method }) => method));

  for (const endpoint of endpoints) {
    const { method } = endpoint;
    const rules = rulesOf(method, config.ruleFor(method));
    if (rules.length === 0) continue;
    const dialect = options.dialect?.(method) ?? plain;
    const spelling = spellings.get(dialect) ?? new Spelling(dialect, options.registry);
    spellings.set(dialect, spelling);
    for (const rule of rules) {
      const template = parseTemplate(rule.template);
      const binding = new Binding(rule, template, spelling, refusals, {
        fullyDecode: options.http?.fullyDecodeReservedExpansion ?? false,
        ignoreUnknownQuery: options.ignoreUnknownQuery?.(rule) ?? false,
      });
      router.add(rule.httpMethod, template, nameOf(method), { endpoint, binding });
      routes.push({ httpMethod: rule.httpMethod, template: rule.template, method });
    }
  }

  const done = (exchange: Exchange, method?: DescMethod): void => {
    const { error, req, status } = exchange;
    options.onDone?.({ status, req, ...(method && { method }), ...(error && { error }) });
  };
  const unmatched = (req: Request, res: Response, path: string): Exchange =>
    new Exchange(req, res, options.unmatchedDialect?.(path) ?? plain, options.registry);

  return {
    routes,
    async handle(req, res) {
      const { path, query } = splitTarget(req.url ?? "/");
      const httpMethod = methodOf(req);
      const found = router.find(httpMethod, path);
      if (!found) return false;
      if (found.kind === "other-methods") {
        const exchange = unmatched(req, res, path);
        exchange.setHeader("allow", found.allow.join(", "));
        req.resume();
        if (httpMethod === "OPTIONS") exchange.sendEmpty(204);
        else {
          const message = `${httpMethod} is not a method of ${path}`;
          await exchange.sendError(refusals.of("method-not-allowed", message));
        }
        done(exchange);
        return true;
      }
      const { binding, endpoint } = found.value;
      const exchange = new Exchange(req, res, binding.spelling.dialect, options.registry);
      const call = new Call(options, refusals, exchange, binding, endpoint);
      await call.run(httpMethod, found.captures, query);
      done(exchange, endpoint.method);
      return true;
    },
    notFound(req, res, error) {
      const { path } = splitTarget(req.url ?? "/");
      const exchange = unmatched(req, res, path);
      req.resume();
      exchange
        .sendError(error ?? refusals.of("not-found", `nothing is at ${path}`))
        .then(() => done(exchange));
    },
  };
}
