import { create, type DescMethod, type Message } from "@bufbuild/protobuf";
import { createContextValues, createHandlerContext, type HandlerContext } from "@connectrpc/connect";
import { callInfo } from "#kernel/call.ts";
import type { Endpoint } from "#kernel/endpoint.ts";
import type { Kernel } from "#kernel/kernel.ts";

/** Calls between services in this process, through the gate and in the name of the same caller. */
export function createPeers(): Pick<Kernel, "peer" | "peerStream"> & {
  add(endpoints: readonly Endpoint[]): void;
} {
  const known = new Map<DescMethod, Endpoint>();

  function call(method: DescMethod, input: unknown, context: HandlerContext) {
    const endpoint = known.get(method);
    if (!endpoint) throw new Error(`${method.parent.typeName}.${method.name} is not served here`);
    const { replay: _, audit: __, ...info } = context.values.get(callInfo);
    const inner = createHandlerContext({
      service: method.parent,
      method,
      protocolName: "local",
      requestMethod: "POST",
      url: context.url,
      requestSignal: context.signal,
      requestHeader: originOf(context.requestHeader),
      contextValues: createContextValues().set(callInfo, info),
    });
    return endpoint.invoke(create(method.input, input as never), inner);
  }

  return {
    add(endpoints) {
      for (const endpoint of endpoints) known.set(endpoint.method, endpoint);
    },
    peer(service, context) {
      const methods = service.methods.filter(({ methodKind }) => methodKind === "unary");
      return Object.fromEntries(
        methods.map((method) => [
          method.localName,
          (input: unknown) => call(method, input, context) as Promise<Message>,
        ]),
      ) as never;
    },
    peerStream: (method, input, context) => call(method, input, context) as never,
  };
}

/** The headers that tell about the caller; an idempotency key belongs to the outer call alone. */
function originOf(header: Headers): Headers {
  const origin = new Headers();
  const userAgent = header.get("user-agent");
  if (userAgent) origin.set("user-agent", userAgent);
  return origin;
}
