import { createHash } from "node:crypto";
import {
  create,
  type DescMessage,
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

/** The header that carries an idempotency key. */
export const idempotencyHeader = "Idempotency-Key";

/** The header that marks a replayed answer. */
export const replayedHeader = "Idempotency-Replayed";

/**
 * Makes a call with an idempotency key happen once: the first answer is stored with its effect,
 * see `Kernel.mutate`, and given to every repetition; repetitions that arrive while the first is
 * running wait for it. Keys are scoped by tenant and method.
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
    const name = `${method.parent.typeName}.${method.name}`;
    const requestHash = createHash("sha256").update(toBinary(method.input, input)).digest("hex");
    const scope = [tenantId, name, key].join("\n");
    while (running.has(scope)) {
      // The other call may itself be waiting for this transaction to end.
      if (database.isAtomic) throw fail("CONCURRENT_UPDATE", { message: "The Idempotency-Key is in use" });
      await running.get(scope)?.catch(() => {});
    }

    const attempt = (async () => {
      const stored = await recall(tenantId, name, key, requestHash, method.output);
      if (stored) return stored;
      info.replay = {
        key,
        method: name,
        requestHash,
        encode: (response) =>
          toBinary(method.output, create(method.output, response as MessageInitShape<DescMessage>)),
      };
      try {
        return { message: await run(), replayed: false, resourceId: "" };
      } catch (error) {
        // Another process may have used the key meanwhile; its answer is then the answer.
        const theirs = await recall(tenantId, name, key, requestHash, method.output);
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

  async function recall(tenantId: string, method: string, key: string, hash: string, output: DescMessage) {
    const row = await findReplay(database.read, tenantId, method, key);
    if (!row) return undefined;
    if (row.request_hash !== hash) throw fail("IDEMPOTENCY_CONFLICT", { metadata: { key } });
    return { message: fromBinary(output, row.response), replayed: true, resourceId: row.resource_id };
  }
}
