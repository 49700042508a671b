import type { Message } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Compression } from "@connectrpc/connect/protocol";
import { wireOptions } from "../connect/lane.ts";
import { admit, contextOf, type ExpressCall, failureOf, fieldsOf, receive, type Timeout } from "./call.ts";
import { type Codings, negotiate } from "./compression.ts";
import { type Envelope, EnvelopeReader, open, seal } from "./framing.ts";
import type { Fields, LazyHeaders } from "./headers.ts";

/**
 * A protocol whose messages travel in envelopes of flags and size. Within, all are the same; they
 * differ in the names of their headers and in how the end is told.
 */
export interface EnvelopedWire {
  readonly protocolName: string;
  /** Protobuf, or JSON. */
  readonly binary: boolean;
  /** Headers as handlers find them: the type of the answer. */
  readonly header: Fields;
  readonly timeoutHeader: string;
  readonly encodingHeader: string;
  readonly acceptHeader: string;
  /** Reads the value of the timeout header: milliseconds, and what is wrong with it. */
  parseTimeout(value: string | null, maxMs: number): Timeout;
  /** Flag of the envelope that ends a stream and holds no message; undefined if HTTP trailers do. */
  readonly endFlag: number | undefined;
  /** Trailers as handlers find them. */
  readonly trailer: Fields;
  /** What ends the answer: HTTP trailers, or the data of the last envelope. */
  end(trailer: LazyHeaders, error: ConnectError | undefined): Fields | Uint8Array;
}

/** Serves a unary or server-streaming call of such a protocol. */
export async function serveEnveloped(wire: EnvelopedWire, call: ExpressCall): Promise<void> {
  const { plan, exchange } = call;
  const timeout = wire.parseTimeout(headerOf(call, wire.timeoutHeader), wireOptions.maxTimeoutMs);
  const codings = negotiate(
    headerOf(call, wire.encodingHeader),
    headerOf(call, wire.acceptHeader),
    wire.acceptHeader,
  );
  const header = codings.response
    ? { ...wire.header, [wire.encodingHeader]: codings.response.name }
    : wire.header;
  const context = contextOf(call, wire.protocolName, timeout, header, wire.trailer);

  let begun = false;
  const begin = () => {
    begun = true;
    exchange.begin(200, fieldsOf(call, context), { trailers: wire.endFlag === undefined });
  };
  let last: Buffer | undefined;
  let error: ConnectError | undefined;
  try {
    await admit(call, context, codings.error ?? timeout.error);
    const input = await readSingle(wire, call, codings);
    const output = plan.endpoint.invoke(input, context);
    if (output instanceof Promise) {
      last = await seal(0, plan.encode(await output, wire.binary), codings.response);
    } else {
      for await (const message of output) {
        const bytes = seal(0, plan.encode(message, wire.binary), codings.response);
        const sealed = bytes instanceof Promise ? await bytes : bytes;
        if (exchange.gone) break;
        if (!begun) begin();
        if (!exchange.write(sealed)) await exchange.drained();
        if (exchange.gone) break;
      }
    }
  } catch (thrown) {
    error = failureOf(thrown, call);
  }
  context.lifetime.end();
  if (exchange.gone) return;
  const end = wire.end(context.responseTrailer, error);
  const tail =
    end instanceof Uint8Array ? await seal(wire.endFlag as number, end, codings.response) : undefined;
  if (exchange.gone) return;
  if (!begun) begin();
  if (end instanceof Uint8Array) exchange.end(last ? Buffer.concat([last, tail as Buffer]) : tail);
  else exchange.end(last, end);
}

/** The one message of the request, which is the whole body. */
function readSingle(wire: EnvelopedWire, call: ExpressCall, { request }: Codings): Promise<Message> {
  const kind = call.plan.streams ? "server-streaming" : "unary";
  return new Promise((resolve, reject) => {
    const reader = new EnvelopeReader();
    let message: Message | Promise<Message> | undefined;
    receive(call, {
      chunk(bytes) {
        for (const envelope of reader.push(bytes)) {
          if (wire.endFlag !== undefined && (envelope.flags & wire.endFlag) === wire.endFlag) continue;
          // A message that cannot be read is told before that it was one too many.
          if (message === undefined) message = decode(wire, call, envelope, request);
          else
            message = after(message, () => after(decode(wire, call, envelope, request), () => extra(kind)));
          if (message instanceof Promise) message.catch(reject);
        }
      },
      end() {
        const only = after(message, (found) => {
          if (reader.incomplete)
            throw new ConnectError("protocol error: incomplete envelope", Code.InvalidArgument);
          return found ?? missing(kind);
        });
        if (only instanceof Promise) only.then(resolve, reject);
        else resolve(only);
      },
      fail: reject,
    });
  });
}

function extra(kind: string): never {
  throw new ConnectError(
    `protocol error: received extra input message for ${kind} method`,
    Code.Unimplemented,
  );
}

function missing(kind: string): never {
  throw new ConnectError(`protocol error: missing input message for ${kind} method`, Code.Unimplemented);
}

function decode(
  { binary }: EnvelopedWire,
  { plan }: ExpressCall,
  envelope: Envelope,
  coding: Compression | null,
): Message | Promise<Message> {
  return after(open(envelope, coding), (data) => plan.decode(data, binary));
}

/** Goes on with a value that may have to be waited for. */
function after<T, R>(value: T | Promise<T>, next: (value: T) => R | Promise<R>): R | Promise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}

function headerOf({ exchange }: ExpressCall, name: string): string | null {
  const value = exchange.headers[name];
  return typeof value === "string" ? value : null;
}
