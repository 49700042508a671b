import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { onEachEngine } from "#test/support/databases.ts";
import { createPages } from "./pages.ts";
import { createProbes, databaseCheck } from "./probes.ts";

let close: (() => void) | undefined;
afterEach(() => close?.());

/** Serves probes and asks them. */
async function serve(checks: Parameters<typeof createProbes>[0]) {
  const pages = createPages(createProbes(checks));
  const listener: RequestListener = (request, response) => pages.at(request.url ?? "")?.(request, response);
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  close = () => server.close();
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return async (path: string, method = "GET") => {
    const answer = await fetch(url + path, { method });
    const text = await answer.text();
    return { status: answer.status, headers: answer.headers, text, json: text && JSON.parse(text) };
  };
}

describe("readiness", () => {
  it("is given while everything is ok, and tells what is not", async () => {
    let state = "starting";
    const ask = await serve({ server: () => state, database: () => "ok" });
    expect(await ask("/readyz")).toMatchObject({
      status: 503,
      json: { status: "unavailable", checks: { server: "starting", database: "ok" } },
    });
    state = "ok";
    expect(await ask("/readyz")).toMatchObject({
      status: 200,
      json: { status: "ok", checks: { server: "ok", database: "ok" } },
    });
    state = "draining";
    expect((await ask("/readyz")).json.checks.server).toBe("draining");
  });

  it("does not touch liveness", async () => {
    const ask = await serve({ server: () => "draining" });
    expect(await ask("/healthz")).toMatchObject({ status: 200, json: { status: "ok" } });
  });

  it("is asked by GET and HEAD alone, and never kept", async () => {
    const ask = await serve({ server: () => "draining" });
    expect(await ask("/readyz", "HEAD")).toMatchObject({ status: 503, text: "" });
    const { status, headers } = await ask("/readyz", "POST");
    expect([status, headers.get("allow")]).toEqual([405, "GET, HEAD, OPTIONS"]);
    expect((await ask("/readyz")).headers.get("cache-control")).toBe("no-store");
  });
});

onEachEngine((database) => {
  it("says whether the database answers", async () => {
    const handle = database().open();
    expect(await databaseCheck(handle)()).toBe("ok");
    const check = databaseCheck(handle);
    await handle.close();
    expect(await check()).toBe("unreachable");
  });
});
