import type { DescMessage, DescMethodServerStreaming, DescService, MessageShape } from "@bufbuild/protobuf";
import type { Client, HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { Logger } from "pino";
import { auditChanges, type Changes } from "./audit.ts";
import { callInfo } from "./call.ts";
import type { Database, Queries } from "./database.ts";
import { type Bus, createTx, type Tx } from "./events.ts";
import type { List } from "./list/list.ts";
import type { LiveCounts } from "./live-counts.ts";
import type { Migration } from "./migrate.ts";
import type { Presence } from "./presence.ts";
import { storeReplay } from "./replay.ts";
import type { Standing } from "./standing.ts";
import type { Topics } from "./topics.ts";

/** What services stand on. */
export interface Kernel {
  readonly database: Database;
  readonly bus: Bus;
  readonly topics: Topics;
  readonly presence: Presence;
  readonly standing: Standing;
  readonly counts: LiveCounts;
  readonly log: Logger;
  /** The time, in Unix milliseconds. */
  readonly nowMs: () => number;
  /** The next sequence, see sequence.ts. */
  readonly nextSequence: () => bigint;
  /** Calls another service in the name of the same caller, through its contract. */
  readonly peer: <S extends DescService>(service: S, context: HandlerContext) => LocalClient<S>;
  /** Calls a server-streaming method of another service in the name of the same caller. */
  readonly peerStream: <I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    input: MessageShape<I>,
    context: HandlerContext,
  ) => AsyncIterable<MessageShape<O>>;
  /** Runs a transaction; listeners hear its events after it is on disk. */
  write<T>(work: (tx: Tx) => Promise<T>): Promise<T>;
  /**
   * Runs the transaction of a call that changes something and answers with its result. If the
   * call carries an idempotency key, the answer is stored in the same transaction, so that a key
   * is spent exactly when its effect is on disk. So is the row of the audit log, if the RPC is
   * audited: `work` states what it changes, and without that nothing is committed.
   */
  mutate<T>(context: HandlerContext, work: (tx: Tx & Changes) => Promise<T>): Promise<T>;
}

/** Unary methods of a service as plain calls. */
export type LocalClient<S extends DescService> = {
  [K in keyof Client<S> as Client<S>[K] extends (request: never) => Promise<unknown>
    ? K
    : never]: Client<S>[K];
};

/** What a service module hands to the gateway. */
export interface ServiceModule {
  readonly services: readonly Registration[];
  readonly migrations: readonly Migration[];
  /** The lists of the services; the server starts only if each of their columns has an index. */
  readonly lists?: readonly List[];
  /** Begins background work, after migrations. */
  start?(): Promise<void> | void;
  /** Ends background work. */
  stop?(): Promise<void> | void;
}

/** A contract service and its handlers. */
export interface Registration {
  readonly service: DescService;
  readonly handlers: Record<string, unknown>;
}

/** Pairs a service with its handlers. */
export const serve = <S extends DescService>(service: S, handlers: ServiceImpl<S>): Registration => ({
  service,
  handlers: handlers as Record<string, unknown>,
});

/** The transactions of a kernel. */
export function createTransactions(database: Database, bus: Bus): Pick<Kernel, "write" | "mutate"> {
  async function write<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    let stated: ReturnType<typeof createTx>["events"] = [];
    const result = await database.write(async (queries: Queries) => {
      const { tx, events } = createTx(queries);
      stated = events;
      return work(tx);
    });
    database.afterCommit(() => bus.publish(stated));
    return result;
  }
  return {
    write,
    async mutate(context, work) {
      const { principal, replay, audit } = context.values.get(callInfo);
      const { changes, resourceId, append } = auditChanges(context);
      const response = await write(async (tx) => {
        const response = await work({ ...tx, ...changes });
        if (replay && principal) {
          await storeReplay(tx.queries, principal.tenantId, replay, response, resourceId());
        }
        await append(tx.queries);
        return response;
      });
      if (audit) audit.settled = true;
      return response;
    },
  };
}
