import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { newSecret } from "#kernel/ids.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { defaultPlan } from "#kernel/plans.ts";
import { ensureKey, type WellKnownKey } from "#services/identity/index.ts";
import { type Sandbox, type SandboxOptions, startSandbox } from "./index.ts";

/** A name that the API gives to no tenant, since it has a dot. */
const tenantId = "sandbox.explorer";

const deviceKey: WellKnownKey = {
  id: "key-explorer-device",
  name: "Dock of the API explorer",
  role: Role.DEVICE,
  tenantId,
};

const callerKey: WellKnownKey = {
  id: "key-explorer",
  name: "API explorer",
  role: Role.MANAGER,
  tenantId,
  // Anybody can have it.
  plan: defaultPlan,
};

/** A tenant in which anybody may try calls. */
export interface Playground extends Sandbox {
  /** The key of a manager of the tenant; another one after each start. */
  readonly apiKey: string;
  readonly tenantId: string;
}

/**
 * Opens a tenant that holds one simulated dock and nothing else, so that the API explorer can hand out
 * a key with which calls work and no harm is done.
 */
export async function openPlayground(
  kernel: Kernel,
  options: Omit<SandboxOptions, "apiKey" | "count">,
): Promise<Playground> {
  const deviceSecret = newSecret("sk_");
  const apiKey = newSecret("sk_");
  await ensureKey(kernel, deviceKey, deviceSecret);
  await ensureKey(kernel, callerKey, apiKey);
  return { ...startSandbox({ ...options, apiKey: deviceSecret, count: 1 }), apiKey, tenantId };
}
