import { monitorEventLoopDelay } from "node:perf_hooks";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { afterAll, beforeAll, expect, it } from "vitest";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { TrackKind } from "#gen/portolan/common/v1/track_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ShareType } from "#gen/portolan/shares/v1/share_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { TrackService } from "#gen/portolan/streams/v1/track_service_pb.js";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason, reader, startTestServer, type TestServer } from "#test/support/server.ts";

const sensorPayload = { camera: { orientation: { pitch: -30, yaw: 5 } } };

onEachEngine((database) => {
  let server: TestServer;
  let shares: Client<typeof ShareService>;
  /** Somebody without any credentials but a share code. */
  let guest: Client<typeof ShareService>;
  let deviceGroupId: string;

  beforeAll(async () => {
    server = await startTestServer(database());
    shares = server.client(ShareService, (await server.newKey(Role.MANAGER)).secret);
    guest = server.client(ShareService);
    deviceGroupId = await server.newGroup();
    const sample = { batteryPercent: 77, sensorPayload, navigation: { velocity: { groundSpeed: 4 } } };
    await server.client(TelemetryService, server.admin).publishSample({ deviceGroupId, sample });
  });
  afterAll(() => server.stop());

  const newShare = async (fields: object = {}) => {
    const { share } = await shares.createShare({ deviceGroupId, timeout: 5, ...fields });
    if (!share) throw new Error("no share");
    return share;
  };
  const watch = (shareCode: string, pin = "") => reader(guest.trackShare({ shareCode, pin }));

  it("takes both published shapes of a request over REST", async () => {
    const byRole = await server.rest("POST", "/v3/streams/share", {
      body: { DeviceGroupID: deviceGroupId, role: "PILOT", timeout: 30 },
    });
    expect([byRole.status, byRole.json.success]).toEqual([201, true]);
    const byType = await server.rest("POST", "/v3/streams/share", {
      body: {
        resourceId: deviceGroupId,
        shareType: "STREAM",
        permissions: ["view", "control"],
        expiresIn: 1800,
        maxViewers: 2,
        metadata: { customer: 7 },
      },
    });
    expect(byType.json.share).toMatchObject({
      role: "PILOT",
      shareType: "STREAM",
      maxViewers: 2,
      metadata: { customer: 7 },
    });
    for (const { json } of [byRole, byType]) {
      const { share } = await shares.getShare({ shareCode: json.share.shareCode });
      const life = timestampMs(share?.expiresAt as never) - timestampMs(share?.createdAt as never);
      expect([share?.role, life]).toEqual([Role.PILOT, 1_800_000]);
      expect(share?.shareUrl.startsWith(server.url)).toBe(true);
    }
    await expectReason(shares.createShare({ deviceGroupId, timeout: 1, expiresIn: 1 }), "VALIDATION_ERROR");
    await expectReason(shares.createShare({ deviceGroupId: "none", timeout: 1 }), "SUBJECT_NOT_FOUND");
  });

  it.each([
    ["VIEWER", { role: Role.VIEWER }, false, false],
    ["VIEWER of a STREAM", { role: Role.VIEWER, shareType: ShareType.STREAM }, false, true],
    ["PILOT", { role: Role.PILOT }, true, true],
    ["MANAGER", { role: Role.MANAGER }, true, true],
    ["holder of `view`", { permissions: ["view"] }, false, false],
    ["holder of `manage`", { permissions: ["manage"] }, true, true],
  ])("shows a %s what it may see", async (_, fields, battery, payload) => {
    const { shareCode } = await newShare(fields);
    const viewer = watch(shareCode);
    const first = await viewer.next();
    await viewer.stop();
    expect(first).toMatchObject({
      kind: TrackKind.STATE,
      subject: shareCode,
      navigation: { velocity: { groundSpeed: 4 } },
    });
    expect([first?.batteryPercent !== undefined, first?.sensorPayload !== undefined]).toEqual([
      battery,
      payload,
    ]);
  });

  it("shows nothing from before it was made, wherever a viewer resumes", async () => {
    const telemetry = server.client(TelemetryService, server.admin);
    await telemetry.publishSample({
      deviceGroupId,
      sample: { navigation: { velocity: { groundSpeed: 5 } } },
    });
    const { shareCode } = await newShare();
    await telemetry.publishSample({
      deviceGroupId,
      sample: { navigation: { velocity: { groundSpeed: 6 } } },
    });
    const viewer = reader(guest.trackShare({ shareCode, afterSequence: 1n }));
    const first = await viewer.next();
    expect(first).toMatchObject({ kind: TrackKind.HISTORY, navigation: { velocity: { groundSpeed: 6 } } });
    expect((await viewer.next())?.kind).toBe(TrackKind.STATE);
    await viewer.stop();
    await telemetry.publishSample({
      deviceGroupId,
      sample: { navigation: { velocity: { groundSpeed: 4 } } },
    });
  });

  it("can be followed by its code alone through Track, and lists what it reaches", async () => {
    const { shareCode } = await newShare();
    const viewer = reader(server.client(TrackService).track({ resourceId: shareCode }));
    expect((await viewer.next())?.deviceGroupId).toBe(deviceGroupId);
    await viewer.stop();
    expect(await guest.listShareResources({ shareCode })).toMatchObject({
      resources: [deviceGroupId],
      count: 1,
    });
    await expectReason(
      server.client(TrackService).track({ resourceId: deviceGroupId }),
      "MISSING_CREDENTIALS",
    );
    await expectReason(guest.getShare({ shareCode }), "MISSING_CREDENTIALS");
  });

  it("ends the streams of a share when it expires, and is gone then", async () => {
    const { shareCode } = await newShare({ timeout: 0, expiresIn: 15 });
    const messages = await reader(guest.trackShare({ shareCode })).rest();
    expect(messages.at(-1)).toMatchObject({ kind: TrackKind.FINAL, message: "The share has expired" });
    await expectReason(guest.trackShare({ shareCode }), "SHARE_NOT_FOUND");
    await expectReason(guest.listShareResources({ shareCode }), "SHARE_NOT_FOUND");
    await expectReason(shares.getShare({ shareCode }), "SHARE_NOT_FOUND");
    await expectReason(shares.revokeShare({ shareCode }), "SHARE_NOT_FOUND");
  });

  it("ends the streams of a share within a second of its revocation", async () => {
    const { shareCode } = await newShare();
    const viewer = watch(shareCode);
    await viewer.next();
    // The machine's own stalls are not the server's.
    const stalls = monitorEventLoopDelay();
    stalls.enable();
    await shares.revokeShare({ shareCode });
    const revoked = performance.now();
    const rest = await viewer.rest();
    stalls.disable();
    expect(performance.now() - revoked).toBeLessThan(1000 + stalls.max / 1e6);
    expect(rest.at(-1)).toMatchObject({ kind: TrackKind.FINAL, message: "The share was revoked" });
    await expectReason(guest.trackShare({ shareCode }), "SHARE_NOT_FOUND");
    await expectReason(shares.revokeShare({ shareCode }), "SHARE_NOT_FOUND");
  });

  it("lets in as many viewers as it allows, lists their sessions, and ends one of them", async () => {
    const { shareCode } = await newShare({ maxViewers: 2 });
    const viewers = [watch(shareCode), watch(shareCode)];
    for (const viewer of viewers) await viewer.next();
    await expectReason(guest.trackShare({ shareCode }), "SHARE_VIEWER_LIMIT");
    expect((await shares.getShare({ shareCode })).share).toMatchObject({
      viewerCount: 2,
      totalViewerCount: 2,
    });
    const { sessions } = await shares.listShareSessions({ shareCode });
    expect(sessions.map(({ remoteAddress, endedAt }) => [remoteAddress, endedAt])).toEqual(
      Array(2).fill(["127.0.0.1", undefined]),
    );
    expect(sessions[0]?.userAgent).not.toBe("");

    const sessionId = sessions[1]?.sessionId ?? "";
    await shares.revokeShareSession({ shareCode, sessionId });
    // Sessions of the same millisecond are in no particular order.
    const gone = await Promise.race(viewers.map((viewer) => viewer.rest().then(() => viewer)));
    const other = viewers.find((viewer) => viewer !== gone);
    await expect
      .poll(async () => (await shares.listShareSessions({ shareCode })).sessions[1]?.endedAt, {
        timeout: 90_000,
      })
      .toBeDefined();
    await expectReason(shares.revokeShareSession({ shareCode, sessionId }), "SHARE_NOT_FOUND");
    const next = watch(shareCode);
    expect((await next.next())?.kind).not.toBe(TrackKind.FINAL);
    expect((await other?.next())?.subject).toBe(shareCode);
    await Promise.all([next.stop(), other?.stop()]);
  });

  it("asks for its PIN, and locks after five wrong ones", async () => {
    const share = await newShare({ pin: "4711" });
    const { shareCode } = share;
    expect(share.pinRequired).toBe(true);
    await expectReason(guest.trackShare({ shareCode }), "SHARE_PIN_REQUIRED");
    const viewer = watch(shareCode, "4711");
    expect((await viewer.next())?.subject).toBe(shareCode);
    await viewer.stop();
    for (let wrong = 0; wrong < 5; wrong++) {
      await expectReason(guest.trackShare({ shareCode, pin: "0000" }), "SHARE_PIN_INVALID");
    }
    const locked = await expectReason(guest.trackShare({ shareCode, pin: "4711" }), "SHARE_PIN_LOCKED");
    expect(Number(locked.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds)).toBeGreaterThan(200);
    const track = server.client(TrackService).track({ resourceId: shareCode, pin: "4711" });
    await expectReason(track, "SHARE_PIN_LOCKED");
  });

  it("counts wrong PINs that are tried at the same time", async () => {
    const { shareCode } = await newShare({ pin: "123456" });
    const guesses = await Promise.allSettled(
      Array.from({ length: 12 }, () => reader(guest.trackShare({ shareCode, pin: "999999" })).rest()),
    );
    const texts = guesses.map((each) => (each.status === "rejected" ? String(each.reason) : "let in"));
    expect(texts.filter((text) => text.includes("The PIN is wrong"))).toHaveLength(5);
    expect(texts.filter((text) => text.includes("Too many wrong PINs"))).toHaveLength(7);
  });

  it("lists working shares newest first, page by page", async () => {
    const { secret } = await server.newKey(Role.ADMIN, { tenantId: "lister" });
    const group = await server.newGroup(secret);
    const mine = server.client(ShareService, secret);
    const codes: string[] = [];
    for (let index = 0; index < 3; index++) {
      codes.unshift((await mine.createShare({ deviceGroupId: group, timeout: 1 })).share?.shareCode ?? "");
    }
    const first = await mine.listShares({ limit: 2 });
    const second = await mine.listShares({ limit: 2, pageToken: first.nextPageToken });
    expect([...first.shares, ...second.shares].map(({ shareCode }) => shareCode).sort()).toEqual(
      [...codes].sort(),
    );
    expect([first.count, second.count, second.nextPageToken]).toEqual([2, 1, ""]);
  });
});
