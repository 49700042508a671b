import { type DescMethod, getOption, type JsonObject } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { policy, Role, rest } from "#gen/portolan/options/v1/policy_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { allMethods } from "../support/contract.ts";
import { adminKey, startTestServer, type TestServer } from "../support/gateway.ts";
import { openWire, type Wire, type WireAnswer, type WireCall } from "../support/wire.ts";

const methods = await allMethods();
const group = "idempotency-dock";
const lanes = ["gRPC", "gRPC-Web", "Connect", "REST"] as const;

type Creation = [method: DescMethod, request: JsonObject];
/** A request that works each time it is made. */
const requests: [Creation, ...Creation[]] = [
  [JobService.method.createJob, { name: "Survey", device_group_id: group, metadata: { note: "é", 2: [1] } }],
  [ShareService.method.createShare, { device_group_id: group, timeout: 5 }],
  [ResourceService.method.registerResource, { name: "Dock" }],
  [ApiKeyService.method.createApiKey, { name: "key" }],
];

let server: TestServer;
let wire: Wire;
let keys = 0;
const newKey = () => `key-${process.pid}-${keys++}`;
const admin = { "x-api-key": adminKey };
const withKey = (key: string, caller: Record<string, string> = admin) => ({
  ...caller,
  "idempotency-key": key,
});
const replayed = ({ headers }: WireAnswer) => headers["idempotency-replayed"];

beforeAll(async () => {
  server = await startTestServer();
  wire = openWire(server.url);
  await createClient(ResourceService, server.grpc()).registerResource({ deviceGroupId: group, name: "Dock" });
});
afterAll(async () => {
  wire?.close();
  await server?.stop();
});

it.each(
  methods
    .filter((method) => getOption(method, rest).successStatus === 201)
    .map((method) => [`${method.parent.name}.${method.name}`, method] as const),
)("%s creates something, and asks for a key", (_, method) => {
  expect(getOption(method, policy).idempotencyKey).toBe(true);
});

it.each(
  methods
    .filter((method) => getOption(method, policy).idempotencyKey)
    .map((method) => [`${method.parent.name}.${method.name}`, method] as const),
)("%s takes the key in the request, too", (_, method) => {
  const field = method.input.fields.find(({ name }) => name === "request_id");
  expect([field?.fieldKind, method.methodKind]).toEqual(["scalar", "unary"]);
});

describe.each(lanes)("over %s", (lane) => {
  const call = (what: WireCall) => wire.lanes[lane](what);

  it.each(requests.map(([method, request]) => [method.name, { method, request }] as const))(
    "%s repeats its answer byte for byte, by header and by request_id",
    async (_, what) => {
      const key = newKey();
      const first = await call({ ...what, headers: withKey(key) });
      const second = await call({ ...what, headers: withKey(key) });
      expect([first.reason, replayed(first), replayed(second)]).toEqual(["", undefined, "true"]);
      expect(second.httpStatus).toBe(first.httpStatus);
      expect(second.body.toString("hex")).toBe(first.body.toString("hex"));

      const request = { ...what.request, request_id: newKey() };
      const third = await call({ ...what, request, headers: admin });
      const fourth = await call({ ...what, request, headers: admin });
      expect([third.reason, replayed(third), replayed(fourth)]).toEqual(["", undefined, "true"]);
      expect(fourth.body.toString("hex")).toBe(third.body.toString("hex"));
      expect(third.body.equals(first.body)).toBe(false);
    },
  );

  const [[method, request]] = requests;

  it("refuses another request under the same key as a conflict", async () => {
    const headers = withKey(newKey());
    await call({ method, request, headers });
    const other = await call({ method, request: { ...request, name: "Another" }, headers });
    expect(other).toMatchObject({
      reason: "IDEMPOTENCY_CONFLICT",
      ...(lane === "REST" ? { httpStatus: 409 } : { code: "ALREADY_EXISTS" }),
    });
  });

  it("lets repetitions that arrive together wait for the one effect", async () => {
    const headers = withKey(newKey());
    const answers = await Promise.all(Array.from({ length: 8 }, () => call({ method, request, headers })));
    expect(new Set(answers.map(({ body }) => body.toString("hex"))).size).toBe(1);
    expect(answers.filter((answer) => replayed(answer) === undefined)).toHaveLength(1);
  });

  it("knows the key of another tenant, of another method and of yesterday not at all", async () => {
    const key = newKey();
    const first = await call({ method, request, headers: withKey(key) });
    const share = await call({
      method: ShareService.method.createShare,
      request: { device_group_id: group, timeout: 5 },
      headers: withKey(key),
    });
    expect([share.reason, replayed(share)]).toEqual(["", undefined]);

    const stranger = { "x-api-key": await server.createKey(Role.ADMIN, "elsewhere") };
    const theirs = await call({ method, request, headers: withKey(key, stranger) });
    expect([theirs.reason, replayed(theirs)]).toEqual(["DEVICE_GROUP_NOT_FOUND", undefined]);

    const almostMs = 24 * 60 * 60 * 1000 - 60_000;
    await age(almostMs);
    expect(replayed(await call({ method, request, headers: withKey(key) }))).toBe("true");
    await age(60_000);
    const anew = await call({ method, request, headers: withKey(key) });
    expect([anew.reason, replayed(anew), anew.body.equals(first.body)]).toEqual(["", undefined, false]);
  });
});

/** Makes every stored answer older. */
async function age(ms: number): Promise<void> {
  await server.kernel.write(async ({ queries }) => {
    await queries
      .updateTable("replays")
      .set((eb) => ({ created_at: eb("created_at", "-", ms) }))
      .execute();
  });
}

it("keeps neither the key nor a secret of the answer readable", async () => {
  const key = newKey();
  const keys = createClient(ApiKeyService, server.grpc());
  const { secret } = await keys.createApiKey({ name: "kept" }, { headers: { "idempotency-key": key } });
  const rows = await server.kernel.database.read.selectFrom("replays").selectAll().execute();
  const text = rows.map((row) => `${row.key} ${Buffer.from(row.response).toString("latin1")}`).join("\n");
  expect(rows.length).toBeGreaterThan(0);
  expect([text.includes(key), text.includes(secret)]).toEqual([false, false]);
});
