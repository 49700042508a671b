import { spawn } from "node:child_process";
import { createLocalJWKSet, jwtVerify } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Device, flying, startDevice } from "../support/device.ts";
import { adminKey, startTestServer, type TestServer } from "../support/gateway.ts";
import { has, run } from "../support/tools.ts";

const dock = "curl-dock";
const anyString = expect.any(String);
const instant = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);

describe.skipIf(!has("curl", "--version"))("curl, as in the published documents", () => {
  let server: TestServer;
  let device: Device;
  let authorization: string;

  beforeAll(async () => {
    server = await startTestServer();
    device = await startDevice(server.grpc(), dock);
    await device.publish(flying(dock, "", [14.5, 46.04, 300]));
    const { body } = await curl("/v3/auth/token", "-H", `x-api-key: ${adminKey}`, ...json(tokenRequest));
    authorization = `Authorization: Bearer ${body.access_token}`;
  });

  afterAll(async () => {
    await device?.stop();
    await server?.stop();
  });

  const tokenRequest = {
    grant_type: "client_credentials",
    client_id: "key-admin",
    client_secret: adminKey,
  };
  const json = (body: unknown) => ["-H", "Content-Type: application/json", "-d", JSON.stringify(body)];

  // biome-ignore lint/suspicious/noExplicitAny: tests read what they expect
  async function curl(path: string, ...args: string[]): Promise<{ status: number; body: any }> {
    const { stdout, stderr, code } = await run("curl", [
      "-sS",
      "-w",
      "\n%{http_code}",
      ...args,
      server.url + path,
    ]);
    if (code !== 0) throw new Error(stderr);
    const end = stdout.lastIndexOf("\n");
    return { status: Number(stdout.slice(end)), body: JSON.parse(stdout.slice(0, end)) };
  }

  const authorized = (path: string, ...args: string[]) => curl(path, "-H", authorization, ...args);

  const createJob = async (body: object = {}): Promise<string> => {
    const request = { name: "Inspection", deviceGroupId: dock, scheduledAt: "2099-01-01T00:00:00Z", ...body };
    return (await authorized("/v3/jobs/create", ...json(request))).body.job.jobId;
  };

  it("gets an access token that the published keys verify", async () => {
    const { status, body } = await curl(
      "/v3/auth/token",
      "-H",
      `x-api-key: ${adminKey}`,
      ...json(tokenRequest),
    );
    expect(status).toBe(200);
    expect(body).toEqual({
      access_token: anyString,
      token_type: "Bearer",
      expires_in: 3600,
      scope: expect.stringContaining("jobs:write"),
    });
    const { body: keySet } = await curl("/.well-known/jwks.json");
    const { payload, protectedHeader } = await jwtVerify(body.access_token, createLocalJWKSet(keySet));
    expect(protectedHeader.alg).toBe("RS256");
    expect(payload.sub).toBe("key-admin");
    expect(payload.exp).toBe((payload.iat as number) + 3600);
  });

  it("is refused a token in the words of OAuth", async () => {
    const key = ["-H", `x-api-key: ${adminKey}`];
    const wrongGrant = { ...tokenRequest, grant_type: "password" };
    const grant = await curl("/v3/auth/token", ...key, ...json(wrongGrant));
    expect([grant.status, grant.body.error]).toEqual([400, "unsupported_grant_type"]);
    const wrongClient = { ...tokenRequest, client_secret: "sk_wrong" };
    const client = await curl("/v3/auth/token", ...key, ...json(wrongClient));
    expect([client.status, client.body.error]).toEqual([401, "invalid_client"]);
    const missing = { grant_type: "client_credentials" };
    const request = await curl("/v3/auth/token", ...key, ...json(missing));
    expect([request.status, request.body.error]).toEqual([400, "invalid_request"]);
    expect((await curl("/v3/auth/token", ...json(tokenRequest))).status).toBe(403);
  });

  it("creates a job in the shape with name and priority", async () => {
    const request = {
      name: "Roof inspection",
      deviceGroupId: dock,
      description: "North side",
      missionId: "survey-1",
      deviceId: `${dock}-drone`,
      priority: 8,
      scheduledAt: "2099-01-01T00:00:00Z",
      metadata: { ticket: "T-1", floors: [1, 2], urgent: true },
    };
    const { status, body } = await authorized("/v3/jobs/create", ...json(request));
    expect(status).toBe(201);
    expect(body).toEqual({ success: true, job: expect.objectContaining(request) });
    expect(body.job).toMatchObject({
      jobId: expect.stringMatching(/^job-[0-9a-f-]{36}$/),
      status: "PENDING",
      createdAt: instant,
    });
  });

  it("creates a job in the shape with action on arrival", async () => {
    const request = {
      DeviceGroupID: dock,
      ActionOnArrival: "HOVER",
      DesiredLocation: { type: "Point", coordinates: [14.51, 46.05, 350] },
    };
    const { status, body } = await authorized("/v3/jobs/create", ...json(request));
    expect(status).toBe(201);
    const { jobId } = body.job;
    expect(body.success).toBe(true);
    expect(body.job).toMatchObject({
      jobId: expect.stringMatching(/^job-/),
      status: "PENDING",
      deviceGroupId: dock,
      actionOnArrival: "HOVER",
      desiredLocation: request.DesiredLocation,
      createdAt: instant,
      _links: { self: `/v3/jobs/${jobId}`, statusMqtt: `${jobId}/JOB/STATUS` },
    });
  });

  it("demands what the action on arrival needs", async () => {
    const mission = { DeviceGroupID: dock, ActionOnArrival: "MISSION" };
    const orbit = { DeviceGroupID: dock, ActionOnArrival: "ORBIT" };
    for (const request of [mission, orbit]) {
      const { status, body } = await authorized("/v3/jobs/create", ...json(request));
      expect(status).toBe(400);
      expect(body).toMatchObject({ success: false, error: "invalid_request", code: 400 });
    }
  });

  it("replays a job by its Idempotency-Key and refuses another payload under the key", async () => {
    const key = ["-H", "Idempotency-Key: 6f2c1a0e-2f57-4a4e-9e0b-5a7f1c9e4b10"];
    const request = { name: "Once", deviceGroupId: dock, scheduledAt: "2099-01-01T00:00:00Z" };
    const first = await authorized("/v3/jobs/create", ...key, ...json(request));
    const again = await authorized("/v3/jobs/create", ...key, ...json(request));
    expect([first.status, again.status]).toEqual([201, 201]);
    expect(again.body).toEqual(first.body);
    const other = await authorized("/v3/jobs/create", ...key, ...json({ ...request, name: "Twice" }));
    expect(other.status).toBe(409);
    expect(other.body.error).toBe("IDEMPOTENCY_CONFLICT");
  });

  it("lists jobs page by page and by status", async () => {
    const ids = [await createJob(), await createJob(), await createJob()];
    const first = await authorized("/v3/jobs?status=PENDING&limit=2");
    expect(first.status).toBe(200);
    expect(Object.keys(first.body).sort()).toEqual(["count", "jobs", "nextPageToken", "success"]);
    expect(first.body).toMatchObject({ success: true, count: 2, nextPageToken: expect.stringMatching(/./) });
    expect(first.body.jobs.map((job: { jobId: string }) => job.jobId)).toEqual([ids[2], ids[1]]);
    const token = encodeURIComponent(first.body.nextPageToken);
    const second = await authorized(`/v3/jobs?status=PENDING&limit=2&page_token=${token}`);
    expect(second.body.jobs[0].jobId).toBe(ids[0]);
    expect((await authorized("/v3/jobs?status=IN_PROGRESS")).body).toEqual({
      success: true,
      jobs: [],
      count: 0,
      nextPageToken: "",
    });
  });

  it("reads, changes, cancels and deletes a job", async () => {
    const jobId = await createJob();
    const path = `/v3/jobs/${jobId}`;
    const read = await authorized(path);
    expect(read.status).toBe(200);
    expect(read.body).toEqual({ success: true, job: expect.objectContaining({ jobId, status: "PENDING" }) });

    const patched = await authorized(path, "-X", "PATCH", ...json({ name: "Renamed", priority: 9 }));
    expect(patched.status).toBe(200);
    expect(patched.body.job).toMatchObject({ jobId, name: "Renamed", priority: 9, updatedAt: instant });

    const cancelled = await authorized(`${path}/cancel`, "-X", "POST");
    expect(cancelled.status).toBe(200);
    expect(cancelled.body.job).toMatchObject({ jobId, status: "CANCELLED", cancelledAt: instant });

    const again = await authorized(`${path}/cancel`, "-X", "POST");
    expect(again.status).toBe(400);
    expect(again.body).toMatchObject({ success: false, message: "Cannot cancel job" });

    const deleted = await authorized(path, "-X", "DELETE");
    expect(deleted.status).toBe(200);
    expect(deleted.body).toEqual({ success: true, message: "Job deleted successfully" });

    const gone = await authorized(path);
    expect(gone.status).toBe(404);
    expect(gone.body).toMatchObject({ success: false, message: "Job not found", code: 404 });
  });

  it("shares in the shape with role and minutes", async () => {
    const request = { DeviceGroupID: dock, role: "PILOT", timeout: 30 };
    const { status, body } = await authorized("/v3/streams/share", ...json(request));
    expect(status).toBe(201);
    expect(body.success).toBe(true);
    expect(body.share).toMatchObject({
      shareCode: expect.stringMatching(/^share-/),
      role: "PILOT",
      resourceId: dock,
    });
    expect(Date.parse(body.share.expiresAt) - Date.parse(body.share.createdAt)).toBe(30 * 60_000);
  });

  it("shares in the shape with type, permissions and seconds, lists, reads and revokes", async () => {
    const request = {
      resourceId: `${dock}-drone`,
      shareType: "DEVICE_STATUS",
      permissions: ["view"],
      expiresIn: 600,
      maxViewers: 3,
      metadata: { for: "tests" },
    };
    const { status, body } = await authorized("/v3/streams/share", ...json(request));
    expect(status).toBe(201);
    const { expiresIn, ...kept } = request;
    expect(body).toEqual({ success: true, share: expect.objectContaining(kept) });
    const { shareCode, shareUrl, expiresAt, createdAt } = body.share;
    expect(shareUrl).toContain(shareCode);
    expect(Date.parse(expiresAt) - Date.parse(createdAt)).toBe(expiresIn * 1000);

    const list = await authorized("/v3/shares");
    expect(list.body).toMatchObject({ success: true, count: list.body.shares.length });
    expect(list.body.shares.map((share: { shareCode: string }) => share.shareCode)).toContain(shareCode);

    const read = await authorized(`/v3/shares/${shareCode}`);
    expect(read.body).toEqual({ success: true, share: body.share });

    const resources = await curl(`/v3/shares/${shareCode}/resources`);
    expect(resources.body).toEqual({ success: true, resources: [dock], count: 1 });

    const revoked = await authorized(`/v3/shares/${shareCode}`, "-X", "DELETE");
    expect(revoked.status).toBe(200);
    expect(revoked.body).toEqual({ success: true, message: anyString });
    const gone = await authorized(`/v3/shares/${shareCode}`);
    expect(gone.status).toBe(404);
    expect(gone.body).toMatchObject({ success: false, message: "Share not found" });
  });

  it("lists device groups with their devices", async () => {
    const { status, body } = await authorized("/v3/resources");
    expect(status).toBe(200);
    expect(body).toMatchObject({ success: true, count: 1 });
    expect(body.resources[0]).toMatchObject({
      deviceGroupId: dock,
      name: anyString,
      deviceCount: 2,
      devices: [
        { deviceId: `${dock}-dock`, name: "Dock" },
        { deviceId: `${dock}-drone`, name: "Drone" },
      ],
    });
  });

  /** Reads a stream until it has so many messages, then ends curl. */
  function follow(path: string, wanted: number, split: RegExp, ...args: string[]): Promise<string[]> {
    const child = spawn("curl", ["-sSN", ...args, server.url + path], { stdio: ["ignore", "pipe", "pipe"] });
    return new Promise((resolve, reject) => {
      let text = "";
      let errors = "";
      child.stderr.on("data", (chunk) => {
        errors += chunk;
      });
      child.stdout.on("data", (chunk) => {
        text += chunk;
        const parts = text.split(split).slice(0, -1);
        if (parts.length < wanted) return;
        child.kill();
        resolve(parts);
      });
      child.once("close", () => reject(new Error(`curl ended early: ${errors}${text}`)));
      child.once("error", reject);
    });
  }

  const token = () => authorization.replace("Authorization: Bearer ", "");

  it("follows a device group by token and resource id as lines of JSON", async () => {
    const lines = await follow(`/prod?token=${token()}&resourceId=${dock}`, 3, /\n/);
    const updates = lines.map((line) => JSON.parse(line));
    expect(updates[0]).toMatchObject({
      deviceGroupId: dock,
      droneState: "WAYPOINT",
      dockState: "TASK_INPROGRESS",
      navigation: {
        position: { type: "Point", coordinates: [14.5, 46.04, 300] },
        orientation: { heading: 90, pitch: 0, roll: 0 },
        velocity: { groundSpeed: 8, verticalSpeed: 0 },
      },
      sensorPayload: { camera: { orientation: { pitch: -45, yaw: 0, roll: 0 } } },
      weather: { windSpeed: 3.5, windDirection: 200, temperature: 18.5, humidity: 60, rain: false },
      timestamp: instant,
    });
    const sequences = updates.map(({ sequence }) => BigInt(sequence));
    expect(sequences).toEqual([...new Set(sequences)].sort((a, b) => (a < b ? -1 : 1)));
  });

  it("follows a job as server-sent events whose ids are sequences", async () => {
    const jobId = await createJob();
    const events = await follow(
      `/prod?token=${token()}&resourceId=${jobId}`,
      3,
      /\n\n/,
      "-H",
      "Accept: text/event-stream",
    );
    const messages = events.filter((event) => event.startsWith("id:"));
    expect(messages.length).toBeGreaterThanOrEqual(2);
    for (const event of messages) {
      const [, id, data] = /^id: (\d+)\ndata: (.*)$/.exec(event) ?? [];
      expect(JSON.parse(data as string)).toMatchObject({ sequence: id, jobId, jobState: "PENDING" });
    }
  });

  it("follows a share by its code, without other credentials, and not beyond its role", async () => {
    const request = { DeviceGroupID: dock, role: "VIEWER", timeout: 5 };
    const { body } = await authorized("/v3/streams/share", ...json(request));
    const [line] = await follow(`/prod?resourceId=${body.share.shareCode}`, 1, /\n/);
    const update = JSON.parse(line as string);
    expect(update.navigation.position.coordinates).toEqual([14.5, 46.04, 300]);
    expect(update).not.toHaveProperty("batteryPercent");
    expect(update).not.toHaveProperty("sensorPayload");
  });

  it("is refused a stream without credentials", async () => {
    const { status, body } = await curl(`/prod?resourceId=${dock}`);
    expect(status).toBe(401);
    expect(body).toMatchObject({ success: false, error: "MISSING_CREDENTIALS" });
  });
});
