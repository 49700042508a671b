import {
  create,
  type DescMethod,
  fromJson,
  getOption,
  type JsonValue,
  type Message,
  toJson,
} from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import { http } from "#gen/google/api/annotations_pb.js";
import { type HttpRule, HttpRuleSchema } from "#gen/google/api/http_pb.js";
import type { RestEndpoint, TranscoderOptions } from "../index.ts";
import { nameOf } from "../rules.ts";
import type { Image } from "./image.ts";

/**
 * Endpoints that answer with the name of the method and the request as it was bound, whatever the
 * method's own response is: `{"method": "…", "request": {…}}`, or `requests` where the client streams.
 */
export function echoEndpoints({ methods, registry }: Image): Pick<TranscoderOptions, "endpoints" | "http"> {
  const answer = (method: DescMethod, what: object): Message =>
    fromJson(StructSchema, { method: nameOf(method), ...what });
  const jsonOf = (method: DescMethod, message: Message) => toJson(method.input, message, { registry });

  const endpoints = methods.map((method): RestEndpoint => {
    // What is answered has nothing of the method's own response.
    const echoing = Object.create(method, { output: { value: StructSchema } }) as DescMethod;
    const isStreamIn = method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming";
    const isStreamOut = method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming";
    const reply = async (input: Message | AsyncIterable<Message>): Promise<Message> => {
      if (!isStreamIn) return answer(method, { request: jsonOf(method, input as Message) });
      const requests: JsonValue[] = [];
      for await (const each of input as AsyncIterable<Message>) requests.push(jsonOf(method, each));
      return answer(method, { requests });
    };
    async function* stream(input: Message | AsyncIterable<Message>) {
      yield await reply(input);
    }
    return { method: echoing, invoke: (input) => (isStreamOut ? stream(input) : reply(input)) };
  });
  return { endpoints, http: { rules: methods.map(withoutResponseBody) } };
}

function withoutResponseBody(method: DescMethod): HttpRule {
  const strip = (rule: HttpRule): HttpRule => create(HttpRuleSchema, { ...rule, responseBody: "" });
  const rule = getOption(method, http);
  return {
    ...strip(rule),
    selector: nameOf(method),
    additionalBindings: rule.additionalBindings.map(strip),
  };
}
