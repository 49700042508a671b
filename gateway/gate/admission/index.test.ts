import { create, type DescMethod } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { expect, it } from "vitest";
import { CredentialKind } from "#gen/portolan/identity/v1/audit_log_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { LimitScope, PolicySchema, Role } from "#gen/portolan/options/v1/policy_pb.js";
import { reasonOf } from "#kernel/errors.ts";
import { readPlans } from "#kernel/plans.ts";
import { createAdmission, rulesOf } from "./index.ts";

const start = 1_800_000_000_000;
const idle = { overloaded: () => false, enter() {}, leave() {} };
const minute = create(DurationSchema, { seconds: 60n });

const principal = (subject: string, plan = "default") => ({
  tenantId: "t",
  subject,
  role: Role.VIEWER,
  credential: CredentialKind.API_KEY,
  permissions: new Set<string>(),
  plan,
});

function open() {
  let nowMs = start;
  const waits: number[] = [];
  const admission = createAdmission({
    plans: readPlans(),
    load: idle,
    nowMs: () => nowMs,
    wait: async (ms) => void waits.push(ms),
  });
  return {
    /** How long refusals were held back. */
    waits,
    pass(ms: number) {
      nowMs += ms;
    },
    /** What the headers tell, with the reason of a refusal. */
    async call(
      policy: Parameters<typeof create<typeof PolicySchema>>[1],
      { key, plan, address = "192.0.2.1" }: { key?: string; plan?: string; address?: string },
    ) {
      const header = new Headers();
      const rules = rulesOf(JobService.method.createJob, create(PolicySchema, policy));
      const arrival = {
        rules,
        principal: key ? principal(key, plan) : undefined,
        remoteAddress: address,
        refused: false,
        header,
        signal: new AbortController().signal,
      };
      const reason = await admission.admit(arrival).then(
        (leave) => {
          leave();
          return "";
        },
        (error) => reasonOf(error),
      );
      const told = (name: string) => Number(header.get(name));
      return {
        reason,
        limit: told("x-ratelimit-limit"),
        remaining: told("x-ratelimit-remaining"),
        resetS: told("x-ratelimit-reset") - start / 1000,
        windowS: told("x-ratelimit-window"),
        retryAfterS: told("retry-after"),
      };
    },
  };
}

it("takes the cost of a method from the plan", async () => {
  const { call, pass } = open();
  const heavy = { rateCost: 30 };
  expect(await call(heavy, { key: "a" })).toMatchObject({
    reason: "",
    limit: 100,
    remaining: 70,
    resetS: 18,
  });
  await call(heavy, { key: "a" });
  await call(heavy, { key: "a" });
  expect(await call(heavy, { key: "a" })).toEqual({
    reason: "RATE_LIMITED",
    limit: 100,
    remaining: 10,
    resetS: 54,
    windowS: 60,
    retryAfterS: 12,
  });
  pass(12_000);
  expect((await call(heavy, { key: "a" })).reason).toBe("");
});

it("rounds the seconds to wait up, so that a client who waits them is let in", async () => {
  const { call, pass } = open();
  for (let i = 0; i < 100; i++) await call({}, { key: "a" });
  expect(await call({}, { key: "a" })).toMatchObject({ reason: "RATE_LIMITED", retryAfterS: 1 });
  pass(1000);
  expect((await call({}, { key: "a" })).reason).toBe("");
});

it("counts each key, each method and each address for itself", async () => {
  const { call } = open();
  const limits = [
    { requests: 2, per: minute },
    { requests: 3, per: minute, scope: LimitScope.ADDRESS },
  ];
  const reasons = async (calls: { key?: string; address?: string }[]) => {
    const seen: (string | undefined)[] = [];
    for (const each of calls) seen.push((await call({ limits }, each)).reason);
    return seen;
  };
  expect(await reasons([{ key: "a" }, { key: "a" }, { key: "a" }])).toEqual(["", "", "RATE_LIMITED"]);
  // The address has one left: what was refused took nothing from it.
  expect(await reasons([{ key: "b" }, { key: "c" }])).toEqual(["", "RATE_LIMITED"]);
  expect(await reasons([{ key: "c", address: "192.0.2.2" }])).toEqual([""]);
  expect((await call({}, { key: "a" })).remaining).toBe(97);
});

it("holds the refusals of a caller back who does not heed them, and of no other", async () => {
  const { call, pass, waits } = open();
  const spend = async (key: string, calls: number) => {
    for (let i = 0; i < calls; i++) await call({}, { key });
    return waits.splice(0);
  };
  expect(await spend("a", 100 + 50)).toEqual([]);
  expect(await spend("a", 3)).toEqual([1000, 1185, 1370]);
  expect(await spend("b", 101)).toEqual([]);
  pass(100);
  expect(await spend("a", 3)).toEqual([1055]);
});

it("lets in as many calls and as many streams as the plan has room for, until they are over", async () => {
  const counts = { entered: 0, left: 0 };
  const load = { ...idle, enter: () => void counts.entered++, leave: () => void counts.left++ };
  const admission = createAdmission({ plans: readPlans(), load, nowMs: () => start });
  const admit = (method: DescMethod) =>
    admission.admit({
      rules: rulesOf(method, create(PolicySchema)),
      principal: principal("a", "free"),
      remoteAddress: "192.0.2.1",
      refused: false,
      header: new Headers(),
      signal: new AbortController().signal,
    });
  const reasonFor = (method: DescMethod) => admit(method).then(() => "", reasonOf);
  for (const [method, reason] of [
    [JobService.method.getJob, "TOO_MANY_CALLS"],
    [JobService.method.trackJob, "TOO_MANY_STREAMS"],
  ] as const) {
    const leaves = await Promise.all(Array.from({ length: 10 }, () => admit(method)));
    expect(await reasonFor(method)).toBe(reason);
    leaves[0]?.();
    leaves[0]?.();
    expect([await reasonFor(method), await reasonFor(method)]).toEqual(["", reason]);
  }
  // Streams are no calls in flight.
  expect(counts).toEqual({ entered: 11, left: 1 });
});

it("counts a client's IPv6 addresses together", async () => {
  const { call } = open();
  await call({}, { address: "2001:db8::1" });
  expect((await call({}, { address: "2001:db8::2" })).remaining).toBe(98);
  expect((await call({}, { address: "2001:db8:0:1::2" })).remaining).toBe(99);
});

it("holds a key whose plan has gone to the default", async () => {
  expect((await open().call({}, { key: "a", plan: "gone" })).limit).toBe(100);
});

it("refuses limits that limit nothing", () => {
  const rulesWith = (limit: object) => () =>
    rulesOf(JobService.method.createJob, create(PolicySchema, { limits: [limit] }));
  expect(rulesWith({ requests: 0, per: minute })).toThrow(/CreateJob has a limit/);
  expect(rulesWith({ requests: 1 })).toThrow(/CreateJob has a limit/);
});
