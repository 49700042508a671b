import { once } from "node:events";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { afterEach, expect, it, vi } from "vitest";
import { DispatchService } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { type Sandbox, startSandbox } from "./index.ts";

const WAIT = { timeout: 30_000, interval: 20 };

let sandbox: Sandbox | undefined;
afterEach(() => sandbox?.stop());

/** A gRPC server that counts what the fleet sends; `close` cuts every connection. */
async function startFakeServer(port = 0) {
  const registered = new Map<string, string | null>();
  const samples = new Map<string, number>();
  let endedStreams = 0;
  const handler = connectNodeAdapter({
    routes(router) {
      router.service(ResourceService, {
        registerResource({ deviceGroupId }, context) {
          registered.set(deviceGroupId, context.requestHeader.get("x-api-key"));
          return {};
        },
      });
      router.service(JobService, { listJobs: () => ({}) });
      router.service(DispatchService, {
        async *watchDispatches(_, context) {
          yield {};
          await once(context.signal, "abort");
        },
      });
      router.service(TelemetryService, {
        async publishTelemetry(requests) {
          for await (const { deviceGroupId } of requests) {
            samples.set(deviceGroupId, (samples.get(deviceGroupId) ?? 0) + 1);
          }
          endedStreams++;
          return {};
        },
      });
    },
  });
  const sessions = new Set<http2.ServerHttp2Session>();
  const server = http2.createServer(handler).on("session", (session) => sessions.add(session));
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    registered,
    samples,
    endedStreams: () => endedStreams,
    async close() {
      for (const session of sessions) {
        session.destroy();
      }
      server.close();
      await once(server, "close");
    },
  };
}

it("runs a fleet over gRPC that survives the loss of the server and closes its streams", async () => {
  const first = await startFakeServer();
  sandbox = startSandbox({ baseUrl: `http://127.0.0.1:${first.port}`, apiKey: "sk_test", count: 2 });
  const groups = ["sandbox-dock-1", "sandbox-dock-2"];
  expect(sandbox.deviceGroupIds).toEqual(groups);
  await vi.waitFor(() => expect([...first.samples.keys()].sort()).toEqual(groups), WAIT);
  expect(first.registered).toEqual(new Map(groups.map((group) => [group, "sk_test"])));
  await first.close();

  const second = await startFakeServer(first.port);
  await vi.waitFor(() => expect([...second.samples.keys()].sort()).toEqual(groups), WAIT);
  await sandbox.stop();
  expect(second.endedStreams()).toBe(2);
  await second.close();
});
