import { setTimeout } from "node:timers/promises";
import type { DescMethod } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import type { ConnectError } from "@connectrpc/connect";
import { LimitScope, type Policy } from "#gen/portolan/options/v1/policy_pb.js";
import type { Principal } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import { anonymousPlan, defaultPlan, type Plan, type Plans, type Rate } from "#kernel/plans.ts";
import { addressBlock } from "./address.ts";
import type { Verdict } from "./gcra.ts";
import type { Load } from "./load.ts";
import { createSlots } from "./slots.ts";
import { createMemoryStore, type Demand, type LimitStore } from "./store.ts";

/** What admission stands on. */
export interface AdmissionOptions {
  readonly plans: Plans;
  readonly load: Load;
  readonly nowMs: () => number;
  /** In memory unless told. */
  readonly store?: LimitStore;
  /** Lets time pass; returns early when the signal aborts. */
  readonly wait?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** What admission needs to know of a method. */
export interface MethodRules {
  readonly name: string;
  readonly streams: boolean;
  /** Units of the plan that a call costs. */
  readonly cost: number;
  readonly limits: readonly { readonly key: string; readonly rate: Rate; readonly byAddress: boolean }[];
}

/** A call at the door. */
export interface Arrival {
  readonly rules: MethodRules;
  readonly principal: Principal | undefined;
  readonly remoteAddress: string;
  /** Whether its credentials were refused: it then counts against the address. */
  readonly refused: boolean;
  /** Where the `X-RateLimit` headers go. */
  readonly header: Headers;
  /** Aborted when the caller goes away. */
  readonly signal: AbortSignal;
}

/** Lets calls in, or not. */
export type Admission = ReturnType<typeof createAdmission>;

/** How long a caller refused for what is open, or by an overloaded server, waits; in milliseconds. */
const pauseMs = 1000;

/**
 * How many refusals a caller gets at once. Who does not heed them is answered late: a client that
 * waits for its answers can then not hammer at the expense of others.
 */
const promptRefusals: Rate = { requests: 20, windowMs: 1000, burst: 50 };

/** How long further refusals are held back, in milliseconds: spread, so that they do not come in step. */
const holdMs = (count: number) => 1000 + ((count * 37) % 100) * 5;

/** Most refusals of a caller that are held back at the same time. */
const maxHeld = 1000;

/** The rules of a method, read from its policy. */
export function rulesOf(method: DescMethod, policy: Policy): MethodRules {
  const name = `${method.parent.typeName}/${method.name}`;
  return {
    name,
    streams: method.methodKind !== "unary",
    cost: policy.rateCost || 1,
    limits: policy.limits.map(({ requests, per, burst, scope }, i) => {
      const windowMs = per ? durationMs(per) : 0;
      if (requests < 1 || windowMs < 1000) throw new Error(`${name} has a limit without requests or time`);
      const rate = { requests, windowMs, burst: burst || requests };
      return { key: `${name} ${i}`, rate, byAddress: scope === LimitScope.ADDRESS };
    }),
  };
}

const never = new AbortController().signal;

const sleep = (ms: number, signal: AbortSignal): Promise<void> =>
  setTimeout(ms, undefined, { signal }).catch(() => {});

const strayRules: MethodRules = { name: "", streams: false, cost: 1, limits: [] };

/** A limit of a call and what it decided. */
interface Decision extends Verdict {
  readonly demand: Demand;
  readonly plan: string;
  /** The method, if the limit is its own. */
  readonly method: string | undefined;
}

/**
 * Lets calls in by the plan of their caller, the limits of their method and the load of the
 * process.
 */
export function createAdmission(options: AdmissionOptions) {
  const { plans, load, nowMs, store = createMemoryStore(), wait = sleep } = options;
  const streams = createSlots();
  const calls = createSlots();
  const held = createSlots();
  let heldCount = 0;

  function planOf(principal: Principal | undefined): Plan {
    const named = principal ? principal.plan : anonymousPlan;
    // A plan that was taken out of the configuration must not lock out its keys.
    return (plans.get(named) ?? plans.get(defaultPlan)) as Plan;
  }

  function limitsOf({ rules, refused, remoteAddress }: Arrival, caller: string, plan: Plan) {
    const limits: Omit<Decision, keyof Verdict>[] = [
      {
        plan: plan.name,
        method: undefined,
        demand: { key: `${plan.name} ${caller}`, rate: plan.rate, cost: rules.cost },
      },
    ];
    if (plan.methodLimits && !refused) {
      for (const { key, rate, byAddress } of rules.limits) {
        const demand = { key: `${key} ${byAddress ? addressBlock(remoteAddress) : caller}`, rate, cost: 1 };
        limits.push({ plan: plan.name, method: rules.name, demand });
      }
    }
    return limits;
  }

  /** Refuses a caller who asked too much, late if it goes on and on. */
  async function refuse(
    caller: string,
    error: ConnectError,
    afterMs: number,
    arrival: Arrival,
  ): Promise<never> {
    const demand = { key: `refusals ${caller}`, rate: promptRefusals, cost: 1 };
    const [prompt] = await store.take([demand], nowMs());
    const release = prompt?.allowed ? undefined : held.take(caller, maxHeld);
    if (release) await wait(holdMs(heldCount++), arrival.signal).finally(release);
    throw retryLater(error, afterMs, arrival.header);
  }

  async function admit(arrival: Arrival): Promise<() => void> {
    const { rules, principal, refused, header } = arrival;
    const plan = planOf(refused ? undefined : principal);
    const caller = callerOf(arrival);
    const overloaded = load.overloaded();
    const limits = limitsOf(arrival, caller, plan);
    // A call that the server cannot take costs its caller nothing.
    const demands = limits.map(({ demand }) => (overloaded ? { ...demand, cost: 0 } : demand));
    const now = nowMs();
    const verdicts = await store.take(demands, now);
    const shown = tightest(limits.map((limit, i) => ({ ...limit, ...(verdicts[i] as Verdict) })));
    show(shown, now, header);
    if (overloaded) throw retryLater(fail("OVERLOADED", { retryAfterMs: pauseMs }), pauseMs, header);
    if (!shown.allowed) return refuse(caller, rateLimited(shown), shown.retryAfterMs, arrival);

    const slots = rules.streams ? streams : calls;
    const leave = slots.take(caller, plan.concurrency);
    if (!leave) {
      const reason = rules.streams ? "TOO_MANY_STREAMS" : "TOO_MANY_CALLS";
      const metadata = { plan: plan.name, limit: String(plan.concurrency) };
      return refuse(caller, fail(reason, { metadata, retryAfterMs: pauseMs }), pauseMs, arrival);
    }
    if (rules.streams) return leave;
    load.enter();
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      load.leave();
      leave();
    };
  }

  return {
    /**
     * Lets a call in.
     * @returns a function that tells that the call is over; once or more, only the first counts
     * @throws ConnectError RATE_LIMITED, TOO_MANY_STREAMS, TOO_MANY_CALLS or OVERLOADED
     */
    admit,

    /**
     * Counts a request that is no call, for it names no RPC, against its address.
     * @returns the headers of its answer, and the error to answer with if the address has used up
     * its limit
     */
    async stray(remoteAddress: string, signal = never): Promise<{ headers: Headers; error?: ConnectError }> {
      const headers = new Headers();
      const arrival = { rules: strayRules, principal: undefined, remoteAddress, refused: true };
      try {
        (await admit({ ...arrival, header: headers, signal }))();
        return { headers };
      } catch (error) {
        return { headers, error: error as ConnectError };
      }
    },
  };
}

/** Whose calls count together. Credentials that do not hold count apart from calls without any. */
function callerOf({ principal, refused, remoteAddress }: Arrival): string {
  if (refused) return `refused ${addressBlock(remoteAddress)}`;
  return principal ? `key ${principal.subject}` : `address ${addressBlock(remoteAddress)}`;
}

/** The limit that refuses for longest, or else the one with the fewest calls left. */
function tightest(decisions: readonly Decision[]): Decision {
  const callsLeft = ({ remaining, demand }: Decision) => Math.floor(remaining / Math.max(1, demand.cost));
  return decisions.reduce((tight, each) => {
    if (each.retryAfterMs !== tight.retryAfterMs)
      return each.retryAfterMs > tight.retryAfterMs ? each : tight;
    return callsLeft(each) < callsLeft(tight) ? each : tight;
  });
}

/** Tells a limit in the headers. */
function show({ demand: { rate }, remaining, resetAfterMs }: Decision, nowMs: number, header: Headers): void {
  header.set("x-ratelimit-limit", String(rate.requests));
  header.set("x-ratelimit-remaining", String(remaining));
  header.set("x-ratelimit-reset", String(Math.ceil((nowMs + resetAfterMs) / 1000)));
  header.set("x-ratelimit-window", String(rate.windowMs / 1000));
}

function rateLimited({ demand: { rate }, plan, method, retryAfterMs }: Decision): ConnectError {
  const window = rate.windowMs / 1000;
  return fail("RATE_LIMITED", {
    message: `At most ${rate.requests} requests in ${window} seconds, ${rate.burst} at once`,
    metadata: { limit: String(rate.requests), window: String(window), plan, ...(method && { method }) },
    retryAfterMs,
  });
}

function retryLater(error: ConnectError, afterMs: number, header: Headers): ConnectError {
  header.set("retry-after", String(Math.ceil(afterMs / 1000)));
  return error;
}
