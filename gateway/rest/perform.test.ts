import { Code, ConnectError, createContextKey, createContextValues } from "@connectrpc/connect";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Operation, Route, RouteAnswer, Transcoder } from "./index.ts";
import { Host } from "./testdata/host.ts";
import { type Served, serve } from "./testdata/server.ts";

const host = new Host();
const USER = createContextKey("nobody");
let transcoder: Transcoder;
let server: Served;
let onRoute: ((route: Route, captures: readonly { field: string; raw: string }[]) => RouteAnswer) | undefined;

beforeAll(async () => {
  transcoder = host.transcoder({
    onRoute: (_, route, captures) => onRoute?.(route, captures),
    otherPaths: (req, path) => (req.headers["x-version"] ? [`/v9${path}`, `/v1${path}`] : []),
  });
  server = await serve(transcoder);
});
afterAll(() => server.close());
afterEach(() => {
  host.respond = undefined;
  onRoute = undefined;
});

describe("an operation without a socket", () => {
  const json = { "content-type": "application/json" };

  test.each<[string, Operation]>([
    ["a read", { method: "GET", path: "/v1/voyages/7?view=2" }],
    [
      "a read of what the client has",
      { method: "GET", path: "/v1/voyages/7", headers: { "if-none-match": "*" } },
    ],
    ["a body", { method: "POST", path: "/v1/voyages", headers: json, body: { displayName: "é", crew: 3 } }],
    ["a HEAD", { method: "HEAD", path: "/v1/voyages/7" }],
    ["a wrong field", { method: "POST", path: "/v1/voyages", headers: json, body: { colour: 1 } }],
    [
      "a wrong type",
      { method: "POST", path: "/v1/voyages", headers: { "content-type": "text/csv" }, body: "a" },
    ],
    ["an unknown parameter", { method: "GET", path: "/v1/voyages/7?colour=red" }],
    ["a path of other methods", { method: "DELETE", path: "/v1/voyages" }],
    ["OPTIONS", { method: "OPTIONS", path: "/v1/voyages" }],
    ["an unknown path", { method: "GET", path: "/nothing" }],
    ["a path that does not decode", { method: "GET", path: "/v1/voyages/%ff" }],
    [
      "a method override",
      { method: "POST", path: "/v1/voyages/7", headers: { "x-http-method-override": "PURGE" } },
    ],
  ])("%s is answered as over one", async (_, operation) => {
    host.respond = async () => ({ id: "7" });
    const { method, path, headers = {}, body } = operation;
    const sent = await server.send(method, path, {
      headers,
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const input = host.input;
    const { status, json, headers: answered } = await transcoder.perform(operation);
    expect([status, json]).toEqual([sent.status, sent.text ? sent.json : undefined]);
    for (const name of ["content-type", "allow", "etag"]) expect(answered[name]).toBe(sent.headers[name]);
    expect(host.input).toEqual(input);
  });

  test("keeps bytes as bytes", async () => {
    const data = Buffer.from([0, 255, 10]).toString("base64");
    host.respond = () => ({ contentType: "image/png", data });
    const { bytes, headers, json } = await transcoder.perform({
      method: "POST",
      path: "/v1/echo",
      body: "x",
    });
    expect([bytes, headers["content-type"], json]).toEqual([
      Buffer.from([0, 255, 10]),
      "image/png",
      undefined,
    ]);
  });

  test("takes the context, the headers and the errors it is given", async () => {
    host.respond = (_, context) => {
      context.responseHeader.set("x-user", context.values.get(USER));
      throw new ConnectError("closed", Code.FailedPrecondition);
    };
    const outcome = await transcoder.perform(
      { method: "GET", path: "/v1/voyages/7" },
      {
        contextValues: createContextValues().set(USER, "ada"),
        responseHeaders: { "x-request-id": "r1" },
      },
    );
    expect([outcome.status, outcome.headers]).toEqual([
      400,
      {
        "x-request-id": "r1",
        "x-user": "ada",
        "cache-control": "no-store",
        "content-type": "application/json",
      },
    ]);
  });

  test("is refused by its method, without a call", async () => {
    host.input = "untouched";
    const refuse = ({ name }: { name: string }) => new ConnectError(`no ${name}`, Code.PermissionDenied);
    const outcome = await transcoder.perform({ method: "GET", path: "/v1/voyages/7" }, { refuse });
    expect([outcome.status, outcome.json, host.input]).toEqual([
      403,
      { code: Code.PermissionDenied, message: "no Get", details: [] },
      "untouched",
    ]);
  });

  test("is not a stream", async () => {
    const { status } = await transcoder.perform({ method: "GET", path: "/v1/ticks?forever=true" });
    expect(status).toBe(501);
  });

  test("ends at its deadline", async () => {
    host.respond = (_, context) =>
      new Promise((_, reject) => {
        context.signal.addEventListener("abort", () => reject(context.signal.reason));
      });
    const { status } = await transcoder.perform({ method: "GET", path: "/v1/voyages/7" }, { timeoutMs: 5 });
    expect(status).toBe(504);
  });

  test("ends with its caller", async () => {
    const caller = new AbortController();
    host.respond = (_, context) =>
      new Promise((_, reject) => {
        context.signal.addEventListener("abort", () => reject(context.signal.reason));
        caller.abort(new ConnectError("gone", Code.Canceled));
      });
    const { signal } = caller;
    const { status } = await transcoder.perform({ method: "GET", path: "/v1/voyages/7" }, { signal });
    expect(status).toBe(499);
  });
});

describe("a host that looks at the binding", () => {
  test("adds headers and a media type to success and error", async () => {
    onRoute = ({ httpMethod, template, method }, captures) => ({
      headers: { "x-route": `${httpMethod} ${template} ${method.name} ${captures[0]?.raw}` },
      vary: ["X-Version"],
      jsonType: "application/vnd.sea+json",
    });
    const good = await server.send("GET", "/v1/voyages/a%2Fb");
    const bad = await server.send("GET", "/v1/voyages/a%2Fb?colour=red");
    for (const { headers } of [good, bad]) {
      expect(headers["x-route"]).toBe("GET /v1/voyages/{id} Get a%2Fb");
      expect([headers.vary, headers["content-type"]]).toEqual(["X-Version", "application/vnd.sea+json"]);
    }
    expect([good.status, bad.status]).toEqual([200, 400]);
  });

  test("refuses before the request is read", async () => {
    onRoute = () => ({
      error: new ConnectError("not today", Code.Unavailable),
      headers: { "x-why": "sunday" },
    });
    const { status, headers } = await server.send("POST", "/v1/voyages", { body: "not JSON" });
    expect([status, headers["x-why"]]).toEqual([503, "sunday"]);
  });

  test("finds a path under another, and leaves those that are there alone", async () => {
    const headers = { "x-version": "1" };
    expect((await server.send("GET", "/voyages/7", { headers })).status).toBe(200);
    expect(host.input).toEqual({ id: "7" });
    expect((await server.send("GET", "/voyages/7")).status).toBe(404);
    expect((await server.send("DELETE", "/voyages", { headers })).headers.allow).toBe(
      "GET, HEAD, OPTIONS, POST",
    );
  });
});
