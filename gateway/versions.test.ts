import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { DescMethod, Message } from "@bufbuild/protobuf";
import { type CallOptions, Code, ConnectError, createContextValues } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import pino from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fail } from "#kernel/errors.ts";
import { readPlans } from "#kernel/plans.ts";
import { createStanding } from "#kernel/standing.ts";
import { createConnectLane } from "./connect/lane.ts";
import { createAdmission } from "./gate/admission/index.ts";
import { createGate } from "./gate/gate.ts";
import { type Listener, listen } from "./listener.ts";
import { createObserver } from "./observe/observer.ts";
import { Tallies } from "./observe/tally.ts";
import { createTranscoder } from "./rest/index.ts";
import { compile, serviceOf } from "./rest/testdata/contract.ts";
import { dialectOf, dialectOfPath, transcodingError } from "./surfaces.ts";
import { versionSelection } from "./versions.ts";

const options = ["policy", "surface", "version"].map((name) => `portolan/options/v1/${name}.proto`);
const root = join(import.meta.dirname, "..");
const registry = compile({
  ...Object.fromEntries(options.map((path) => [path, readFileSync(join(root, "proto", path), "utf8")])),
  "harbours.proto": readFileSync(join(import.meta.dirname, "testdata/harbours.proto"), "utf8"),
});
const service = serviceOf(registry, "harbours.v1.Harbours");

let listener: Listener;
let failing = false;

beforeAll(async () => {
  const answer = async ({ id }: { id: string }) => {
    if (failing) throw fail("JOB_NOT_FOUND");
    return { id };
  };
  const handlers = {
    open: answer,
    count: answer,
    close: answer,
    async *watch(request: { id: string }) {
      yield await answer(request);
    },
  };
  const log = pino({ level: "silent" });
  const authenticator = { authenticate: async () => undefined };
  const observer = createObserver(new Tallies(), []);
  const load = { enter() {}, leave() {}, overloaded: () => false };
  const admission = createAdmission({ plans: readPlans(), load, nowMs: Date.now });
  const gate = createGate({
    database: undefined as never,
    log,
    observer,
    authenticator,
    admission,
    standing: createStanding(),
    usage: { count() {} },
  });
  const endpoints = gate.bind({ service, handlers });
  const contextValues = createContextValues;
  const connect = createConnectLane({
    endpoints,
    ungated: [],
    contextValues,
    observer,
    stray: async () => ({ headers: new Headers() }),
    log,
  });
  const rest = createTranscoder({
    endpoints,
    dialect: dialectOf,
    unmatchedDialect: dialectOfPath,
    error: transcodingError,
    ...versionSelection,
  });
  listener = await listen({
    host: "127.0.0.1",
    port: 0,
    async handler(request, response) {
      if (connect(request, response)) return;
      if (!(await rest.handle(request, response))) rest.notFound(request, response);
    },
  });
});
afterAll(() => listener.drain(0));

async function ask(method: string, path: string, headers: Record<string, string> = {}) {
  const answer = await fetch(listener.url + path, {
    method,
    headers: { "content-type": "application/json", ...headers },
    ...(method === "POST" && { body: "{}" }),
  });
  return { status: answer.status, headers: answer.headers, json: JSON.parse(await answer.text()) };
}

const notices = (headers: Headers) =>
  ["deprecation", "sunset", "link", "warning"].map((name) => headers.get(name));

describe("the version of a request", () => {
  it.each<[string, string, Record<string, string>, string]>([
    ["the URL", "/v1/harbours/7", {}, "v1"],
    ["the URL and a header that agree", "/v1/harbours/7", { "api-version": "v1" }, "v1"],
    ["the header by number", "/v1/harbours/7", { "api-version": " 1 " }, "v1"],
    ["the header alone", "/harbours/7/close", { "api-version": "v2" }, "v2"],
    ["the header alone, for what is unchanged since v1", "/harbours/7", { "api-version": "v2" }, "v2"],
    ["an empty header", "/v2/harbours/7/close", { "api-version": "" }, "v2"],
  ])("is that of %s", async (_, path, headers, version) => {
    const answer = await ask("GET", path, headers);
    expect([answer.status, answer.headers.get("api-version"), answer.json.data]).toEqual([
      200,
      version,
      { id: "7" },
    ]);
    expect(answer.headers.get("vary")).toMatch(/API-Version/i);
  });

  it.each([
    ["/v1/harbours/7", "v9"],
    ["/v1/harbours/7", "v3"],
    ["/v2/harbours/7/close", "banana"],
    ["/harbours/7", "v9"],
  ])("of %s cannot be %s", async (path, version) => {
    const { status, json, headers } = await ask("GET", path, { "api-version": version });
    expect([status, headers.get("api-version")]).toEqual([415, null]);
    expect(json.error).toMatchObject({ code: "UNSUPPORTED_VERSION", supported_versions: ["v2", "v1"] });
    expect(json.error.message).toContain(version);
  });

  it("must be one", async () => {
    const { status, json } = await ask("GET", "/v1/harbours/7", { "api-version": "v2" });
    expect([status, json.error.code]).toEqual([400, "VERSION_CONFLICT"]);
    expect(json.error.message).toBe("the URL asks for version v1, API-Version for v2");
  });

  it("finds no path that it does not have", async () => {
    expect((await ask("GET", "/harbours/7")).status).toBe(404);
    expect((await ask("GET", "/harbours/7/close", { "api-version": "v1" })).status).toBe(404);
    expect((await ask("GET", "/nothing", { "api-version": "v2" })).status).toBe(404);
  });
});

describe("what is deprecated", () => {
  const binding = [
    "@1769817600",
    "Sun, 31 Jan 2027 23:59:59 GMT",
    '</v2/harbours/a%2Fb/open>; rel="successor-version"',
    '299 - "name the \\"harbour\\" first"',
  ];
  const method = ["@1769817600", null, null, '299 - "harbours stay open"'];
  const version = [
    "@1719705600",
    "Tue, 31 Dec 2024 23:59:59 GMT",
    '</api/versions>; rel="deprecation"',
    '299 - "version v1 is deprecated and may stop working after 2024-12-31"',
  ];
  const nothing = [null, null, null, null];

  it.each([
    ["a binding", "POST", "/v1/harbours/open/a%2Fb", binding],
    ["another binding of the same RPC", "POST", "/v2/harbours/a%2Fb/open", nothing],
    ["a version", "GET", "/v1/harbours/7", version],
    ["an RPC", "GET", "/v2/harbours/7/close", method],
  ])("tells so over REST for %s, in success and error", async (_, verb, path, expected) => {
    for (const fails of [false, true]) {
      failing = fails;
      const { status, headers } = await ask(verb, path);
      expect([status, ...notices(headers)]).toEqual([fails ? 404 : 200, ...expected]);
    }
    failing = false;
    // Also before a handler is asked.
    expect(notices((await ask(verb, `${path}?colour=red`)).headers)).toEqual(expected);
  });

  const transports = {
    grpc: createGrpcTransport,
    "grpc-web": (o: { baseUrl: string }) => createGrpcWebTransport({ ...o, httpVersion: "2" }),
    connect: (o: { baseUrl: string }) => createConnectTransport({ ...o, httpVersion: "1.1" }),
  };
  it.each(Object.keys(transports) as (keyof typeof transports)[])("tells so over %s", async (name) => {
    const transport = transports[name]({ baseUrl: listener.url });
    const unary = async (called: DescMethod) => {
      let seen: Headers | undefined;
      const onHeader: CallOptions["onHeader"] = (header) => {
        seen = header;
      };
      try {
        const answer = await transport.unary(called as never, undefined, undefined, undefined, {
          id: "7",
        } as never);
        onHeader?.(answer.header);
      } catch (error) {
        expect(ConnectError.from(error).code).toBe(Code.NotFound);
        seen = ConnectError.from(error).metadata;
      }
      return notices(seen as Headers);
    };
    for (const fails of [false, true]) {
      failing = fails;
      expect(await unary(service.method.close as DescMethod)).toEqual(method);
      expect(await unary(service.method.open as DescMethod)).toEqual(nothing);
    }
    failing = false;
    const input = (async function* () {
      yield { id: "7" } as unknown as Message;
    })();
    const stream = await transport.stream(
      service.method.watch as never,
      undefined,
      undefined,
      undefined,
      input as never,
    );
    expect(stream.header.get("warning")).toBe('299 - "look out of the window"');
    for await (const _ of stream.message);
  });
});
