import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { adminKey, grpcTransport, type SpawnedServer, spawnServer, until } from "../support/gateway.ts";
import { exchange, lanes, type RawAnswer } from "../support/lanes.ts";

const json = { "content-type": "application/json" };

/** The lines of a server's log. */
const linesOf = (server: SpawnedServer) =>
  server
    .stderr()
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));

describe("with the access log on", () => {
  let server: SpawnedServer;
  beforeAll(async () => {
    server = await spawnServer({ PORTOLAN_ACCESS_LOG: "on", PORTOLAN_LOG_LEVEL: "info" });
  });
  afterAll(() => server.kill());

  const lineOf = (requestId: string) =>
    until(() => linesOf(server).find((line) => line.requestId === requestId));

  it.each(Object.entries({ gRPC: "grpc", "gRPC-Web": "grpc-web", "Connect JSON": "connect", REST: "rest" }))(
    "a call over %s is one line",
    async (lane, protocol) => {
      const requestId = `log-${protocol}`;
      await lanes[lane as keyof typeof lanes](server, {
        method: "portolan.jobs.v1.JobService/ListJobs",
        rest: { verb: "GET", path: "/v3/jobs" },
        body: {},
        headers: { "x-api-key": adminKey, "x-request-id": requestId },
      });
      const line = await lineOf(requestId);
      expect(line).toMatchObject({
        level: 30,
        msg: "call",
        method: "portolan.jobs.v1.JobService/ListJobs",
        protocol,
        code: "OK",
        tenant: "default",
        subject: "key-admin",
      });
      expect(line.durationMs).toBeGreaterThan(0);
      expect(linesOf(server).filter((other) => other.requestId === requestId)).toHaveLength(1);
    },
  );

  it("a refusal is a line with its reason", async () => {
    await exchange(server, "GET", "/v3/nothing", { "x-request-id": "log-nothing" });
    expect(await lineOf("log-nothing")).toMatchObject({
      msg: "request refused",
      protocol: "rest",
      code: "NOT_FOUND",
      reason: "UNKNOWN_PATH",
    });
  });
});

it("without it, at level info, calls and the mistakes of callers leave no line", async () => {
  const server = await spawnServer({ PORTOLAN_LOG_LEVEL: "info" });
  await exchange(server, "GET", "/v3/jobs", { "x-api-key": adminKey });
  await exchange(server, "GET", "/v3/jobs/job-none", { "x-api-key": adminKey });
  await exchange(server, "GET", "/v3/nothing", {});
  await server.kill("SIGTERM");
  expect(linesOf(server).map(({ msg }) => msg)).toEqual(["stopping"]);
});

it("no secret is in the log, whatever credential came in whichever way", async () => {
  const metricsToken = "metrics-token-7c1f";
  const server = await spawnServer({
    PORTOLAN_ACCESS_LOG: "on",
    PORTOLAN_LOG_LEVEL: "trace",
    PORTOLAN_METRICS_TOKEN: metricsToken,
  });
  const ask = (verb: string, path: string, headers: Record<string, string> = {}, body?: unknown) =>
    exchange(
      server,
      verb,
      path,
      { ...json, ...headers },
      body === undefined ? undefined : JSON.stringify(body),
    );
  const admin = { "x-api-key": adminKey };
  const transport = grpcTransport(server.url);

  const { secret } = await createClient(ApiKeyService, transport).createApiKey({
    name: "k",
    role: Role.MANAGER,
  });
  const token = JSON.parse(
    (
      await ask("POST", "/v3/auth/token", admin, {
        grant_type: "client_credentials",
        client_id: "key-admin",
        client_secret: adminKey,
      })
    ).body.toString(),
  ).access_token as string;
  expect(token).toMatch(/^eyJ/);
  await createClient(ResourceService, transport).registerResource({ deviceGroupId: "dock", name: "Dock" });
  const pin = "408213";
  const { share } = await createClient(ShareService, transport).createShare({
    resourceId: "dock",
    expiresIn: 600,
    pin,
  });
  const code = share?.shareCode as string;
  const cookie = "session-cookie-51b2";
  const basic = "dXNlcjpwYXNzd29yZA";
  const wrong = ["sk_wrong_key_81c2", "wrong.token.part", "998877"];

  const stream = async (path: string, headers: Record<string, string> = {}) => {
    const stop = new AbortController();
    const request = exchange(
      server,
      "GET",
      path,
      { accept: "text/event-stream", ...headers },
      undefined,
      stop.signal,
    );
    await Promise.race([request, new Promise((resolve) => setTimeout(resolve, 500))]).catch(() => {});
    stop.abort();
    await request.catch(() => {});
  };
  const answers: RawAnswer[] = [
    await ask("GET", "/v3/jobs", { "x-api-key": secret }),
    await ask("GET", "/v3/jobs", { authorization: `Bearer ${token}` }),
    await ask("GET", "/v3/jobs", { authorization: `Bearer ${secret}`, cookie: `sid=${cookie}` }),
    await ask("GET", "/v3/jobs", { authorization: `Basic ${basic}` }),
    await ask("GET", "/v3/jobs", { "x-api-key": wrong[0] as string }),
    await ask("GET", "/v3/jobs", { authorization: `Bearer ${wrong[1]}` }),
    await ask("GET", `/v3/jobs?token=${token}&access_token=${secret}`),
    await ask("GET", `/v3/shares/${code}`, admin),
    await ask("GET", `/v3/shares/${code}/nothing?pin=${pin}`),
    await ask("GET", `/prod?resource_id=${code}&pin=${wrong[2]}`),
    await ask("POST", "/v3/streams/share", admin, { resourceId: "dock", expiresIn: "soon", pin }),
    await ask("POST", "/v3/streams/share", admin, { resourceId: "dock", expiresIn: 60, pin: [pin] }),
    await ask("POST", "/portolan.shares.v1.ShareService/TrackShare", {}, { shareCode: code, pin }),
    await ask(
      "POST",
      "/portolan.identity.v1.TokenService/IssueToken",
      {},
      { client_secret: secret, unknown: 1 },
    ),
    await ask("POST", "/v3/auth/token", {}, { grant_type: "client_credentials", client_secret: wrong[0] }),
    await ask("GET", "/metrics", { authorization: `Bearer ${metricsToken}` }),
  ];
  expect(new Set(answers.map(({ status }) => status)).size).toBeGreaterThan(3);
  await stream(`/v3/shares/${code}/status/ws?pin=${pin}`);
  await stream(`/v3/devices/dock/status/ws?token=${token}`);
  await stream(`/prod?resource_id=dock&access_token=${secret}`);
  const { stderr } = await server.kill("SIGTERM");

  expect(stderr.split("\n").length).toBeGreaterThan(answers.length);
  const secrets = { adminKey, secret, token, code, pin, cookie, basic, metricsToken, ...wrong };
  for (const [name, value] of Object.entries(secrets)) expect(stderr, name).not.toContain(value);
});
