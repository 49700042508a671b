import { getOption, hasOption } from "@bufbuild/protobuf";
import type { GenExtension } from "@bufbuild/protobuf/codegenv2";
import type { MethodOptions } from "@bufbuild/protobuf/wkt";
import type { Rule } from "../rest/index.ts";
import type { Contract } from "./contract.ts";

/** What the contract says of a binding that should no longer be used. */
export interface Deprecation {
  /** The path template; empty means every binding of the method. */
  readonly path: string;
  /** Days, `YYYY-MM-DD`. */
  readonly since: string;
  readonly sunset: string;
  readonly note: string;
}

const optionName = "portolan.options.v1.deprecations";

/** The deprecation of a binding, if there is one. The option is found by name: a contract may lack it. */
export function deprecationOf({ method, template }: Rule, { registry }: Contract): Deprecation | undefined {
  const option = registry.getExtension(optionName) as GenExtension<MethodOptions, Deprecation[]> | undefined;
  if (method.proto.options?.deprecated) return { path: "", since: "", sunset: "", note: "" };
  if (!option || !hasOption(method, option)) return undefined;
  return getOption(method, option).find(({ path }) => path === "" || path === template);
}

/** A deprecation in words. */
export function deprecationText({ since, sunset, note }: Deprecation): string {
  return [
    since ? `Deprecated since ${since}.` : "Deprecated.",
    ...(sunset ? [`It may stop working after ${sunset}.`] : []),
    note,
  ]
    .join(" ")
    .trim();
}
