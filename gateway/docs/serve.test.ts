import http from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestServer, type TestServer } from "#test/support/gateway.ts";

let server: TestServer;

beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.stop());

interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Asks with exactly these headers, the Host included. */
function ask(path: string, headers: http.OutgoingHttpHeaders = {}, method = "GET"): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = { port: server.port, host: "127.0.0.1", path, method, headers, agent: false };
    const request = http.request(options, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
      );
    });
    request.on("error", reject);
    request.end();
  });
}

const json = ({ body }: Answer) => JSON.parse(body.toString());

describe("documents", () => {
  it.each([
    ["/openapi.json", "openapi", "3.1.0"],
    ["/api/v1/openapi", "openapi", "3.1.0"],
    ["/openapi/fleet.json", "openapi", "3.1.0"],
    ["/openapi/oauth.json", "openapi", "3.1.0"],
    ["/openapi/integration.json", "openapi", "3.1.0"],
    ["/asyncapi.json", "asyncapi", "3.0.0"],
  ])("are at %s", async (path, key, version) => {
    const answer = await ask(path);
    expect([answer.status, answer.headers["content-type"]]).toEqual([200, "application/json"]);
    expect(json(answer)[key]).toBe(version);
  });

  it("tell the origin that they were asked at", async () => {
    const at = { host: "api.example.com:8443" };
    expect(json(await ask("/openapi.json", at)).servers).toEqual([{ url: "http://api.example.com:8443" }]);
    const secure = { ...at, "x-forwarded-proto": "https" };
    expect(json(await ask("/openapi.json", secure)).servers).toEqual([
      { url: "https://api.example.com:8443" },
    ]);
    expect(json(await ask("/asyncapi.json", secure)).servers.http).toMatchObject({
      host: "api.example.com:8443",
      protocol: "https",
    });
    expect(json(await ask("/postman.json", at)).variable[0].value).toBe("http://api.example.com:8443");
  });

  it("do not repeat a Host header that is no host", async () => {
    const { servers } = json(await ask("/openapi.json", { host: `x"><script>` }));
    expect(servers).toEqual([{ url: "http://127.0.0.1:8080" }]);
  });

  it("are not sent again to those who have them", async () => {
    const { etag = "" } = (await ask("/openapi.json")).headers;
    const again = await ask("/openapi.json", { "if-none-match": `"other", ${etag}` });
    expect([again.status, again.body.length]).toEqual([304, 0]);
    expect((await ask("/openapi.json", { host: "elsewhere", "if-none-match": etag })).status).toBe(200);
  });

  it("are compressed for those who can take it", async () => {
    const plain = await ask("/openapi.json");
    const packed = await ask("/openapi.json", { "accept-encoding": "br, gzip" });
    expect(packed.headers["content-encoding"]).toBe("gzip");
    expect(packed.body.length).toBeLessThan(plain.body.length / 4);
    expect((await ask("/openapi.json", { "accept-encoding": "gzip;q=0" })).headers).not.toHaveProperty(
      "content-encoding",
    );
  });

  it("answer HEAD without a body and refuse other methods", async () => {
    const head = await ask("/openapi.json", {}, "HEAD");
    expect([head.status, head.body.length]).toEqual([200, 0]);
    expect(Number(head.headers["content-length"])).toBeGreaterThan(1000);
    const post = await ask("/openapi.json", {}, "POST");
    expect([post.status, post.headers.allow]).toEqual([405, "GET, HEAD"]);
  });
});

describe("the explorer", () => {
  it("is a page with files of its own, under a policy that allows nothing else", async () => {
    for (const path of ["/docs", "/docs/"]) {
      const { status, headers } = await ask(path);
      expect([status, headers["content-type"]]).toEqual([200, "text/html; charset=utf-8"]);
      expect(headers["content-security-policy"]).toContain("script-src 'self'");
      expect(headers["content-security-policy"]).not.toContain("unsafe");
    }
    expect((await ask("/docs/swagger-ui-bundle.js")).status).toBe(200);
  });

  it.each([
    "/docs/package.json",
    "/docs/index.js",
    "/docs/../package.json",
    "/docs/%2e%2e/package.json",
    "/docs/constructor",
    "/openapi/portolan.json",
    "/openapi/../asyncapi.json",
  ])("has nothing at %s", async (path) => {
    expect((await ask(path)).status).toBe(404);
  });

  describe("with a key to offer", () => {
    const offered = async (headers: http.OutgoingHttpHeaders = {}) =>
      json(await ask("/docs/settings.json", headers)).apiKey;

    it("has none until it is given one", async () => {
      expect(await offered()).toBeUndefined();
      server.documents.offerKey({ apiKey: "sk_offered", tenantId: "sandbox.explorer" });
      expect(await offered()).toBe("sk_offered");
    });

    it("tells it to a page at any name of this machine", async () => {
      expect(await offered({ host: `localhost:${server.port}` })).toBe("sk_offered");
      expect(await offered({ host: `[::1]:${server.port}`, "sec-fetch-site": "same-origin" })).toBe(
        "sk_offered",
      );
    });

    it.each([
      ["at another name", { host: "portolan.example.com" }],
      ["at a name that begins like this machine's", { host: "127.0.0.1.example.com" }],
      ["through a proxy", { "x-forwarded-for": "203.0.113.9" }],
      ["through a proxy by the standard", { forwarded: "for=203.0.113.9" }],
      ["from a page of another origin", { origin: "https://evil.example" }],
      ["from another site", { "sec-fetch-site": "cross-site" }],
    ])("does not tell it %s", async (_, headers) => {
      expect(await offered(headers)).toBeUndefined();
    });

    it("lets nobody keep it", async () => {
      expect((await ask("/docs/settings.json")).headers["cache-control"]).toBe("no-store");
    });
  });
});
