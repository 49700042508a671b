import type { JsonObject } from "@bufbuild/protobuf";
import { etagField, isHttpBody, type Rule } from "../rest/index.ts";
import { isStreamIn, isStreamOut } from "./shape.ts";

/** Whether a binding answers with an entity tag, and with 304 to those who have what it stands for. */
export const hasTag = ({ httpMethod, method }: Rule): boolean => httpMethod === "GET" && !isStreamOut(method);

/** Whether a binding takes the tag that was read, to change nothing else. */
export function takesTag({ httpMethod, method, body }: Rule): boolean {
  if (httpMethod === "GET" || isStreamIn(method)) return false;
  const inner = body && body !== "*" && body.fieldKind === "message" ? body.message : undefined;
  return [method.input, inner].some((message) => etagField(message) !== undefined && !isHttpBody(message));
}

/** The header parameters of conditions. */
export function conditionParameters(rule: Rule): JsonObject[] {
  const header = (name: string, description: string): JsonObject => ({
    name,
    in: "header",
    description,
    schema: { type: "string" },
  });
  return [
    ...(hasTag(rule)
      ? [header("If-None-Match", "The `ETag` that is there already: answers 304 to it.")]
      : []),
    ...(takesTag(rule) ? [header("If-Match", "The `ETag` that was read: answers 412 to an old one.")] : []),
  ];
}
