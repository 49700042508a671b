import type { DescMessage, Message, MessageShape } from "@bufbuild/protobuf";
import { toBinary } from "@bufbuild/protobuf";
import type { Queries } from "./database.ts";
import { newId } from "./ids.ts";
import type { Migration } from "./migrate.ts";

/** A fact, written in the transaction that made it true. */
export interface Event<M extends Message = Message> {
  readonly id: string;
  readonly tenantId: string;
  /** `<noun>.<past verb>`, for example `job.created`. */
  readonly type: string;
  /** Id of what it is about. */
  readonly subject: string;
  readonly timeMs: number;
  /** Place of the change in the history of its subject, if that keeps one. */
  readonly sequence?: bigint | undefined;
  readonly data: M;
}

declare module "./database.ts" {
  interface Tables {
    outbox: {
      position: import("kysely").Generated<number>;
      event_id: string;
      tenant_id: string;
      type: string;
      subject: string;
      occurred_at: number;
      data_type: string;
      data: Uint8Array;
    };
  }
}

/** The outbox of all services. */
export const eventMigrations: Migration[] = [
  {
    name: "kernel/0001-outbox",
    async up(queries, types) {
      await queries.schema
        .createTable("outbox")
        .addColumn("position", types.counter)
        .addColumn("event_id", "text", (column) => column.notNull().unique())
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("type", "text", (column) => column.notNull())
        .addColumn("subject", "text", (column) => column.notNull())
        .addColumn("occurred_at", "bigint", (column) => column.notNull())
        .addColumn("data_type", "text", (column) => column.notNull())
        .addColumn("data", types.bytes, (column) => column.notNull())
        .execute();
    },
  },
];

/** A transaction that can also state facts. */
export interface Tx {
  readonly queries: Queries;
  /** Writes the fact beside the change; listeners hear it once the transaction is on disk. */
  emit<D extends DescMessage>(
    fact: Pick<Event, "tenantId" | "type" | "subject" | "timeMs" | "sequence">,
    desc: D,
    data: MessageShape<D>,
  ): Promise<void>;
}

/** A transaction over `queries`; the facts it states are collected in `events`. */
export function createTx(queries: Queries): { tx: Tx; events: Event[] } {
  const events: Event[] = [];
  const tx: Tx = {
    queries,
    async emit(fact, desc, data) {
      const event: Event = { ...fact, id: newId("event", fact.timeMs), data };
      await queries
        .insertInto("outbox")
        .values({
          event_id: event.id,
          tenant_id: event.tenantId,
          type: event.type,
          subject: event.subject,
          occurred_at: event.timeMs,
          data_type: desc.typeName,
          data: toBinary(desc, data),
        })
        .execute();
      events.push(event);
    },
  };
  return { tx, events };
}

/** Tells listeners of this process about committed events, in order of commit. */
export interface Bus {
  publish(events: readonly Event[]): void;
  /** Hears events whose type begins with `prefix`; the returned function stops it. */
  listen(prefix: string, listener: (event: Event) => void): () => void;
}

/** A bus within the process. A listener that throws is reported and does not stop the others. */
export function createBus(onError: (error: unknown, event: Event) => void): Bus {
  const listeners = new Set<{ prefix: string; listener: (event: Event) => void }>();
  return {
    publish(events) {
      for (const event of events) {
        for (const { prefix, listener } of listeners) {
          if (!event.type.startsWith(prefix)) continue;
          try {
            listener(event);
          } catch (error) {
            onError(error, event);
          }
        }
      }
    },
    listen(prefix, listener) {
      const entry = { prefix, listener };
      listeners.add(entry);
      return () => listeners.delete(entry);
    },
  };
}
