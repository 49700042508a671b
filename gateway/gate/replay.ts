import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type Message,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { callInfo } from "#kernel/call.ts";
import type { Database } from "#kernel/database.ts";
import { fail } from "#kernel/errors.ts";
import { findReplay } from "#kernel/replay.ts";
import { createSeal, type Seal } from "./seal.ts";

/** The header that carries an idempotency key. */
export const idempotencyHeader = "Idempotency-Key";

/** The header that marks a replayed answer. */
export const replayedHeader = "Idempotency-Replayed";

/**
 * Makes a call with an idempotency key happen once: the first answer is stored with its effect,
 * see `Kernel.mutate`, and given to every repetition; repetitions that arrive while the first is
 * running wait for it. Keys are scoped by tenant and method. What is stored can be read with the
 * idempotency key alone, for an answer may hold a secret that is kept nowhere else.
 */
export function createReplay(database: Database) {
  const running = new Map<string, Promise<unknown>>();

  return async function replay(
    input: Message & { requestId?: string },
    context: HandlerContext,
    run: () => Promise<Message>,
  ): Promise<Message> {
    const info = context.values.get(callInfo);
    const key = context.requestHeader.get(idempotencyHeader) ?? input.requestId ?? "";
    const tenantId = info.principal?.tenantId;
    if (!key || !tenantId) return run();
    if (key.length > 128) {
      throw fail("VALIDATION_ERROR", {
        message: `${idempotencyHeader}: at most 128 characters`,
        violations: [{ field: idempotencyHeader, description: "at most 128 characters" }],
      });
    }
    const { method } = context;
    const name = nameOf(method);
    const scope = [tenantId, name, key].join("\n");
    const seal = createSeal(scope);
    const requestHash = seal.digest(toBinary(method.input, input));
    while (running.has(scope)) {
      // The other call may itself be waiting for this transaction to end.
      if (database.isAtomic) throw fail("CONCURRENT_UPDATE", { message: "The Idempotency-Key is in use" });
      await running.get(scope)?.catch(() => {});
    }

    const attempt = (async () => {
      const stored = await recall(tenantId, method, key, seal, requestHash);
      if (stored) return stored;
      info.replay = {
        key: seal.name,
        method: name,
        requestHash,
        encode: (response) =>
          seal.close(
            toBinary(method.output, create(method.output, response as MessageInitShape<DescMessage>)),
          ),
      };
      try {
        return { message: await run(), replayed: false, resourceId: "" };
      } catch (error) {
        // Another process may have used the key meanwhile; its answer is then the answer.
        const theirs = await recall(tenantId, method, key, seal, requestHash);
        if (theirs) return theirs;
        throw error;
      }
    })();
    running.set(scope, attempt);
    try {
      const { message, replayed, resourceId } = await attempt;
      if (replayed) context.responseHeader.set(replayedHeader, "true");
      if (replayed && info.audit) Object.assign(info.audit, { replayed, resourceId });
      return message;
    } finally {
      running.delete(scope);
    }
  };

  async function recall(tenantId: string, method: DescMethod, key: string, seal: Seal, hash: string) {
    const row = await findReplay(database.read, tenantId, nameOf(method), seal.name);
    if (!row) return undefined;
    if (row.request_hash !== hash) throw fail("IDEMPOTENCY_CONFLICT", { metadata: { key } });
    const message = fromBinary(method.output, seal.open(row.response));
    return { message, replayed: true, resourceId: row.resource_id };
  }
}

const nameOf = (method: DescMethod) => `${method.parent.typeName}.${method.name}`;
