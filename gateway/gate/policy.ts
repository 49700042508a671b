import { type DescMethod, getOption, hasOption } from "@bufbuild/protobuf";
import { Access, type Policy, policy as policyOption, Role } from "#gen/portolan/options/v1/policy_pb.js";

/**
 * The policy of a method.
 * @throws Error if the contract gives none, so that no method is served without one
 */
export function policyOf(method: DescMethod): Policy {
  const name = `${method.parent.typeName}.${method.name}`;
  if (!hasOption(method, policyOption)) throw new Error(`${name} has no policy`);
  const policy = getOption(method, policyOption);
  if (policy.access === Access.UNSPECIFIED) throw new Error(`${name} has a policy without access`);
  if (policy.access !== Access.PUBLIC && !policy.permission) throw new Error(`${name} lacks a permission`);
  return policy;
}

/** The permissions of each role, read from the policies of all methods. */
export function permissionsByRole(methods: Iterable<DescMethod>): Map<Role, ReadonlySet<string>> {
  const roles = [Role.VIEWER, Role.PILOT, Role.MANAGER, Role.ADMIN, Role.DEVICE];
  const table = new Map<Role, Set<string>>(roles.map((role) => [role, new Set()]));
  for (const method of methods) {
    const { permission, roles: holders } = policyOf(method);
    if (!permission) continue;
    for (const role of [...holders, Role.ADMIN]) table.get(role)?.add(permission);
  }
  return table;
}
