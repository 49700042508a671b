import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { sql } from "kysely";
import { type Share, ShareSchema, ShareSessionSchema } from "#gen/portolan/shares/v1/share_pb.js";
import {
  type ListShareSessionsRequest,
  ListShareSessionsRequestSchema,
  type ListSharesRequest,
  ListSharesRequestSchema,
} from "#gen/portolan/shares/v1/share_service_pb.js";
import type { Queries, Tables } from "#kernel/database.ts";
import { backfill } from "#kernel/list/backfill.ts";
import { textColumn } from "#kernel/list/field.ts";
import { defineList, type Page } from "#kernel/list/list.ts";
import type { Migration } from "#kernel/migrate.ts";

interface ShareRow {
  tenant_id: string;
  share_code: string;
  resource_id: string;
  created_at: number;
  expires_at: number;
  revoked_at: number | null;
  /** scrypt of the PIN as `salt:hash`, hexadecimal; empty without a PIN. */
  pin_hash: string;
  session_count: number;
  /** The Share in its wire form. */
  message: Uint8Array;
}

declare module "#kernel/database.ts" {
  interface Tables {
    shares: ShareRow;
    share_sessions: {
      tenant_id: string;
      session_id: string;
      share_code: string;
      started_at: number;
      ended_at: number | null;
      remote_address: string;
      user_agent: string;
    };
  }
}

export const migrations: Migration[] = [
  {
    name: "shares/0001-shares",
    async up(queries, types) {
      await queries.schema
        .createTable("shares")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("share_code", "text", (column) => column.primaryKey())
        .addColumn("created_at", "bigint", (column) => column.notNull())
        .addColumn("expires_at", "bigint", (column) => column.notNull())
        .addColumn("revoked_at", "bigint")
        .addColumn("pin_hash", "text", (column) => column.notNull())
        .addColumn("session_count", "integer", (column) => column.notNull())
        .addColumn("message", types.bytes, (column) => column.notNull())
        .execute();
      await queries.schema
        .createIndex("shares_list")
        .on("shares")
        .columns(["tenant_id", "created_at", "share_code"])
        .execute();
      await queries.schema
        .createTable("share_sessions")
        .addColumn("tenant_id", "text", (column) => column.notNull())
        .addColumn("session_id", "text", (column) => column.notNull())
        .addColumn("share_code", "text", (column) => column.notNull())
        .addColumn("started_at", "bigint", (column) => column.notNull())
        .addColumn("ended_at", "bigint")
        .addColumn("remote_address", "text", (column) => column.notNull())
        .addColumn("user_agent", "text", (column) => column.notNull())
        .addPrimaryKeyConstraint("share_sessions_key", ["tenant_id", "session_id"])
        .execute();
      await queries.schema
        .createIndex("share_sessions_list")
        .on("share_sessions")
        .columns(["tenant_id", "share_code", "started_at", "session_id"])
        .execute();
    },
  },
  {
    name: "shares/0002-list-columns",
    async up(queries, types) {
      await types.retype(queries, "shares", ["share_code"]);
      await types.retype(queries, "share_sessions", ["session_id", "share_code"]);
      await queries.schema
        .alterTable("shares")
        .addColumn("resource_id", types.text, (column) => column.notNull().defaultTo(""))
        .execute();
      await backfill(queries, "shares", ["share_code"], (message) =>
        listColumns(fromBinary(ShareSchema, message)),
      );
      for (const column of ["resource_id", "expires_at"] as const) {
        await queries.schema
          .createIndex(`shares_by_${column}`)
          .on("shares")
          .columns(["tenant_id", column, "share_code"])
          .execute();
      }
      await queries.schema
        .createIndex("share_sessions_by_ended_at")
        .on("share_sessions")
        .columns(["tenant_id", "share_code"])
        .expression(sql`ended_at ${types.nullsFirst}`)
        .column("session_id")
        .execute();
    },
  },
];

/** The shares of a tenant. */
export const shareList = defineList({
  request: ListSharesRequestSchema,
  message: ShareSchema,
  table: "shares",
  scope: ["tenant_id"],
  columns: {
    share_code: "share_code",
    resource_id: "resource_id",
    expires_at: "expires_at",
    created_at: "created_at",
  },
  id: "share_code",
  sort: "-created_at",
});

/** The sessions of a share. */
export const sessionList = defineList({
  request: ListShareSessionsRequestSchema,
  message: ShareSessionSchema,
  table: "share_sessions",
  scope: ["tenant_id", "share_code"],
  columns: {
    session_id: "session_id",
    started_at: "started_at",
    ended_at: { nullable: "ended_at" },
  },
  id: "session_id",
  sort: "-started_at",
});

/** The columns that are there for lists alone. */
const listColumns = ({ resourceId }: Share) => ({ resource_id: textColumn(resourceId) });

/** A share is never changed: it works, or it is gone. */
const onlyVersion = "1";

/** A share with what the message does not carry. */
export interface StoredShare {
  readonly tenantId: string;
  readonly share: Share;
  readonly expiresAt: number;
  readonly pinHash: string;
}

/** A viewer's connection as it is stored. */
export interface StoredSession {
  readonly sessionId: string;
  readonly startedAt: number;
  readonly endedAt: number | null;
  readonly remoteAddress: string;
  readonly userAgent: string;
}

const toShare = (row: ShareRow): StoredShare => {
  const share = fromBinary(ShareSchema, row.message);
  share.totalViewerCount = row.session_count;
  share.etag = onlyVersion;
  return { tenantId: row.tenant_id, share, expiresAt: row.expires_at, pinHash: row.pin_hash };
};

/** Finds a working share of any tenant: its code is the credential. */
export async function findByCode(
  queries: Queries,
  shareCode: string,
  nowMs: number,
): Promise<StoredShare | undefined> {
  const row = await queries
    .selectFrom("shares")
    .selectAll()
    .where("share_code", "=", shareCode)
    .where("expires_at", ">", nowMs)
    .where("revoked_at", "is", null)
    .executeTakeFirst();
  return row && toShare(row);
}

/** Ends the sessions that an earlier run of the server left open. */
export async function endOpenSessions(queries: Queries, at: number): Promise<void> {
  await queries.updateTable("share_sessions").set({ ended_at: at }).where("ended_at", "is", null).execute();
}

const toSession = (row: Tables["share_sessions"]): StoredSession => ({
  sessionId: row.session_id,
  startedAt: row.started_at,
  endedAt: row.ended_at,
  remoteAddress: row.remote_address,
  userAgent: row.user_agent,
});

/** Shares and their sessions of one tenant. */
export function sharesOf(tenantId: string, queries: Queries) {
  const working = (nowMs: number) =>
    queries
      .selectFrom("shares")
      .selectAll()
      .where("tenant_id", "=", tenantId)
      .where("expires_at", ">", nowMs)
      .where("revoked_at", "is", null);
  return {
    async insert(share: Share, createdAt: number, expiresAt: number, pinHash: string): Promise<void> {
      share.etag = onlyVersion;
      await queries
        .insertInto("shares")
        .values({
          tenant_id: tenantId,
          share_code: share.shareCode,
          ...listColumns(share),
          created_at: createdAt,
          expires_at: expiresAt,
          revoked_at: null,
          pin_hash: pinHash,
          session_count: 0,
          message: toBinary(ShareSchema, share),
        })
        .execute();
    },

    async get(shareCode: string, nowMs: number): Promise<Share | undefined> {
      const row = await working(nowMs).where("share_code", "=", shareCode).executeTakeFirst();
      return row && toShare(row).share;
    },

    /** A page of working shares, newest first unless the request says otherwise. */
    async list(request: ListSharesRequest, nowMs: number): Promise<Page<Share>> {
      const page = await shareList.page(working(nowMs), request, request.limit || 20, [tenantId]);
      return { ...page, items: page.items.map((row) => toShare(row).share) };
    },

    async revoke(shareCode: string, at: number): Promise<boolean> {
      const { numUpdatedRows } = await queries
        .updateTable("shares")
        .set({ revoked_at: at })
        .where("tenant_id", "=", tenantId)
        .where("share_code", "=", shareCode)
        .where("expires_at", ">", at)
        .where("revoked_at", "is", null)
        .executeTakeFirst();
      return numUpdatedRows === 1n;
    },

    async beginSession(shareCode: string, session: Omit<StoredSession, "endedAt">): Promise<void> {
      await queries
        .insertInto("share_sessions")
        .values({
          tenant_id: tenantId,
          session_id: session.sessionId,
          share_code: shareCode,
          started_at: session.startedAt,
          ended_at: null,
          remote_address: session.remoteAddress,
          user_agent: session.userAgent,
        })
        .execute();
      await queries
        .updateTable("shares")
        .set((eb) => ({ session_count: eb("session_count", "+", 1) }))
        .where("tenant_id", "=", tenantId)
        .where("share_code", "=", shareCode)
        .execute();
    },

    async endSession(sessionId: string, at: number): Promise<void> {
      await queries
        .updateTable("share_sessions")
        .set({ ended_at: at })
        .where("tenant_id", "=", tenantId)
        .where("session_id", "=", sessionId)
        .where("ended_at", "is", null)
        .execute();
    },

    /** A session of a share that has not ended. */
    async openSession(shareCode: string, sessionId: string): Promise<StoredSession | undefined> {
      const row = await queries
        .selectFrom("share_sessions")
        .selectAll()
        .where("tenant_id", "=", tenantId)
        .where("share_code", "=", shareCode)
        .where("session_id", "=", sessionId)
        .where("ended_at", "is", null)
        .executeTakeFirst();
      return row && toSession(row);
    },

    /** A page of the sessions of a share, newest first unless the request says otherwise. */
    async sessions(request: ListShareSessionsRequest): Promise<Page<StoredSession>> {
      const { shareCode, limit } = request;
      const query = queries
        .selectFrom("share_sessions")
        .selectAll()
        .where("tenant_id", "=", tenantId)
        .where("share_code", "=", shareCode);
      const page = await sessionList.page(query, request, limit || 100, [tenantId, shareCode]);
      return { ...page, items: page.items.map(toSession) };
    },
  };
}
