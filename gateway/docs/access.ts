import { type DescMethod, type JsonObject, toJson } from "@bufbuild/protobuf";
import { Access, PolicySchema, Role, RoleSchema } from "#gen/portolan/options/v1/policy_pb.js";
import { policyOf } from "../gate/policy.ts";
import type { Contract } from "./contract.ts";
import { isStreamOut } from "./shape.ts";

/** The policy of a method as JSON, whole: what is added to policies comes to be documented by itself. */
export const policyJson = (method: DescMethod): JsonObject =>
  toJson(PolicySchema, policyOf(method)) as JsonObject;

/** Who may call, and how often, in words. */
export function accessText(method: DescMethod): string {
  const { access, permission, roles, rateCost } = policyOf(method);
  const holders = [...roles, Role.ADMIN].map((role) => `\`${RoleSchema.value[role]?.localName}\``).join(", ");
  const needs = `the permission \`${permission}\` (roles ${holders})`;
  const who =
    access === Access.PUBLIC
      ? "Needs no permission."
      : access === Access.SHARE
        ? `Needs a share code, or ${needs}.`
        : `Needs ${needs}.`;
  const cost = rateCost > 1 ? [`A call counts as ${rateCost} against the rate limit.`] : [];
  return [who, ...cost, ...limitTexts(method)].join(" ");
}

/** Limits of the method alone, where policies have such. */
function limitTexts(method: DescMethod): string[] {
  const { limits = [] } = policyJson(method) as {
    limits?: { requests?: number; per?: string; burst?: number; scope?: string }[];
  };
  return limits.map(({ requests = 0, per = "1s", burst = 0, scope = "" }) => {
    const whose = scope.endsWith("_ADDRESS") ? "address" : "API key";
    const atOnce = burst > 0 ? `, ${burst} at once` : "";
    return `At most ${requests} calls in ${per.replace(/s$/, " s")} by one ${whose}${atOnce}.`;
  });
}

/** The ways in which a method takes credentials. */
export function security(method: DescMethod, contract: Contract): JsonObject[] {
  const { access } = policyOf(method);
  if (access === Access.PUBLIC) return asksForKey(method, contract) ? [{ apiKey: [] }] : [];
  return [
    { apiKey: [] },
    { bearer: [] },
    ...(isStreamOut(method) ? [{ token: [] }] : []),
    ...(access === Access.SHARE ? [{}] : []),
  ];
}

/** Whether the gate asks for no credentials, yet the method's comment asks for an API key in the header. */
const asksForKey = (method: DescMethod, contract: Contract): boolean =>
  contract.comment(method).includes("`x-api-key` header");

export const securitySchemes: JsonObject = {
  apiKey: { type: "apiKey", in: "header", name: "x-api-key", description: "An API key, `sk_…`." },
  bearer: {
    type: "http",
    scheme: "bearer",
    bearerFormat: "JWT",
    description: "An access token of `POST /v3/auth/token`, or an API key.",
  },
  token: {
    type: "apiKey",
    in: "query",
    name: "token",
    description: "An access token or an API key; streams only.",
  },
};
