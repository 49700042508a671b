import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  create,
  type DescMethod,
  fromJson,
  type JsonValue,
  type Message,
  type MessageInitShape,
  toJson,
} from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import type { HttpRuleSchema, HttpSchema } from "#gen/google/api/http_pb.js";
import { createTranscoder, type RestEndpoint, type Transcoder, type TranscoderOptions } from "../index.ts";
import { compile, serviceOf } from "./contract.ts";
import { type Answer, serve } from "./server.ts";

export const library = compile({
  "library.proto": readFileSync(join(import.meta.dirname, "library.proto"), "utf8"),
});
const service = serviceOf(library, "library.v1.Library");

/** A rule as `google.api.HttpRule` in short: `"GET /v1/{name}"`, and what else it says. */
export interface ShortRule {
  readonly route: string;
  readonly body?: string;
  readonly responseBody?: string;
  readonly additional?: readonly ShortRule[];
}

/** A rule for a method, written out. */
export function httpRule(
  { route, body = "", responseBody = "", additional = [] }: ShortRule,
  selector = "",
): MessageInitShape<typeof HttpRuleSchema> {
  const space = route.indexOf(" ");
  const [kind, path] = [route.slice(0, space), route.slice(space + 1)];
  const standard = /^(GET|PUT|POST|DELETE|PATCH)$/.test(kind);
  return {
    selector,
    body,
    responseBody,
    pattern: standard
      ? { case: kind.toLowerCase() as "get", value: path }
      : { case: "custom", value: { kind, path } },
    additionalBindings: additional.map((each) => httpRule(each)),
  };
}

/** What the methods got and what they are to answer. */
export class Library {
  /** The method that was called last, and its request as JSON; all requests of a stream. */
  called: [method: string, request: JsonValue] | undefined;
  context: HandlerContext | undefined;
  respond: ((context: HandlerContext) => JsonValue | Promise<JsonValue>) | undefined;

  /** A transcoder for these rules and no others. */
  transcoder(rules: Record<string, ShortRule>, options: Partial<TranscoderOptions> = {}): Transcoder {
    const endpoints = service.methods
      .filter((method) => rules[method.name])
      .map(
        (method): RestEndpoint => ({
          method,
          invoke: (input, context) => this.#invoke(method, input, context),
        }),
      );
    const http: MessageInitShape<typeof HttpSchema> = {
      fullyDecodeReservedExpansion: options.http?.fullyDecodeReservedExpansion ?? false,
      rules: Object.entries(rules).map(([name, rule]) => httpRule(rule, `library.v1.Library.${name}`)),
    };
    return createTranscoder({ endpoints, registry: library, ...options, http });
  }

  #invoke(method: DescMethod, input: Message | AsyncIterable<Message>, context: HandlerContext) {
    this.context = context;
    if (method.methodKind === "bidi_streaming") return this.#talk(method, input as AsyncIterable<Message>);
    this.called = [method.name, toJson(method.input, input as Message, { registry: library })];
    if (method.methodKind === "server_streaming") return this.#follow(method, context);
    return this.#answer(method, context);
  }

  async #answer(method: DescMethod, context: HandlerContext): Promise<Message> {
    const json = await this.respond?.(context);
    return json === undefined ? create(method.output) : fromJson(method.output, json, { registry: library });
  }

  async *#follow(method: DescMethod, context: HandlerContext): AsyncGenerator<Message> {
    yield await this.#answer(method, context);
  }

  async *#talk(method: DescMethod, input: AsyncIterable<Message>): AsyncGenerator<Message> {
    for await (const each of input) {
      this.called = [method.name, toJson(method.input, each)];
      yield each;
    }
  }
}

/** Serves a transcoder for one use. */
export async function using<T>(
  transcoder: Transcoder,
  use: (
    send: (
      method: string,
      path: string,
      more?: { headers?: object; body?: string | Uint8Array },
    ) => Promise<Answer>,
  ) => Promise<T>,
): Promise<T> {
  const server = await serve(transcoder);
  try {
    return await use(server.send);
  } finally {
    await server.close();
  }
}
