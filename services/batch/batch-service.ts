import { create, type DescMethod, fromJson, type JsonValue, toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import type { ConnectError, HandlerContext, ServiceImpl } from "@connectrpc/connect";
import {
  type BatchOperation,
  BatchOrder,
  type BatchRequest,
  BatchResponseSchema,
  type BatchResult,
  BatchResultSchema,
  BatchService,
} from "#gen/portolan/batch/v1/batch_service_pb.js";
import { type CallInfo, callInfo } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { NoSuchReference, referencesIn, resolve, type Template } from "./references.ts";
import { type Order, runAll, waits } from "./schedule.ts";

/** Operations that run at the same time. */
const together = 16;

/** How long the operations of an atomic batch may take, in milliseconds: other writes may wait for it. */
const atomicMs = 10_000;

/** Serves one REST request without a socket; never rejects. */
export type Perform = (
  request: Template & { readonly method: string },
  how: {
    readonly info: CallInfo;
    readonly signal: AbortSignal;
    readonly timeoutMs: number | undefined;
    /** Gives an error to answer instead of calling the method. */
    refuse(method: DescMethod): ConnectError | undefined;
  },
) => Promise<Performed>;

/** The response to a request. */
export interface Performed {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly json?: JsonValue | undefined;
  /** A body that is not JSON. */
  readonly bytes?: Uint8Array | undefined;
}

/** An operation with its id and what it refers to. */
interface Step {
  readonly id: string;
  readonly method: string;
  readonly template: Template;
  /** Whether it has references, to earlier operations or to nothing. */
  readonly refers: boolean;
  /** Places of the operations it refers to. */
  readonly refersTo: readonly number[];
}

/** Handlers of BatchService. */
export function createBatchService(kernel: Kernel, perform: Perform): ServiceImpl<typeof BatchService> {
  return {
    async batch(request, context) {
      const steps = stepsOf(request, originOf(context));
      const run = new Run(steps, context, perform);
      if (!request.atomic) {
        const places = steps.map(({ method, refersTo }) => ({ mutates: !isRead(method), refersTo }));
        await runAll(waits(places, orderOf(request.order)), together, (at) => run.step(at));
        return create(BatchResponseSchema, { results: run.results() });
      }
      run.limit(atomicMs);
      try {
        await kernel.database.atomically(async () => {
          for (const at of steps.keys()) {
            await run.step(at);
            if (run.failed(at)) throw new Undone(at);
          }
        });
      } catch (thrown) {
        if (!(thrown instanceof Undone)) throw thrown;
        await run.undo(thrown.by);
        return create(BatchResponseSchema, { results: run.results(), rolledBack: true });
      }
      return create(BatchResponseSchema, { results: run.results() });
    },
  };
}

/** Ends an atomic batch because of the operation at a place. */
class Undone extends Error {
  readonly by: number;

  constructor(by: number) {
    super("the batch is undone");
    this.by = by;
  }
}

/** One run of the operations of a batch. */
class Run {
  readonly #steps: readonly Step[];
  readonly #context: HandlerContext;
  readonly #perform: Perform;
  readonly #performed: Performed[] = [];
  #signal: AbortSignal;
  #endsAt = Number.POSITIVE_INFINITY;

  constructor(steps: readonly Step[], context: HandlerContext, perform: Perform) {
    this.#steps = steps;
    this.#context = context;
    this.#perform = perform;
    this.#signal = context.signal;
    const timeoutMs = context.timeoutMs();
    if (timeoutMs !== undefined) this.#endsAt = performance.now() + timeoutMs;
  }

  /** Ends the operations after a time, if nothing ends them before. */
  limit(ms: number): void {
    this.#endsAt = Math.min(this.#endsAt, performance.now() + ms);
    this.#signal = AbortSignal.any([this.#signal, AbortSignal.timeout(ms)]);
  }

  /** Runs the operation at a place, those that it refers to having run. */
  async step(at: number): Promise<void> {
    const step = this.#steps[at] as Step;
    this.#performed[at] = await this.#answer(step);
  }

  failed(at: number): boolean {
    return (this.#performed[at]?.status ?? 0) >= 400;
  }

  /** Replaces all results but one, after the writes of all were undone because of it. */
  async undo(by: number): Promise<void> {
    const operation = this.#steps[by]?.id ?? "";
    for (const [at, step] of this.#steps.entries()) {
      if (at === by) continue;
      const message = `The batch was rolled back, since the operation ${operation} failed`;
      const error = fail("BATCH_ROLLED_BACK", { message, metadata: { operation } });
      this.#performed[at] = await this.#send(step, step.template, error);
    }
  }

  results(): BatchResult[] {
    return this.#performed.map((performed, at) => toResult(this.#steps[at]?.id ?? "", performed));
  }

  async #answer(step: Step): Promise<Performed> {
    if (this.#signal.aborted) return this.#send(step, step.template, this.#cut());
    if (!step.refers) return this.#send(step, step.template);
    const failed = step.refersTo.find((place) => this.failed(place));
    if (failed !== undefined) {
      const operation = this.#steps[failed]?.id ?? "";
      const message = `The operation ${operation}, which this one refers to, failed`;
      return this.#send(step, step.template, fail("FAILED_DEPENDENCY", { message, metadata: { operation } }));
    }
    try {
      const answers = new Map(
        step.refersTo.map((place) => [this.#steps[place]?.id ?? "", this.#performed[place] as Performed]),
      );
      return await this.#send(step, resolve(step.template, answers));
    } catch (thrown) {
      if (!(thrown instanceof NoSuchReference)) throw thrown;
      const { message, reference } = thrown;
      const error = fail("REFERENCE_NOT_FOUND", { message, metadata: { reference } });
      return this.#send(step, step.template, error);
    }
  }

  #cut(): ConnectError {
    return fail(this.#context.signal.aborted ? "CANCELLED" : "DEADLINE_EXCEEDED");
  }

  #send({ id, method }: Step, template: Template, error?: ConnectError): Promise<Performed> {
    const { replay: _, audit: __, ...info } = this.#context.values.get(callInfo);
    const leftMs = Math.max(1, Math.ceil(this.#endsAt - performance.now()));
    return this.#perform(
      { ...template, method },
      {
        info: { ...info, requestId: `${info.requestId}:${id}` },
        // An operation that is only to be answered must not be cut short before that.
        signal: error ? this.#context.signal : this.#signal,
        timeoutMs: Number.isFinite(leftMs) ? leftMs : undefined,
        refuse: (called) => error ?? refusalOf(called),
      },
    );
  }
}

function refusalOf(method: DescMethod): ConnectError | undefined {
  const name = `${method.parent.typeName}.${method.name}`;
  if (method.methodKind !== "unary") return fail("NOT_BATCHABLE", { message: `${name} is a stream` });
  if (method.parent.typeName !== BatchService.typeName) return undefined;
  return fail("NOT_BATCHABLE", { message: "A batch cannot hold another batch" });
}

function stepsOf({ operations, literal }: BatchRequest, origin: Record<string, string>): Step[] {
  const ids = operations.map(({ id }, at) => id || `op${at + 1}`);
  const places = new Map<string, number>();
  for (const [at, id] of ids.entries()) {
    if (places.has(id)) {
      const description = `another operation is called ${id}`;
      const field = `operations[${at}].id`;
      throw fail("VALIDATION_ERROR", {
        message: `${field}: ${description}`,
        violations: [{ field, description }],
      });
    }
    places.set(id, at);
  }
  return operations.map((operation, at) => {
    const template = templateOf(operation, origin);
    const referred = literal ? [] : [...referencesIn(template)].map((id) => places.get(id) ?? at);
    return {
      id: ids[at] as string,
      method: operation.method,
      template,
      refers: referred.length > 0,
      refersTo: referred.filter((place) => place < at),
    };
  });
}

function templateOf({ path, headers, body }: BatchOperation, origin: Record<string, string>): Template {
  const own = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]);
  return {
    path,
    headers: { ...origin, ...Object.fromEntries(own) },
    body: body && toJson(ValueSchema, body),
  };
}

/** The headers that tell where a batch came from, which its operations share. */
function originOf({ requestHeader, url }: HandlerContext): Record<string, string> {
  const userAgent = requestHeader.get("user-agent");
  return { host: new URL(url).host, ...(userAgent && { "user-agent": userAgent }) };
}

const isRead = (method: string): boolean => method === "GET" || method === "HEAD" || method === "OPTIONS";

const orderOf = (order: BatchOrder): Order =>
  order === BatchOrder.SEQUENTIAL
    ? "sequential"
    : order === BatchOrder.PARALLEL
      ? "parallel"
      : "as-if-in-order";

function toResult(id: string, { status, headers, json, bytes }: Performed): BatchResult {
  const body = json ?? (bytes?.length ? textOf(headers["content-type"] ?? "", bytes) : undefined);
  return create(BatchResultSchema, {
    id,
    status,
    headers,
    ...(body !== undefined && { body: fromJson(ValueSchema, body) }),
  });
}

/** Text as it is, other bytes in base64. */
const textOf = (contentType: string, bytes: Uint8Array): string =>
  Buffer.from(bytes).toString(contentType.startsWith("text/") ? "utf8" : "base64");
