import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type DescMethod, getOption, type JsonObject } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { importJWK, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { httpStatusOf, rulesOf } from "#gateway/rest/index.ts";
import { dialectOf } from "#gateway/surfaces.ts";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Access, policy, Role } from "#gen/portolan/options/v1/policy_pb.js";
import { Surface, surface } from "#gen/portolan/options/v1/surface_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { fail, type Reason } from "#kernel/errors.ts";
import { identityStore } from "#services/identity/store.ts";
import { allMethods } from "../support/contract.ts";
import { startTestServer, type TestServer } from "../support/gateway.ts";
import { openWire, type Wire, type WireAnswer } from "../support/wire.ts";

const methods = await allMethods();
const roles = [Role.VIEWER, Role.PILOT, Role.MANAGER, Role.ADMIN, Role.DEVICE];
const group = "decisions-dock";

let server: TestServer;
let wire: Wire;
let folder: string;
/** Headers of each kind of caller. */
const callers = new Map<string, Record<string, string>>();
/** What there is in the first tenant, by the field that names it. */
const present: Record<string, string> = { device_group_id: group };

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "portolan-plans-"));
  const plans = join(folder, "plans.json");
  // All of this comes from one address, and quickly.
  writeFileSync(plans, JSON.stringify({ anonymous: { requests: 1_000_000, per: "second" } }));
  server = await startTestServer({ PORTOLAN_PLANS: plans });
  wire = openWire(server.url);

  const keys = createClient(ApiKeyService, server.grpc());
  const newKey = async (role: Role, tenantId = "") =>
    keys.createApiKey({ name: "test", role, tenantId, plan: "unlimited" });
  for (const role of roles) callers.set(Role[role], { "x-api-key": (await newKey(role)).secret });
  callers.set("ADMIN of another tenant", { "x-api-key": (await newKey(Role.ADMIN, "elsewhere")).secret });
  callers.set("nobody", {});
  callers.set("an unknown key", { "x-api-key": "sk_unknown" });
  callers.set("no token", { authorization: "Bearer a.b.c" });
  callers.set("another scheme", { authorization: "Basic eA==" });

  const [signing] = await identityStore(server.kernel.database.read).signingKeys();
  const { kid, private_jwk } = signing as { kid: string; private_jwk: string };
  const now = Math.floor(Date.now() / 1000);
  const token = await new SignJWT({})
    .setProtectedHeader({ alg: "RS256", kid })
    .setSubject("key-admin")
    .setIssuer("portolan")
    .setAudience("portolan")
    .setIssuedAt(now - 7200)
    .setExpirationTime(now - 3600)
    .sign(await importJWK(JSON.parse(private_jwk), "RS256"));
  callers.set("an expired token", { authorization: `Bearer ${token}` });
  const revoked = await newKey(Role.ADMIN);
  await keys.revokeApiKey({ id: revoked.apiKey?.id ?? "" });
  callers.set("a revoked key", { "x-api-key": revoked.secret });

  present.id = (await newKey(Role.VIEWER)).apiKey?.id ?? "";
  await createClient(ResourceService, server.grpc()).registerResource({ deviceGroupId: group, name: "Dock" });
  const scheduledAt = { seconds: 4_000_000_000n };
  const { job } = await createClient(JobService, server.grpc()).createJob({
    name: "Survey",
    deviceGroupId: group,
    scheduledAt,
  });
  present.job_id = job?.jobId ?? "";
});

afterAll(async () => {
  wire?.close();
  await server?.stop();
  rmSync(folder, { recursive: true });
});

/** Whether a role holds the permission of a method: some policy gives it that permission. */
function holds(role: Role, method: DescMethod): boolean {
  const { permission } = getOption(method, policy);
  const giving = methods.filter((each) => getOption(each, policy).permission === permission);
  return role === Role.ADMIN || giving.some((each) => getOption(each, policy).roles.includes(role));
}

/** A request with nothing but what its path needs, and the ids of things where they are asked for. */
function requestOf(method: DescMethod, ids: Record<string, string>): JsonObject {
  const [rule] = rulesOf(method);
  const request: JsonObject = rule?.body && rule.body !== "*" ? { [rule.body.name]: {} } : {};
  for (const { name, fieldKind } of method.input.fields) {
    const isId = fieldKind === "scalar" && /(^|_)id$|_code$/.test(name) && name !== "request_id";
    const inPath = rule?.template.includes(`{${name}`);
    if (inPath || (isId && ids[name])) request[name] = ids[name] ?? "none";
  }
  return request;
}

/** Calls over every lane the method has, and demands the same decision. */
async function decide(method: DescMethod, who: string, ids: Record<string, string> = {}) {
  const call = { method, request: requestOf(method, ids), headers: callers.get(who) ?? {} };
  const answers = new Map<string, WireAnswer>();
  for (const [lane, ask] of Object.entries(wire.lanes)) {
    if (lane !== "REST" || rulesOf(method).length > 0) answers.set(lane, await ask(call));
  }
  const { code, reason } = answers.get("gRPC") as WireAnswer;
  for (const [lane, answer] of answers) {
    if (lane !== "REST") {
      expect([who, lane, answer.code, answer.reason]).toEqual([who, lane, code, reason]);
      continue;
    }
    // The error body of OAuth has names of its own.
    if (getOption(method.parent, surface) !== Surface.OAUTH) {
      expect([who, lane, answer.reason]).toEqual([who, lane, reason]);
    }
    const status = reason
      ? httpStatusOf(fail(reason as Reason), dialectOf(method, rulesOf(method)[0]?.template ?? ""))
      : 200;
    expect([who, lane, answer.httpStatus < 300 ? 200 : answer.httpStatus]).toEqual([who, lane, status]);
  }
  return { code, reason };
}

describe.each(methods.map((method) => [`${method.parent.name}.${method.name}`, method] as const))(
  "%s",
  (_, method) => {
    const { access } = getOption(method, policy);

    it("decides alike over every protocol, for every role", async () => {
      for (const role of roles) {
        const { code, reason } = await decide(method, Role[role]);
        const denied = access !== Access.PUBLIC && !holds(role, method);
        expect([Role[role], reason === "INSUFFICIENT_PERMISSIONS"]).toEqual([Role[role], denied]);
        expect(code).not.toBe("INTERNAL");
      }
    });

    it("decides alike over every protocol, for every kind of bad credentials", async () => {
      const expected: Record<string, string> = {
        nobody: "MISSING_CREDENTIALS",
        "an unknown key": "INVALID_TOKEN",
        "no token": "INVALID_TOKEN",
        "another scheme": "INVALID_TOKEN",
        "an expired token": "TOKEN_EXPIRED",
        "a revoked key": "INVALID_TOKEN",
      };
      for (const [who, refusal] of Object.entries(expected)) {
        const { reason } = await decide(method, who);
        if (access === Access.PUBLIC) expect([who, reason]).not.toEqual([who, refusal]);
        else if (access === Access.PERMISSION || who !== "nobody")
          expect([who, reason]).toEqual([who, refusal]);
      }
    });

    it("decides alike over every protocol, for an administrator of another tenant", async () => {
      const { reason } = await decide(method, "ADMIN of another tenant", present);
      const [rule] = rulesOf(method);
      // What stands in the path is asked for; elsewhere it may only narrow a list.
      const asks = Object.keys(present).some((name) => rule?.template.includes(`{${name}`));
      if (asks) expect(reason).toMatch(/_NOT_FOUND$|^VALIDATION_ERROR$/);
      expect(reason).not.toBe("INSUFFICIENT_PERMISSIONS");
    });
  },
);
