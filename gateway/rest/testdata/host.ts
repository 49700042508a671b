import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { create, type DescMethod, fromJson, type JsonValue, type Message, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { createTranscoder, type RestEndpoint, type Transcoder, type TranscoderOptions } from "../index.ts";
import { compile, messageOf, serviceOf } from "./contract.ts";

export const registry = compile({
  "voyages.proto": readFileSync(join(import.meta.dirname, "voyages.proto"), "utf8"),
});
const service = serviceOf(registry, "voyages.v1.Voyages");

/** What the handlers saw, and what they are to do. */
export class Host {
  /** The last input as canonical JSON; of a request stream, all of them. */
  // biome-ignore lint/suspicious/noExplicitAny: tests read what they sent
  input: any;
  message: Message | undefined;
  context: HandlerContext | undefined;
  pulled = 0;
  returned = false;
  /** Gives the response as JSON, or throws; unary methods answer with the default without it. */
  respond: ((method: DescMethod, context: HandlerContext) => JsonValue | Promise<JsonValue>) | undefined;

  transcoder(options: Partial<TranscoderOptions> = {}): Transcoder {
    const endpoints = service.methods.map((method) => this.#endpoint(method));
    return createTranscoder({ endpoints, registry, ...options });
  }

  #endpoint(method: DescMethod): RestEndpoint {
    return {
      method,
      invoke: (input, context) => {
        this.context = context;
        return method.methodKind === "server_streaming"
          ? this.#stream(method, input as Message, context)
          : this.#unary(method, input, context);
      },
    };
  }

  async #unary(
    method: DescMethod,
    input: Message | AsyncIterable<Message>,
    context: HandlerContext,
  ): Promise<Message> {
    if (method.methodKind === "client_streaming") {
      this.input = [];
      for await (const each of input as AsyncIterable<Message>) {
        this.input.push(toJson(method.input, each, { registry }));
      }
    } else {
      this.message = input as Message;
      this.input = toJson(method.input, input as Message, { registry });
    }
    const json = await this.respond?.(method, context);
    return json === undefined ? create(method.output) : fromJson(method.output, json, { registry });
  }

  async *#stream(method: DescMethod, input: Message, context: HandlerContext): AsyncGenerator<Message> {
    const ask = input as Message &
      Record<"count" | "failAt" | "waitMs" | "size", number> & { forever: boolean };
    this.message = input;
    this.input = toJson(method.input, input);
    this.pulled = 0;
    this.returned = false;
    try {
      await this.respond?.(method, context);
      if (ask.waitMs) await sleep(ask.waitMs, undefined, { signal: context.signal });
      for (let i = 1; i <= ask.count || ask.forever; i++) {
        if (i === ask.failAt) throw new ConnectError("engine stopped", Code.Unavailable);
        this.pulled = i;
        yield this.#piece(method, i, ask.size);
        if (ask.forever && !ask.size) await sleep(20);
      }
    } finally {
      this.returned = true;
    }
  }

  #piece(method: DescMethod, i: number, size: number): Message {
    switch (method.name) {
      case "Watch":
        return create(messageOf(registry, "voyages.v1.Tick"), {
          sequence: BigInt(i * 10),
          text: size ? "x".repeat(size) : `tick ${i}`,
          cargo: 2,
        });
      case "Names":
        return create(messageOf(registry, "voyages.v1.Voyage"), { id: `v${i}` });
      default:
        return create(messageOf(registry, "google.api.HttpBody"), {
          contentType: "text/csv",
          data: Buffer.from(`${i},`),
        });
    }
  }
}
