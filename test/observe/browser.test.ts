import { createClient } from "@connectrpc/connect";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { browserMissing, chromiumPath, servePage } from "../support/browser.ts";
import { adminKey, startTestServer, type TestServer } from "../support/gateway.ts";

/** What a page tells of a call. */
interface Told {
  readonly ok?: unknown;
  readonly error?: string;
  readonly reason?: string;
  readonly requestId?: string | null;
}

/** Calls by the generated client, unary, failing and streaming; runs in the page. */
async function callByClient([url, key, protocol]: readonly string[]): Promise<Record<string, Told>> {
  // biome-ignore lint/suspicious/noExplicitAny: modules of the page have no types here
  const { load } = globalThis as unknown as { load(name: string): Promise<any> };
  const { createClient, ConnectError } = await load("@connectrpc/connect");
  const web = await load("@connectrpc/connect-web");
  const { ResourceService } = await load("/gen/portolan/streams/v1/resource_service_pb.js");
  const { ErrorInfoSchema } = await load("/gen/google/rpc/error_details_pb.js");
  const make = protocol === "grpc-web" ? web.createGrpcWebTransport : web.createConnectTransport;
  const client = createClient(
    ResourceService,
    make({ baseUrl: url, useBinaryFormat: protocol === "grpc-web" }),
  );
  const headers = { "x-api-key": key };
  const tell = async (work: () => Promise<unknown>): Promise<Told> => {
    let requestId: string | null = null;
    try {
      return { ok: await work(), requestId };
    } catch (thrown) {
      const error = ConnectError.from(thrown);
      requestId = error.metadata.get("x-request-id");
      return { error: String(error), reason: error.findDetails(ErrorInfoSchema)[0]?.reason, requestId };
    }
  };
  return {
    unary: await tell(
      async () => (await client.getResource({ deviceGroupId: "dock" }, { headers })).resource.name,
    ),
    failing: await tell(() => client.getResource({ deviceGroupId: "none" }, { headers })),
    stream: await tell(async () => {
      const kinds = [];
      for await (const { kind } of client.trackResource({ deviceGroupId: "dock" }, { headers })) {
        kinds.push(kind);
        if (kinds.length === 2) break;
      }
      return kinds.length;
    }),
  };
}

/** Calls over REST by fetch and EventSource; runs in the page. */
async function callByFetch([url, key = ""]: readonly string[]): Promise<Record<string, Told>> {
  const ask = async (path: string, init: RequestInit): Promise<Told> => {
    try {
      const answer = await fetch(url + path, init);
      const body = (await answer.json()) as { error?: string };
      return {
        ...(answer.ok
          ? { ok: answer.status }
          : { error: String(answer.status), ...(body.error && { reason: body.error }) }),
        requestId: answer.headers.get("x-request-id"),
      };
    } catch (error) {
      return { error: String(error) };
    }
  };
  const headers = {
    "x-api-key": key,
    "content-type": "application/json",
    "idempotency-key": crypto.randomUUID(),
  };
  const body = JSON.stringify({ deviceGroupId: "dock-2", name: "Second" });
  return {
    read: await ask("/v3/resources/dock", { headers }),
    write: await ask("/v3/resources", { method: "POST", headers, body }),
    remove: await ask("/v3/resources/dock-2", { method: "DELETE", headers }),
    failing: await ask("/v3/resources/none", { headers }),
    events: await new Promise<Told>((resolve) => {
      const source = new EventSource(`${url}/v3/devices/dock/status/ws?access_token=${key}`);
      let messages = 0;
      const end = (told: Told) => {
        source.close();
        resolve(told);
      };
      source.onmessage = () => {
        messages += 1;
        if (messages === 2) end({ ok: messages });
      };
      source.onerror = () => end({ error: "refused" });
    }),
  };
}

describe.skipIf(browserMissing)(
  browserMissing ? `in a browser (skipped: ${browserMissing})` : "in a browser",
  () => {
    let site: Awaited<ReturnType<typeof servePage>>;
    let browser: Browser;
    let page: Page;
    let server: TestServer;

    /** Starts a server and opens the page. */
    async function open(env: Record<string, string>) {
      server = await startTestServer(env);
      await createClient(ResourceService, server.grpc()).registerResource({
        deviceGroupId: "dock",
        name: "Dock",
      });
      page = await browser.newPage();
      await page.goto(site.origin);
    }
    async function close() {
      expect(await page.context().cookies()).toEqual([]);
      await page.close();
      await server.stop();
    }

    beforeAll(async () => {
      site = await servePage();
      browser = await chromium.launch({
        executablePath: chromiumPath,
        args: ["--no-sandbox"],
        headless: true,
      });
    });
    afterAll(async () => {
      await browser.close();
      site.stop();
    });

    describe("a page of a configured origin", () => {
      beforeAll(() => open({ PORTOLAN_CORS_ORIGINS: site.origin }));
      afterAll(close);

      it.each(["grpc-web", "connect"])("calls by %s: unary, failing and streaming", async (protocol) => {
        const told = await page.evaluate(callByClient, [server.url, adminKey, protocol]);
        expect(told.unary).toMatchObject({ ok: "Dock" });
        expect(told.failing).toMatchObject({
          reason: "DEVICE_GROUP_NOT_FOUND",
          requestId: expect.stringMatching(/./),
        });
        expect(told.stream).toMatchObject({ ok: 2 });
      });

      it("calls by fetch and EventSource", async () => {
        const told = await page.evaluate(callByFetch, [server.url, adminKey]);
        expect(told.read).toMatchObject({ ok: 200, requestId: expect.stringMatching(/./) });
        expect(told.write?.error).toBeUndefined();
        expect(told.remove?.error).toBeUndefined();
        expect(told.failing).toMatchObject({ error: "404", requestId: expect.stringMatching(/./) });
        expect(told.events).toEqual({ ok: 2 });
      });
    });

    describe.each([
      ["no origin is configured", {}],
      ["another origin is configured", { PORTOLAN_CORS_ORIGINS: "https://app.example.com" }],
    ])("when %s", (_, env) => {
      beforeAll(() => open(env));
      afterAll(close);

      it.each(["grpc-web", "connect"])("a page is refused by %s", async (protocol) => {
        const told = await page.evaluate(callByClient, [server.url, adminKey, protocol]);
        for (const { error, reason } of Object.values(told)) {
          expect(error).toContain("Failed to fetch");
          expect(reason).toBeUndefined();
        }
      });

      it("a page is refused by fetch and EventSource", async () => {
        const told = await page.evaluate(callByFetch, [server.url, adminKey]);
        for (const { error } of Object.values(told)) expect(error).toMatch(/Failed to fetch|refused/);
      });
    });
  },
);
