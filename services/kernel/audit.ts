import { createHash } from "node:crypto";
import {
  clone,
  type DescMessage,
  getOption,
  type Message,
  type MessageShape,
  toJson,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import type { HandlerContext } from "@connectrpc/connect";
import { secret as secretOption } from "#gen/portolan/options/v1/policy_pb.js";
import { type AuditEntry, appendAudit } from "./audit-store.ts";
import { type CallInfo, callInfo } from "./call.ts";
import type { Queries } from "./database.ts";

/** What the audit log is to know of a call; the gate opens one for each call of an audited RPC. */
export interface AuditTrail extends Pick<AuditEntry, "service" | "action" | "resource_type" | "protocol"> {
  /** Id that the request names, already fit for the log; empty if it names none. */
  resourceId: string;
  /** The answer is that of an earlier call with the same idempotency key. */
  replayed: boolean;
  /** The row is on disk, or a handler has said that there is to be none. */
  settled: boolean;
}

/** How a call ended, as far as the log wants to know. */
export type AuditResult = Pick<AuditEntry, "code" | "reason" | "digest_before" | "digest_after">;

/** The result of a call that did what it was asked to without changing anything. */
export const unchanged: AuditResult = { code: "", reason: "", digest_before: "", digest_after: "" };

/** Finishes a statement of change with the resource as it is now; nothing if it is gone. */
export type Changed<D extends DescMessage> = (after?: MessageShape<D>) => void;

/** How the transaction of a call states what it changes. */
export interface Changes {
  /**
   * Begins the statement of change of the resource that the call is about, as it is before; call
   * it before the object is altered. `idField` is the field that holds its id. A call states one
   * resource; what follows from it is told by events.
   */
  changing<D extends DescMessage>(
    desc: D,
    idField: keyof MessageShape<D> & string,
    before?: MessageShape<D>,
  ): Changed<D>;
  /** Leaves no row: for changes of degree that come by the second and that the resource's own history keeps. */
  minor(): void;
}

/** Collects what one transaction states; `append` writes the row and fails if nothing was stated. */
export function auditChanges(context: HandlerContext): {
  changes: Changes;
  /** Id of the resource as the log has it. */
  resourceId(): string;
  append(queries: Queries): Promise<void>;
} {
  const info = context.values.get(callInfo);
  const { audit, principal } = info;
  let stated: { id: string; before: string; after?: string } | undefined;
  let isMinor = false;
  const resourceId = () => stated?.id || audit?.resourceId || "";
  return {
    changes: {
      changing(desc, idField, before) {
        if (!audit) return () => {};
        if (stated) throw new Error(`${audit.action} states a second change`);
        const mine = { id: before ? idOf(desc, before, idField) : "", before: digestOf(desc, before) };
        stated = mine;
        return (after) => {
          if (after) mine.id ||= idOf(desc, after, idField);
          stated = { ...mine, after: digestOf(desc, after) };
        };
      },
      minor() {
        isMinor = true;
      },
    },
    resourceId,
    async append(queries) {
      if (!audit || !principal || isMinor) return;
      if (stated?.after === undefined) throw new Error(`${audit.action} does not state what it changes`);
      const result = { ...unchanged, digest_before: stated.before, digest_after: stated.after };
      await appendAudit(queries, principal.tenantId, entryOf(info, audit, result, resourceId()));
    },
  };
}

/** The row of a call. */
export function entryOf(
  { principal, requestId, remoteAddress }: CallInfo,
  audit: AuditTrail,
  result: AuditResult,
  resourceId = audit.resourceId,
): AuditEntry {
  const { service, action, resource_type, protocol, replayed } = audit;
  return {
    actor: principal?.subject ?? "",
    role: principal?.role ?? 0,
    credential: principal?.credential ?? 0,
    remote_address: remoteAddress,
    service,
    action,
    resource_type,
    resource_id: resourceId,
    request_id: requestId,
    protocol,
    replayed: replayed ? 1 : 0,
    ...result,
  };
}

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

/** A secret as the log may show it, so that it can be found by who knows it. */
export const fingerprint = (secret: string): string => `sha256:${sha256(secret).slice(0, 16)}`;

/** The value of a field that holds an id, fit for the log: its fingerprint if it is a secret. */
export function idOf<D extends DescMessage>(desc: D, message: MessageShape<D>, localName: string): string {
  const field = desc.fields.find((each) => each.localName === localName);
  const value = (message as unknown as Record<string, unknown>)[localName];
  if (!field || typeof value !== "string" || value === "") return "";
  return getOption(field, secretOption) ? fingerprint(value) : value;
}

/**
 * SHA-256 of a resource: of its proto3 JSON with sorted keys, without whitespace and without the
 * fields that the contract calls secret. Empty for no resource.
 */
export function digestOf<D extends DescMessage>(desc: D, message: MessageShape<D> | undefined): string {
  if (!message) return "";
  return sha256(JSON.stringify(toJson(desc, withoutSecrets(desc, message)), sortKeys));
}

const sortKeys = (_: string, value: unknown): unknown =>
  value !== null && typeof value === "object" && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
    : value;

function withoutSecrets<D extends DescMessage>(desc: D, message: MessageShape<D>): MessageShape<D> {
  if (!holdsSecrets(desc)) return message;
  const copy = clone(desc, message);
  clearSecrets(reflect(desc as DescMessage, copy as Message));
  return copy;
}

function clearSecrets(message: ReflectMessage): void {
  for (const field of message.fields) {
    if (getOption(field, secretOption)) message.clear(field);
    else if (!message.isSet(field)) continue;
    else if (field.fieldKind === "message") clearSecrets(message.get(field));
    else if (field.fieldKind === "list" && field.listKind === "message") {
      for (const item of message.get(field)) clearSecrets(item as ReflectMessage);
    } else if (field.fieldKind === "map" && field.mapKind === "message") {
      for (const [, item] of message.get(field)) clearSecrets(item as ReflectMessage);
    }
  }
}

const knownSecrets = new Map<DescMessage, boolean>();

/** Whether a secret can stand anywhere in a message. */
function holdsSecrets(desc: DescMessage): boolean {
  const known = knownSecrets.get(desc);
  if (known !== undefined) return known;
  // Stands while the message is looked into, so that one that contains itself comes to an end.
  knownSecrets.set(desc, false);
  const holds = desc.fields.some(
    (field) => getOption(field, secretOption) || (field.message !== undefined && holdsSecrets(field.message)),
  );
  knownSecrets.set(desc, holds);
  return holds;
}
