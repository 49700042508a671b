import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http2 from "node:http2";
import https from "node:https";
import net, { type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Health, HealthCheckResponse_ServingStatus as Serving } from "#gen/grpc/health/v1/health_pb.js";
import { DroneState, JobState, TrackKind, type TrackUpdate } from "#gen/portolan/common/v1/track_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import {
  type PublishTelemetryRequest,
  TelemetryService,
} from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { flying, startDevice } from "../support/device.ts";
import {
  adminKey,
  grpcTransport,
  runMain,
  type SpawnedServer,
  spawnServer,
  until,
  withKey,
} from "../support/gateway.ts";
import { has, run } from "../support/tools.ts";

// Each start of a process takes seconds on a slow machine.
const timeout = 180_000;

const documented = [
  "PORT",
  "HOST",
  "PORTOLAN_DATA_DIR",
  "PORTOLAN_DATABASE_URL",
  "PORTOLAN_ADMIN_API_KEY",
  "PORTOLAN_SANDBOX",
  "PORTOLAN_LOG_LEVEL",
  "PORTOLAN_TLS_CERT",
  "PORTOLAN_TLS_KEY",
];

describe("the program", () => {
  it("lists all settings with --help", { timeout }, async () => {
    const { code, stdout } = await runMain({}, ["--help"]).exited;
    expect(code).toBe(0);
    const listed = [...stdout.matchAll(/^ {2}([A-Z_]+) +\S/gm)].map(([, name]) => name);
    expect(listed).toEqual(expect.arrayContaining(documented));
  });

  it("ends with 2 and names each bad setting", { timeout }, async () => {
    const bad = {
      PORT: "eighty",
      PORTOLAN_SANDBOX: "maybe",
      PORTOLAN_TLS_CERT: "none.pem",
      PORTOLAN_COLOUR: "red",
    };
    const { code, stderr } = await runMain(bad).exited;
    expect(code).toBe(2);
    for (const name of Object.keys(bad)) expect(stderr).toMatch(new RegExp(`^${name}: `, "m"));
  });

  it("says so when the port is taken", { timeout }, async () => {
    const holder = net.createServer();
    await new Promise<void>((resolve) => holder.listen(0, "127.0.0.1", resolve));
    const { port } = holder.address() as AddressInfo;
    const dataDir = mkdtempSync(join(tmpdir(), "portolan-"));
    const { code, stderr } = await runMain({ PORT: String(port), PORTOLAN_DATA_DIR: dataDir }).exited;
    holder.close();
    rmSync(dataDir, { recursive: true, force: true });
    expect(code).toBe(1);
    expect(stderr).toContain(`127.0.0.1:${port}`);
    expect(stderr).toContain("Set PORT to a free port");
    expect(stderr).not.toContain("    at ");
  });
});

describe("SIGTERM", () => {
  it("ends streams cleanly, lets calls in flight finish, and exits with 0", { timeout }, async () => {
    const server = await spawnServer();
    const transport = grpcTransport(server.url);
    const device = await startDevice(grpcTransport(server.url), "term-dock");
    const jobs = createClient(JobService, transport);
    const scheduledAt = { seconds: 4_000_000_000n };
    const { job } = await jobs.createJob({ name: "Later", deviceGroupId: "term-dock", scheduledAt });

    const updates: TrackUpdate[] = [];
    const tracked = (async () => {
      for await (const update of jobs.trackJob({ jobId: job?.jobId ?? "" })) updates.push(update);
    })();
    const telemetry = createClient(TelemetryService, transport);
    for (const ago of [3_600_000, 0]) {
      const timestamp = timestampFromMs(Date.now() - ago);
      const { navigation } = flying("term-dock", "", [14.5, 46, 300]);
      await telemetry.publishSample({
        deviceGroupId: "term-dock",
        sample: { timestamp, ...(navigation && { navigation }) },
      });
    }
    const replayed: TrackKind[] = [];
    const replaying = (async () => {
      for await (const { kind } of telemetry.replayTrack({ deviceGroupId: "term-dock" })) replayed.push(kind);
    })();
    const statuses: Serving[] = [];
    const watched = (async () => {
      const watch = createClient(Health, transport).watch({ service: JobService.typeName });
      for await (const { status } of watch) statuses.push(status);
    })();

    let finish = () => {};
    const stopping = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let sent = () => {};
    const firstSent = new Promise<void>((resolve) => {
      sent = resolve;
    });
    async function* samples(): AsyncGenerator<Partial<PublishTelemetryRequest>> {
      const sample = flying("term-dock", "", [14.5, 46, 300]) as never;
      yield { deviceGroupId: "term-dock", sample };
      sent();
      await stopping;
      yield { sample };
    }
    const published = telemetry.publishTelemetry(samples() as never);
    await firstSent;
    await until(() => updates.length > 0 && statuses.length > 0 && replayed.length > 0);
    expect(statuses).toEqual([Serving.SERVING]);

    const exited = server.kill("SIGTERM");
    await Promise.all([tracked, watched, replaying]);
    expect(statuses).toEqual([Serving.SERVING, Serving.NOT_SERVING]);
    expect(updates.at(-1)?.kind).toBe(TrackKind.RECONNECT);
    expect(replayed).toEqual([TrackKind.HISTORY, TrackKind.RECONNECT]);
    finish();
    expect((await published).accepted).toBe(2n);
    await device.stop();
    const { code, signal, stderr } = await exited;
    expect([code, signal]).toEqual([0, null]);
    expect(stderr).not.toMatch(/error/i);

    const again = await spawnServer({ PORTOLAN_DATA_DIR: server.dataDir });
    const { samples: kept } = await createClient(TelemetryService, grpcTransport(again.url)).listSamples({
      deviceGroupId: "term-dock",
    });
    await again.kill();
    rmSync(server.dataDir, { recursive: true, force: true });
    expect(kept).toHaveLength(4);
  });
});

describe.skipIf(!has("openssl", "version"))("TLS with a certificate of openssl's making", () => {
  let server: SpawnedServer;
  let folder: string;
  let ca: Buffer;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "portolan-tls-"));
    const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    const made = [
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-days",
      "2",
      "-keyout",
      key,
      "-out",
      cert,
    ];
    expect((await run("openssl", [...made, ...subject])).code).toBe(0);
    ca = readFileSync(cert);
    server = await spawnServer({ PORTOLAN_TLS_CERT: cert, PORTOLAN_TLS_KEY: key });
  }, timeout);

  afterAll(async () => {
    await server?.kill();
    for (const path of [folder, server?.dataDir]) if (path) rmSync(path, { recursive: true, force: true });
  });

  it("chooses h2 for gRPC", { timeout }, async () => {
    expect(server.url).toMatch(/^https:/);
    const session = http2.connect(server.url, { ca });
    await new Promise((resolve, reject) => session.once("connect", resolve).once("error", reject));
    expect(session.alpnProtocol).toBe("h2");
    session.destroy();
    const transport = createGrpcTransport({
      baseUrl: server.url,
      nodeOptions: { ca },
      interceptors: [withKey(adminKey)],
    });
    expect((await createClient(JobService, transport).listJobs({})).count).toBe(0);
  });

  it("serves JSON over HTTP/1.1", { timeout }, async () => {
    const { protocol, body } = await new Promise<{ protocol: unknown; body: string }>((resolve, reject) => {
      const headers = { "x-api-key": adminKey };
      const options = { ca, headers, agent: false, ALPNProtocols: ["http/1.1"] };
      const request = https.get(`${server.url}/v3/jobs`, options, (response) => {
        const { alpnProtocol } = response.socket as TLSSocket;
        let text = "";
        response.on("data", (chunk) => {
          text += chunk;
        });
        response.on("end", () => resolve({ protocol: alpnProtocol, body: text }));
      });
      request.on("error", reject);
    });
    expect(protocol).toBe("http/1.1");
    expect(JSON.parse(body)).toEqual({ success: true, jobs: [], count: 0, nextPageToken: "" });
  });
});

describe("the first start", () => {
  it("prints a key that works, and a sandbox dock flies a job", { timeout }, async () => {
    const server = await spawnServer({ PORTOLAN_SANDBOX: "on", PORTOLAN_ADMIN_API_KEY: "" });
    try {
      const banner = server.stdout();
      const [, key = ""] = /API key\s+(sk_\S+)/.exec(banner) ?? [];
      expect(readFileSync(join(server.dataDir, "admin-api-key"), "utf8").trim()).toBe(key);
      for (const part of ["curl", "buf curl", "grpc-js", "sandbox-dock-1"]) expect(banner).toContain(part);

      const transport = grpcTransport(server.url, key);
      const deviceGroupId = "sandbox-dock-1";
      const resources = createClient(ResourceService, transport);
      await until(async () => {
        const { resources: found } = await resources.listResources({});
        return found.find((each) => each.deviceGroupId === deviceGroupId)?.online;
      });
      const jobs = createClient(JobService, transport);
      const { job } = await jobs.createJob({ name: "First flight", deviceGroupId, missionId: "survey-1" });
      const places = new Set<string>();
      let started = false;
      for await (const update of jobs.trackJob({ jobId: job?.jobId ?? "" })) {
        expect([JobState.PENDING, JobState.QUEUED, JobState.INPROGRESS]).toContain(update.jobState);
        if (update.jobState !== JobState.INPROGRESS) continue;
        started = true;
        if (update.droneState === DroneState.DOCKED) continue;
        places.add(String(update.navigation?.position?.coordinates));
        if (places.size >= 4) break;
      }
      expect(started).toBe(true);
      expect(places.size).toBe(4);
    } finally {
      await server.kill();
      rmSync(server.dataDir, { recursive: true, force: true });
    }
  });
});
