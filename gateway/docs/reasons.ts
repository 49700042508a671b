import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorReasonSchema } from "#gen/portolan/common/v1/error_reason_pb.js";
import { type Reason, reasons } from "#kernel/errors.ts";
import { httpStatusOf } from "../rest/index.ts";
import type { Contract } from "./contract.ts";

/** The error reasons of the contract as a page of Markdown. */
export function reasonsPage({ registry, comment }: Contract): string {
  const described = registry.getEnum(ErrorReasonSchema.typeName)?.values ?? [];
  const rows = described
    .filter((value) => reasons.has(value.localName as Reason))
    .map((value) => {
      const { code, httpStatus } = reasons.get(value.localName as Reason) ?? { code: Code.Unknown };
      const status = httpStatus ?? httpStatusOf(new ConnectError("", code), {});
      const name = Code[code]?.replaceAll(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
      return `| \`${value.localName}\` | ${name} | ${status} | ${comment(value).replaceAll("\n", " ")} |`;
    });
  return [
    "# Error reasons",
    "",
    "Written by `npm run generate` from",
    "[error_reason.proto](../proto/portolan/common/v1/error_reason.proto). HTTP is the status over REST; a surface may",
    "have another, see [surface.proto](../proto/portolan/options/v1/surface.proto).",
    "",
    "| Reason | Code | HTTP | Meaning |",
    "| --- | --- | --- | --- |",
    ...rows,
    "",
  ].join("\n");
}
