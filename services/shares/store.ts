import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Share, ShareSchema } from "#gen/portolan/shares/v1/share_pb.js";
import type { Queries, Tables } from "#kernel/database.ts";
import type { Migration } from "#kernel/migrate.ts";

interface ShareRow {
  tenant_id: string;
  share_code: string;
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
];

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
      await queries
        .insertInto("shares")
        .values({
          tenant_id: tenantId,
          share_code: share.shareCode,
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

    /** Working shares, newest first, after the given (creation time, code). */
    async list(size: number, after: readonly [number, string] | undefined, nowMs: number) {
      let query = working(nowMs).orderBy("created_at", "desc").orderBy("share_code", "desc").limit(size);
      if (after) {
        query = query.where(({ eb, refTuple, tuple }) =>
          eb(refTuple("created_at", "share_code"), "<", tuple(after[0], after[1])),
        );
      }
      const rows = await query.execute();
      return rows.map((row) => ({
        share: toShare(row).share,
        at: [row.created_at, row.share_code] as const,
      }));
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

    /** Sessions of a share, newest first, after the given (start, id). */
    async sessions(shareCode: string, size: number, after: readonly [number, string] | undefined) {
      let query = queries
        .selectFrom("share_sessions")
        .selectAll()
        .where("tenant_id", "=", tenantId)
        .where("share_code", "=", shareCode)
        .orderBy("started_at", "desc")
        .orderBy("session_id", "desc")
        .limit(size);
      if (after) {
        query = query.where(({ eb, refTuple, tuple }) =>
          eb(refTuple("started_at", "session_id"), "<", tuple(after[0], after[1])),
        );
      }
      const rows = await query.execute();
      return rows.map(toSession);
    },
  };
}
