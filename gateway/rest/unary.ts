import type { JsonValue, Message } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import type { Binding } from "./binding.ts";
import { tagIn } from "./conditional.ts";
import type { Refusals } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { isHttpBody } from "./fields.ts";
import { splitTarget } from "./http.ts";
import { sendRepresentation } from "./representation.ts";
import { httpBodyOf } from "./stream.ts";

/** Answers with one message, as the conditions of the request demand; throws a refusal. */
export async function sendUnary(
  exchange: Exchange,
  { rule, spelling, tagPlace }: Binding,
  refusals: Refusals,
  response: Message,
  context: HandlerContext,
): Promise<void> {
  if (exchange.isOver) return;
  const { output } = rule.method;
  const { successStatus: status = 200, envelope, envelopeVaries } = spelling.dialect;
  exchange.addHeaders(context.responseHeader);
  exchange.addHeaders(context.responseTrailer);
  if (exchange.isRead && spelling.dialect.headers) {
    const target = splitTarget(exchange.req.url ?? "/");
    exchange.addHeaders(new Headers(spelling.dialect.headers(response, rule.method, { target })));
  }
  if (status === 204) return exchange.sendEmpty(204);
  if (isHttpBody(rule.responseBody?.message ?? output)) {
    const body = httpBodyOf(response, rule.responseBody);
    const contentType = body?.contentType || "application/octet-stream";
    const data = body?.data ?? new Uint8Array();
    return sendRepresentation(exchange, refusals, { status, contentType, data, takesRanges: true });
  }
  const json = rule.responseBody
    ? spelling.writeField(output, response, rule.responseBody)
    : spelling.write(output, response);
  const body = envelope ? envelope.call(spelling.dialect, json, response, rule.method, exchange) : json;
  if (!exchange.isRead) return exchange.sendJson(status, body);
  const bytesOf = (of: JsonValue) => Buffer.from(JSON.stringify(of));
  return sendRepresentation(exchange, refusals, {
    status,
    contentType: exchange.jsonType,
    json: body,
    // Not made where neither the answer nor its tag needs it.
    get data() {
      return bytesOf(body);
    },
    etag: tagPlace && tagIn(response, tagPlace),
    hasOther: tagPlace?.hasOther,
    ...(envelopeVaries && { tagged: () => bytesOf(json) }),
  });
}

/** Settles as the response does, or fails at the deadline if that comes first. */
export function orAborted(response: Promise<Message>, context: HandlerContext): Promise<Message> {
  if (context.timeoutMs() === undefined) return response;
  return new Promise((resolve, reject) => {
    const { signal } = context;
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    response.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
