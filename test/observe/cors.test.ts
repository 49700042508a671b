import { readFileSync } from "node:fs";
import http2 from "node:http2";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readConfig } from "#kernel/config.ts";
import { adminKey, root, startTestServer, type TestServer } from "../support/gateway.ts";
import { exchange, frame } from "../support/lanes.ts";

const service = "portolan.jobs.v1.JobService";
const origin = "https://app.example.com";
const stranger = "https://evil.example.com";
const admin = { "x-api-key": adminKey };
const json = { "content-type": "application/json" };

/** What a page may ask, and what a browser then sends. */
const requests = {
  "gRPC-Web": {
    path: `/${service}/GetJob`,
    headers: { "content-type": "application/grpc-web+json", "x-grpc-web": "1" },
    body: frame('{"jobId":"job-none"}'),
  },
  Connect: { path: `/${service}/GetJob`, headers: json, body: '{"jobId":"job-none"}' },
  REST: { path: "/v3/streams/share", headers: json, body: "{}" },
} as const;

const listOf = (header: string | string[] | undefined) => String(header ?? "").split(", ");

describe("with an origin configured", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({ PORTOLAN_CORS_ORIGINS: `${origin}, http://localhost:3000` });
  });
  afterAll(() => server.stop());

  const preflight = (path: string, from: string, method = "POST", headers = "x-api-key,content-type") =>
    exchange(server, "OPTIONS", path, {
      origin: from,
      "access-control-request-method": method,
      "access-control-request-headers": headers,
    });

  describe.each(Object.entries(requests))("%s", (_, { path, headers, body }) => {
    it("a preflight of its page is granted", async () => {
      const answer = await preflight(path, origin, "POST", Object.keys({ ...headers, ...admin }).join(","));
      expect(answer.status).toBe(204);
      expect(answer.headers["access-control-allow-origin"]).toBe(origin);
      expect(listOf(answer.headers["access-control-allow-methods"])).toContain("POST");
      expect(listOf(answer.headers["access-control-allow-headers"])).toEqual(
        expect.arrayContaining(Object.keys({ ...headers, ...admin })),
      );
      expect(Number(answer.headers["access-control-max-age"])).toBeGreaterThan(0);
      expect(answer.headers.vary).toContain("Origin");
      expect(answer.headers["access-control-allow-credentials"]).toBeUndefined();
    });

    it("a preflight of another page is not", async () => {
      const answer = await preflight(path, stranger);
      expect(answer.status).toBe(204);
      expect(Object.keys(answer.headers).filter((name) => name.startsWith("access-control"))).toEqual([]);
      expect(answer.headers.vary).toContain("Origin");
    });

    it("the answer, an error too, may be read by its page and by no other", async () => {
      for (const credentials of [admin, {}]) {
        const ours = await exchange(server, "POST", path, { ...headers, ...credentials, origin }, body);
        expect(ours.headers["access-control-allow-origin"]).toBe(origin);
        expect(listOf(ours.headers["access-control-expose-headers"])).toEqual(
          expect.arrayContaining(["grpc-status", "x-request-id", "retry-after", "etag"]),
        );
        const theirs = await exchange(
          server,
          "POST",
          path,
          { ...headers, ...credentials, origin: stranger },
          body,
        );
        expect(theirs.headers["access-control-allow-origin"]).toBeUndefined();
        for (const { headers: sent } of [ours, theirs]) expect(listOf(sent.vary)).toContain("Origin");
      }
    });
  });

  it.each([
    ["/v3/jobs", ["GET", "HEAD", "OPTIONS"]],
    ["/v3/jobs/job-1", ["DELETE", "GET"]],
    [`/${service}/GetJob`, ["GET", "OPTIONS", "POST"]],
    [`/${service}/CreateJob`, ["OPTIONS", "POST"]],
    ["/readyz", ["GET", "HEAD", "OPTIONS"]],
  ])("a preflight of %s tells the methods that it has", async (path, methods) => {
    const { status, headers } = await preflight(path, origin, "GET");
    expect(status).toBe(204);
    expect(listOf(headers["access-control-allow-methods"])).toEqual(expect.arrayContaining(methods));
    expect(headers.allow).toBe(headers["access-control-allow-methods"]);
    if (path.endsWith("Job")) expect(listOf(headers.allow)).toEqual(methods);
  });

  it("OPTIONS of a known path tells its methods without a page, too", async () => {
    const { status, headers } = await exchange(server, "OPTIONS", `/${service}/GetJob`, {});
    expect([status, headers.allow]).toEqual([204, "GET, OPTIONS, POST"]);
    expect(headers["access-control-allow-methods"]).toBeUndefined();
  });

  it("a preflight of a path that is not there fails", async () => {
    expect((await preflight("/v3/nothing", origin)).status).toBe(404);
  });

  it("a body that does not decode and a path that is not there may be read as errors", async () => {
    const broken = await exchange(server, "POST", `/${service}/GetJob`, { ...json, ...admin, origin }, "{");
    expect([broken.status, broken.headers["access-control-allow-origin"]]).toEqual([400, origin]);
    const missing = await exchange(server, "GET", "/v3/nothing", { origin });
    expect([missing.status, missing.headers["access-control-allow-origin"]]).toEqual([404, origin]);
  });

  it("holds over HTTP/2, for streams too", async () => {
    const session = http2.connect(server.url);
    const headersOf = (request: http2.OutgoingHttpHeaders) =>
      new Promise<http2.IncomingHttpHeaders>((resolve, reject) => {
        const stream = session.request({ origin, ...admin, ...request });
        stream.on("response", (headers) => {
          resolve(headers);
          stream.close();
        });
        stream.on("error", reject);
        stream.end();
      });
    try {
      const path = "/v3/jobs/job-none/status/ws";
      const answer = await headersOf({ ":path": path, accept: "text/event-stream" });
      expect(answer["access-control-allow-origin"]).toBe(origin);
    } finally {
      session.destroy();
    }
  });

  it("takes every header that the documentation lists, and exposes as many", async () => {
    const document = readFileSync(join(root, "docs/observability.md"), "utf8");
    const { headers } = await preflight("/v3/jobs", origin);
    for (const [row, header] of [
      ["Taken", "access-control-allow-headers"],
      ["Exposed", "access-control-expose-headers"],
    ] as const) {
      const [, cell = ""] = new RegExp(`^\\| ${row} .*?\\| (.*?) *\\|$`, "m").exec(document) ?? [];
      const documented = [...cell.matchAll(/`([\w-]+)`/g)].map(([, name]) => name);
      expect(documented, row).toEqual(listOf(headers[header]));
    }
  });
});

it("with * every page may call, still without credentials of the browser", async () => {
  const server = await startTestServer({ PORTOLAN_CORS_ORIGINS: "*" });
  const { headers } = await exchange(server, "GET", "/v3/jobs", { ...admin, origin: stranger });
  expect(headers["access-control-allow-origin"]).toBe("*");
  expect(headers["access-control-allow-credentials"]).toBeUndefined();
  await server.stop();
});

describe("with nothing configured", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer();
  });
  afterAll(() => server.stop());

  it.each(Object.entries(requests))("no page may call by %s", async (_, { path, headers, body }) => {
    const asked = { origin, "access-control-request-method": "POST" };
    const answers = [
      await exchange(server, "OPTIONS", path, asked),
      await exchange(server, "POST", path, { ...headers, ...admin, origin }, body),
    ];
    for (const answer of answers) {
      expect(Object.keys(answer.headers).filter((name) => name.startsWith("access-control"))).toEqual([]);
    }
  });

  it.each([
    ["a call over REST", "GET", "/v3/jobs", {}, ""],
    ["a refusal over REST", "GET", "/v3/nothing", {}, ""],
    ["a call over Connect", "POST", `/${service}/GetJob`, json, '{"jobId":"job-none"}'],
    [
      "a call over gRPC-Web",
      "POST",
      requests["gRPC-Web"].path,
      requests["gRPC-Web"].headers,
      requests["gRPC-Web"].body,
    ],
    ["a page", "GET", "/readyz", {}, ""],
  ])("%s has the headers of security and never a cookie", async (_, verb, path, headers, body) => {
    const sent = { ...headers, ...admin, cookie: "session=1; x-api-key=2" };
    const { headers: received } = await exchange(server, verb, path, sent, body || undefined);
    expect(received).toMatchObject({
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    });
    expect(received["strict-transport-security"]).toBeUndefined();
    expect(received["set-cookie"]).toBeUndefined();
  });

  it("a cookie is no credential", async () => {
    const cookie = `x-api-key=${adminKey}; authorization=Bearer ${adminKey}; token=${adminKey}`;
    expect((await exchange(server, "GET", "/v3/jobs", { cookie })).status).toBe(401);
  });
});

it.each([
  "app.example.com",
  "https://app.example.com/",
  "*, https://app.example.com",
  "null",
  "https://*.example.com",
  ",",
])("does not start with %s for an origin", (origins) => {
  expect(() => readConfig({ PORTOLAN_CORS_ORIGINS: origins })).toThrow("is not an origin");
});
