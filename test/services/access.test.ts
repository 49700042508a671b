import { create, type DescMethod, type DescService, getOption } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.js";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { DispatchService } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Access, policy, Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { TrackService } from "#gen/portolan/streams/v1/track_service_pb.js";
import { allServices } from "#test/support/contract.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason, startTestServer, type TestServer } from "#test/support/server.ts";

const services = await allServices();
const methods = services.flatMap((service) => service.methods);
const roles = [Role.VIEWER, Role.PILOT, Role.MANAGER, Role.ADMIN, Role.DEVICE];

/** Whether a role holds the permission of a method: some policy gives it that permission. */
function holds(role: Role, method: DescMethod): boolean {
  const { permission } = getOption(method, policy);
  const giving = methods
    .map((each) => getOption(each, policy))
    .filter((each) => each.permission === permission);
  return role === Role.ADMIN || giving.some((each) => each.roles.includes(role));
}

onEachEngine((database) => {
  let server: TestServer;
  const secrets = new Map<Role, string>();

  beforeAll(async () => {
    server = await startTestServer(database());
    for (const role of roles) secrets.set(role, (await server.newKey(role)).secret);
  });
  afterAll(() => server.stop());

  /** Calls a method with an id that names nothing, and tells how it ended. */
  async function outcome(method: DescMethod, apiKey?: string): Promise<ConnectError | undefined> {
    const ids = Object.fromEntries(
      method.input.fields
        .filter((field) => /_id$|^id$|^share_code$/.test(field.proto.name) && field.fieldKind === "scalar")
        .map((field) => [field.localName, "none"]),
    );
    const request = { ...create(method.input), ...ids };
    const client = server.client(method.parent, apiKey) as unknown as Record<
      string,
      (input: unknown) => unknown
    >;
    const takesStream = method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming";
    const input = takesStream
      ? (async function* () {
          yield request;
        })()
      : request;
    try {
      const answer = client[method.localName]?.(input);
      if (method.methodKind === "server_streaming")
        for await (const _ of answer as AsyncIterable<unknown>) break;
      else await answer;
      return undefined;
    } catch (error) {
      return ConnectError.from(error);
    }
  }

  describe.each(methods.map((method) => [`${method.parent.name}.${method.name}`, method] as const))(
    "%s",
    (_, method) => {
      const { access, permission } = getOption(method, policy);

      it("has a policy", () => {
        expect(access).not.toBe(Access.UNSPECIFIED);
        expect(permission !== "" || access === Access.PUBLIC).toBe(true);
      });

      it("lets in exactly the roles that hold its permission", async () => {
        for (const role of roles) {
          const error = await outcome(method, secrets.get(role));
          const denied = error?.findDetails(ErrorInfoSchema)[0]?.reason === "INSUFFICIENT_PERMISSIONS";
          expect([Role[role], denied]).toEqual([
            Role[role],
            access !== Access.PUBLIC && !holds(role, method),
          ]);
          if (denied) expect(error?.findDetails(ErrorInfoSchema)[0]?.metadata).toEqual({ permission });
          expect(error?.code).not.toBe(Code.Internal);
        }
      });

      it("lets nobody in without credentials unless it is public", async () => {
        const reason = (await outcome(method))?.findDetails(ErrorInfoSchema)[0]?.reason;
        if (access === Access.PUBLIC) expect(reason).not.toBe("MISSING_CREDENTIALS");
        else expect(reason).toBe("MISSING_CREDENTIALS");
      });
    },
  );

  it("lets a device register and update its group, and not delete it", async () => {
    const resources = server.client(ResourceService, secrets.get(Role.DEVICE));
    const deviceGroupId = "of-a-device";
    await resources.registerResource({ deviceGroupId, name: "Dock" });
    await resources.updateResource({ deviceGroupId, name: "Renamed" });
    const denied = await expectReason(
      resources.deleteResource({ deviceGroupId }),
      "INSUFFICIENT_PERMISSIONS",
    );
    expect(denied.findDetails(ErrorInfoSchema)[0]?.metadata).toEqual({ permission: "resources:delete" });
    await server.client(ResourceService, secrets.get(Role.MANAGER)).deleteResource({ deviceGroupId });
  });

  it("shows an administrator of another tenant nothing and lets it change nothing", async () => {
    const { secret } = await server.newKey(Role.ADMIN, { tenantId: "stranger" });
    const mine = <S extends DescService>(service: S) => server.client(service, server.admin);
    const theirs = <S extends DescService>(service: S) => server.client(service, secret);
    const deviceGroupId = await server.newGroup(undefined, ["drone-of-mine"]);
    // Far in the future, so that nobody but a stranger could change it.
    const scheduledAt = { seconds: 4_000_000_000n };
    const { job } = await mine(JobService).createJob({ name: "mine", deviceGroupId, scheduledAt });
    const { share } = await mine(ShareService).createShare({ deviceGroupId, timeout: 5 });
    const { id } = await server.newKey(Role.VIEWER);
    const [jobId, shareCode] = [job?.jobId ?? "", share?.shareCode ?? ""];
    const sample = { batteryPercent: 1 };

    const [jobs, resources, shares] = [theirs(JobService), theirs(ResourceService), theirs(ShareService)];
    const [devices, telemetry, keys] = [
      theirs(DispatchService),
      theirs(TelemetryService),
      theirs(ApiKeyService),
    ];
    for (const call of [
      () => jobs.getJob({ jobId }),
      () => jobs.updateJob({ jobId, name: "theirs" }),
      () => jobs.cancelJob({ jobId }),
      () => jobs.deleteJob({ jobId }),
      () => jobs.trackJob({ jobId }),
      () => devices.reportJob({ jobId, state: 3 }),
    ]) {
      await expectReason(call(), "JOB_NOT_FOUND");
    }
    for (const call of [
      () => resources.getResource({ deviceGroupId }),
      () => resources.updateResource({ deviceGroupId, name: "theirs" }),
      () => resources.deleteResource({ deviceGroupId }),
      () => resources.trackResource({ deviceGroupId }),
      () => devices.watchDispatches({ deviceGroupId }),
      () => telemetry.publishSample({ deviceGroupId, sample }),
      () => telemetry.listSamples({ deviceGroupId }),
      () => telemetry.replayTrack({ deviceGroupId }),
      () => jobs.createJob({ name: "theirs", deviceGroupId }),
    ]) {
      await expectReason(call(), "DEVICE_GROUP_NOT_FOUND");
    }
    await expectReason(devices.acknowledgeDispatch({ deviceGroupId, dispatchId: "d" }), "DISPATCH_NOT_FOUND");
    for (const resourceId of [jobId, deviceGroupId, "drone-of-mine"]) {
      await expectReason(theirs(TrackService).track({ resourceId }), "SUBJECT_NOT_FOUND");
      await expectReason(shares.createShare({ resourceId, timeout: 5 }), "SUBJECT_NOT_FOUND");
    }
    for (const call of [
      () => shares.getShare({ shareCode }),
      () => shares.revokeShare({ shareCode }),
      () => shares.listShareSessions({ shareCode }),
      () => shares.revokeShareSession({ shareCode, sessionId: "s" }),
    ]) {
      await expectReason(call(), "SHARE_NOT_FOUND");
    }
    await expectReason(keys.revokeApiKey({ id }), "API_KEY_NOT_FOUND");
    await expectReason(keys.getApiKeyUsage({ id }), "API_KEY_NOT_FOUND");
    expect((await jobs.listJobs({})).jobs).toEqual([]);
    expect((await resources.listResources({})).resources).toEqual([]);
    expect((await shares.listShares({})).shares).toEqual([]);
    expect((await keys.listApiKeys({})).apiKeys.every(({ tenantId }) => tenantId === "stranger")).toBe(true);

    expect((await mine(JobService).getJob({ jobId })).job).toMatchObject({ name: "mine", etag: job?.etag });
    expect((await mine(ResourceService).getResource({ deviceGroupId })).resource?.name).toBe("Dock");
    expect((await mine(ShareService).getShare({ shareCode })).share?.shareCode).toBe(shareCode);
    expect((await mine(TelemetryService).listSamples({ deviceGroupId })).count).toBe(0);
  });
});
