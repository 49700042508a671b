import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { planOfRole, readPlans } from "./plans.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "portolan-plans-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

function fileOf(content: unknown): string {
  const path = join(folder, "plans.json");
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

const [minuteMs, hourMs] = [60_000, 3_600_000];

it.each([
  ["default", 100, minuteMs, 100, 100],
  ["free", 1000, hourMs, 100, 10],
  ["pro", 10_000, hourMs, 500, 100],
  ["enterprise", 100_000, hourMs, 2000, 1000],
  ["standard", 1000, minuteMs, 100, 100],
  ["premium", 5000, minuteMs, 500, 500],
])("has the plan %s of the documents", (name, requests, windowMs, burst, concurrency) => {
  expect(readPlans().get(name)).toEqual({
    name,
    rate: { requests, windowMs, burst },
    concurrency,
    methodLimits: true,
  });
});

it("has a plan for every role, for callers without a key and for those without limits", () => {
  const plans = readPlans();
  for (const role of [Role.VIEWER, Role.PILOT, Role.MANAGER, Role.ADMIN])
    expect(planOfRole(role)).toBe("default");
  for (const name of [planOfRole(Role.DEVICE), "anonymous", "unlimited"]) expect(plans.has(name)).toBe(true);
  expect(plans.get("unlimited")?.methodLimits).toBe(false);
});

it("adds plans of a file, and puts them in the place of built-in ones", () => {
  const plans = readPlans(
    fileOf({
      gold: { requests: 5, per: "second" },
      default: { requests: 7, per: "day", burst: 2, concurrency: 3 },
    }),
  );
  expect(plans.get("gold")).toMatchObject({
    rate: { requests: 5, windowMs: 1000, burst: 5 },
    concurrency: 100,
  });
  expect(plans.get("default")).toMatchObject({
    rate: { requests: 7, windowMs: 86_400_000, burst: 2 },
    concurrency: 3,
  });
  expect(plans.get("free")).toEqual(readPlans().get("free"));
});

it.each([
  ["no JSON", "{", /JSON/],
  ["no object", [], /object|record/],
  ["a name with a blank", { "my plan": { requests: 1, per: "day" } }, /my plan/],
  ["no requests", { gold: { requests: 0, per: "day" } }, /gold\.requests/],
  ["half a request", { gold: { requests: 1.5, per: "day" } }, /gold\.requests/],
  ["an unknown window", { gold: { requests: 1, per: "week" } }, /gold\.per/],
  ["an unknown setting", { gold: { requests: 1, per: "day", brust: 2 } }, /brust/],
  ["a burst beyond counting", { gold: { requests: 1e9, per: "day" } }, /burst/],
])("refuses a file with %s, and says where", (_, content, problem) => {
  expect(() => readPlans(fileOf(content))).toThrow(problem);
});
