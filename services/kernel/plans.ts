import { readFileSync } from "node:fs";
import { z } from "zod";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";

/** How fast one caller may call. */
export interface Rate {
  /** Units in each window. */
  readonly requests: number;
  /** The window, in milliseconds. */
  readonly windowMs: number;
  /** Units at once, after a pause. */
  readonly burst: number;
}

/** What one caller may take of the server. */
export interface Plan {
  readonly name: string;
  readonly rate: Rate;
  /** Streams open at the same time, and as many unary calls in flight beside them. */
  readonly concurrency: number;
  /** Whether the limits of single RPCs hold as well. */
  readonly methodLimits: boolean;
}

/** Every plan by its name. */
export type Plans = ReadonlyMap<string, Plan>;

/** The plan of keys that name none. */
export const defaultPlan = "default";

/** The plan of callers without a key, each client address for itself. */
export const anonymousPlan = "anonymous";

/** The plan of the server's own keys. */
export const unlimitedPlan = "unlimited";

/** The plan of a key that names none: a device reports more often than a person asks. */
export const planOfRole = (role: Role): string => (role === Role.DEVICE ? "device" : defaultPlan);

const windowsMs = { second: 1000, minute: 60_000, hour: 3_600_000, day: 86_400_000 } as const;

/** More than a process can serve: a number, so that every client can read it. */
const endless = 1_000_000_000;

const count = z.number().int().min(1).max(endless);

/** How a plan stands in the file that `PORTOLAN_PLANS` names. */
const planSchema = z
  .strictObject({
    requests: count,
    per: z.enum(["second", "minute", "hour", "day"]),
    burst: count.optional(),
    concurrency: count.default(100),
    methodLimits: z.boolean().default(true),
  })
  // The limiter counts in whole numbers, which end at 2^53.
  .refine(({ requests, per, burst = requests }) => burst * windowsMs[per] < Number.MAX_SAFE_INTEGER / 100, {
    message: "burst is too large for the window",
  });

const plansSchema = z.record(z.string().regex(/^[a-z][a-z0-9-]{0,62}$/), planSchema);

const builtIn: z.input<typeof plansSchema> = {
  default: { requests: 100, per: "minute" },
  free: { requests: 1000, per: "hour", burst: 100, concurrency: 10 },
  pro: { requests: 10_000, per: "hour", burst: 500, concurrency: 100 },
  enterprise: { requests: 100_000, per: "hour", burst: 2000, concurrency: 1000 },
  standard: { requests: 1000, per: "minute", burst: 100 },
  premium: { requests: 5000, per: "minute", burst: 500, concurrency: 500 },
  device: { requests: 100, per: "second", burst: 1000, concurrency: 100 },
  anonymous: { requests: 50, per: "second", burst: 100, concurrency: 1000 },
  unlimited: { requests: endless, per: "minute", concurrency: endless, methodLimits: false },
};

/**
 * The built-in plans, with those of a file added or put in their place.
 * @throws Error saying what is wrong with the file
 */
export function readPlans(path?: string): Plans {
  const added: unknown = path ? JSON.parse(readFileSync(path, "utf8")) : {};
  const result = plansSchema.safeParse(added);
  if (!result.success) {
    const issues = result.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new Error(issues.join("; "));
  }
  const all = { ...plansSchema.parse(builtIn), ...result.data };
  return new Map(
    Object.entries(all).map(([name, { requests, per, burst = requests, concurrency, methodLimits }]) => [
      name,
      { name, rate: { requests, windowMs: windowsMs[per], burst }, concurrency, methodLimits },
    ]),
  );
}
