import { type DescMethod, getOption } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { Access, policy } from "#gen/portolan/options/v1/policy_pb.js";
import { allMethods } from "#test/support/contract.ts";

const methods = (await allMethods()).map(
  (method) => [`${method.parent.name}.${method.name}`, method] as const,
);
const changesNothing = (method: DescMethod) => method.idempotency === Level.NO_SIDE_EFFECTS;

it("looks at the whole contract", () => {
  expect(methods.map(([name]) => name)).toEqual(
    expect.arrayContaining(["JobService.CreateJob", "TokenService.IssueToken", "TenantService.DeleteTenant"]),
  );
});

describe.each(methods)("%s", (_, method) => {
  const { access, permission, audited, auditExemptReason } = getOption(method, policy);

  it("is audited if it changes anything, or says why not", () => {
    expect([audited, auditExemptReason !== ""]).toEqual(
      changesNothing(method) ? [false, false] : [!auditExemptReason, !audited],
    );
  });

  it.runIf(audited)("has a caller whom its row can name, and a noun for what it changes", () => {
    expect(access).not.toBe(Access.PUBLIC);
    expect(permission).toMatch(/^[a-z-]+:[a-z-]+$/);
  });
});
