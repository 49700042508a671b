import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestServer, type TestServer } from "../support/gateway.ts";
import { lanes } from "../support/lanes.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.stop());

it.each(["gRPC", "gRPC-Web", "Connect JSON"] as const)(
  "health checks over %s tell a service that is not there from one that fails",
  async (lane) => {
    const check = (name: string) =>
      lanes[lane](server, {
        method: "grpc.health.v1.Health/Check",
        rest: { verb: "", path: "" },
        body: { service: name },
        headers: {},
      });
    expect((await check("portolan.jobs.v1.JobService")).code).toBe("OK");
    expect(await check("portolan.nothing.v1.Service")).toMatchObject({ code: "NOT_FOUND", reason: "" });
  },
);
