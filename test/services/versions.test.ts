import { afterAll, beforeAll, expect, it } from "vitest";
import { VersionService } from "#gen/portolan/meta/v1/version_service_pb.js";
import { Surface } from "#gen/portolan/options/v1/surface_pb.js";
import { VersionStatus } from "#gen/portolan/options/v1/version_pb.js";
import { onEachEngine } from "#test/support/databases.ts";
import { startTestServer, type TestServer } from "#test/support/server.ts";

const v3 = "application/vnd.idi-fly.api-v3+json";

onEachEngine((database) => {
  let server: TestServer;
  const get = (path: string, headers: Record<string, string>) => server.rest("GET", path, { headers });

  beforeAll(async () => {
    server = await startTestServer(database());
  });
  afterAll(() => server.stop());

  it("shows the support matrix to anybody, over REST and RPC", async () => {
    const { status, json } = await server.rest("GET", "/api/versions", { apiKey: "" });
    expect(status).toBe(200);
    const platform = json.surfaces.find((each: { surface: string }) => each.surface === "platform");
    expect(platform).toMatchObject({
      defaultVersion: "v2",
      versions: [
        { version: "v1", served: true, status: "deprecated", supportLevel: "security_fixes_only" },
        { version: "v2", served: true, status: "stable", features: ["agents", "knowledge", "twins"] },
        { version: "v3", served: false, status: "beta", features: ["enhanced_agents", "ml_pipelines"] },
      ],
    });
    expect(platform.versions[0].sunsetAt).toBe("2024-12-31T23:59:59Z");
    const { surfaces, deprecations } = await server.client(VersionService).listVersions({});
    const fleet = surfaces.find(({ surface }) => surface === Surface.FLEET);
    expect(fleet?.versions).toMatchObject([{ version: "v3", path: "/v3", mediaType: v3 }]);
    expect(fleet?.versions[0]?.status).toBe(VersionStatus.STABLE);
    expect(deprecations).toEqual([]);
  });

  it("answers in the vendor media type that was asked for, success or error", async () => {
    for (const path of ["/v3/jobs", "/v3/jobs/none", "/jobs"]) {
      const { headers } = await get(path, { accept: `text/csv;q=0, ${v3}, application/json;q=0.5` });
      expect([headers.get("content-type"), headers.get("api-version")]).toEqual([v3, "v3"]);
    }
    const plain = await get("/v3/jobs", { accept: `${v3};q=0.5, application/json` });
    expect([plain.headers.get("content-type"), plain.headers.get("api-version")]).toEqual([
      "application/json",
      "v3",
    ]);
  });

  it("takes a vendor media type on a body, and refuses that of another version", async () => {
    const post = (type: string) =>
      server.rest("POST", "/v3/resources", { headers: { "content-type": type }, body: { name: "Dock" } });
    expect((await post(v3)).status).toBe(201);
    expect((await post("application/vnd.idi-fly.api-v2+json")).status).toBe(415);
  });

  it("refuses a version that there is not as the fleet's document says", async () => {
    const accept = "application/vnd.idi-fly.api-v9+json";
    const { status, json } = await get("/v3/jobs", { accept });
    expect(status).toBe(415);
    expect(json).toMatchObject({ error: "UnsupportedMediaType", supportedVersions: [v3], code: 415 });
    expect(json.details.reason).toBe("UNSUPPORTED_VERSION");
    expect((await get("/v3/jobs", { accept: `${accept}, */*;q=0.1` })).status).toBe(200);
    const integration = await get("/api/v1/api-keys", { "api-version": "v2" });
    expect([integration.status, integration.json]).toMatchObject([
      415,
      { code: "UNSUPPORTED_VERSION", supportedVersions: ["v1"] },
    ]);
  });

  it("passes over media types that are not its own", async () => {
    for (const accept of ["application/vnd.github.v9+json", "text/event-stream", "nonsense"]) {
      expect((await get("/v3/jobs", { accept })).status).toBe(200);
    }
  });
});
