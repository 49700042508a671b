import { type DescMethod, getOption, type Message } from "@bufbuild/protobuf";
import { Code, type ConnectError, type HandlerContext } from "@connectrpc/connect";
import type { Logger } from "pino";
import { http } from "#gen/google/api/annotations_pb.js";
import { CodeSchema } from "#gen/google/rpc/code_pb.js";
import { policy as policyOption } from "#gen/portolan/options/v1/policy_pb.js";
import { entryOf, idOf, unchanged } from "#kernel/audit.ts";
import { appendAudit } from "#kernel/audit-store.ts";
import { callInfo } from "#kernel/call.ts";
import type { Database } from "#kernel/database.ts";
import { reasonOf } from "#kernel/errors.ts";

/** Longest id of a resource that is taken from a request, in characters: it may break the rules. */
const idLength = 128;

/** Keeps the audit log of one method. */
export interface MethodAudit {
  /** Opens the trail on which the handler's transaction writes its row, see `Kernel.mutate`. */
  open(input: unknown, context: HandlerContext): void;
  /**
   * Writes the row of a call that has none yet: one that was refused or failed, or whose answer
   * was replayed. Who calls must be known; what the limits refuse leaves no row, so that a flood
   * is not answered with writes.
   */
  close(context: HandlerContext, error?: ConnectError): Promise<void>;
}

/** Makes the audit of a method; undefined if its policy asks for none. */
export function createAudit(database: Database, log: Logger) {
  return (method: DescMethod): MethodAudit | undefined => {
    const policy = getOption(method, policyOption);
    if (!policy.audited) return undefined;
    const idField = idFieldOf(method);
    const [resourceType = ""] = policy.permission.split(":");
    return {
      open(input, context) {
        const id = idField && !isStream(input) ? idOf(method.input, input as Message, idField) : "";
        context.values.get(callInfo).audit = {
          service: method.parent.typeName,
          action: method.name,
          resource_type: resourceType,
          protocol: context.protocolName,
          resourceId: id.replaceAll("\0", "").slice(0, idLength),
          replayed: false,
          settled: false,
        };
      },
      async close(context, error) {
        const info = context.values.get(callInfo);
        const { audit, principal } = info;
        if (!audit || audit.settled || !principal || error?.code === Code.ResourceExhausted) return;
        const result = error
          ? { ...unchanged, code: codeName(error), reason: reasonOf(error) ?? "" }
          : unchanged;
        await database.afterwards(async () => {
          try {
            await database.write((queries) =>
              appendAudit(queries, principal.tenantId, entryOf(info, audit, result)),
            );
          } catch (err) {
            log.error(
              { err, requestId: info.requestId, action: audit.action },
              "an audit row was not written",
            );
          }
        });
      },
    };
  };
}

const isStream = (input: unknown) => Symbol.asyncIterator in (input as object);

const codeName = (error: ConnectError) => CodeSchema.value[error.code]?.name ?? "UNKNOWN";

/** The request field with the id of the resource: the last one in the path of the RPC's REST binding. */
function idFieldOf(method: DescMethod): string | undefined {
  const { value } = getOption(method, http).pattern;
  const path = typeof value === "string" ? value : (value?.path ?? "");
  const name = [...path.matchAll(/\{(\w+)/g)].at(-1)?.[1];
  return method.input.fields.find((field) => field.name === name)?.localName;
}
