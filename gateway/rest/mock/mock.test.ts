import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net, { type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createValidator } from "@bufbuild/protovalidate";
import { createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { exampleOf } from "./examples.ts";
import { type Image, readImage } from "./image.ts";

const root = join(import.meta.dirname, "../../..");
const dir = mkdtempSync(join(tmpdir(), "mock-"));
const voyages = join(dir, "voyages.binpb");
const own = join(dir, "own.binpb");

/** Builds an image of a folder of protos and what they import. */
function build(folder: string, out: string, ...more: string[]): void {
  const modules = [{ path: folder }, { path: ".third-party" }];
  writeFileSync(join(dir, "buf.yaml"), JSON.stringify({ version: "v2", modules }));
  execFileSync(join(root, "node_modules/.bin/buf"), ["build", folder, "-o", out, ...more], { cwd: dir });
}

beforeAll(() => {
  execFileSync("cp", [
    "-r",
    join(root, ".third-party"),
    join(root, "gateway/rest/testdata"),
    join(root, "proto"),
    dir,
  ]);
  build("testdata", voyages);
  build("proto", own);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Runs the program, and gives its output so far and its exit code. */
function run(...args: string[]) {
  const child = spawn(process.execPath, [join(root, "gateway/rest/mock/main.ts"), ...args]);
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
  });
  child.stderr.on("data", (chunk) => {
    err += chunk;
  });
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  return {
    ended,
    out: () => out,
    err: () => err,
    stop: () => child.kill("SIGINT"),
    url: () =>
      new Promise<string>((resolve, reject) => {
        child.stdout.on("data", () => {
          const url = /at (http:\S+)/.exec(out)?.[1];
          if (url) resolve(url);
        });
        void ended.then(() => reject(new Error(`it ended: ${err}`)));
      }),
  };
}

describe("examples", () => {
  let mock: ReturnType<typeof run>;
  let url: string;
  beforeAll(async () => {
    mock = run("--descriptors", voyages, "--port", "0", "--interval", "0", "--messages", "2");
    url = await mock.url();
  });
  afterAll(async () => {
    mock.stop();
    expect(await mock.ended).toBe(0);
  });
  // biome-ignore lint/suspicious/noExplicitAny: tests read what they know
  const json = async (path: string, init?: RequestInit): Promise<any> =>
    (await fetch(url + path, init)).json();

  test("lists the routes at the start", () => {
    const lines = mock
      .out()
      .split("\n")
      .map((line) => line.split(/ +/));
    expect(lines).toContainEqual(["GET", "/v1/voyages/{id}", "voyages.v1.Voyages.Get"]);
    expect(lines).toContainEqual(["GET", "/v1/ticks", "stream", "voyages.v1.Voyages.Watch"]);
  });

  test("are made by name and type, and agree with the request", async () => {
    const voyage = await json("/v1/voyages/abc");
    expect(voyage).toMatchObject({
      id: "abc",
      displayName: "Voyage 1",
      cargo: "CARGO_TYPE_DRY_BULK",
      allowed: ["CARGO_TYPE_DRY_BULK", "CARGO_TYPE_OIL"],
      place: { coordinates: [1, 2] },
      stops: [{}, {}],
      at: "2026-01-31T12:00:00Z",
      lasts: "90s",
      extra: { example: "value" },
      speed: 12,
      fuel: "fuel",
    });
    expect(voyage).not.toHaveProperty("sails");
    // A place near a place near a place: recursion is left out.
    expect(voyage.place).not.toHaveProperty("near");
    expect(await json("/v1/voyages/abc")).toEqual(voyage);
    const changed = await json("/v1/voyages/7", {
      method: "PATCH",
      headers: { "content-type": "application/json" },
      body: '{"displayName":"mine"}',
    });
    expect(changed.voyage).toMatchObject({ id: "7", displayName: "mine" });
    expect((await json("/v1/voyages")).voyages.map((v: { id: string }) => v.id)).toEqual([
      "voyage-1",
      "voyage-2",
    ]);
  });

  test("in streams, told apart", async () => {
    const text = await (await fetch(`${url}/v1/ticks`)).text();
    expect(
      text
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line).sequence),
    ).toEqual(["1", "2"]);
    const events = await fetch(`${url}/v1/ticks`, { headers: { accept: "text/event-stream" } });
    expect(await events.text()).toContain("event: end");
  });

  test("of bytes", async () => {
    const answer = await fetch(`${url}/v1/download`);
    const text = "An example\n".repeat(2);
    expect([answer.headers.get("content-type"), await answer.text()]).toEqual(["text/plain", text]);
  });

  test("refusals and cross-origin requests", async () => {
    expect((await fetch(`${url}/v1/voyages?nothing=1`)).status).toBe(400);
    expect((await fetch(`${url}/nothing`)).status).toBe(404);
    const preflight = await fetch(`${url}/v1/voyages`, {
      method: "OPTIONS",
      headers: { "access-control-request-method": "POST", "access-control-request-headers": "x-a" },
    });
    expect(Object.fromEntries(preflight.headers)).toMatchObject({
      "access-control-allow-origin": "*",
      "access-control-allow-methods": "POST",
      "access-control-allow-headers": "x-a",
    });
  });

  test.each<[string, (baseUrl: string) => Transport]>([
    ["Connect", (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1" })],
    ["gRPC-Web", (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" })],
  ])("over %s, also of methods that REST cannot reach", async (_, transport) => {
    const { services } = await readImage(voyages);
    const service = services.find((s) => s.typeName === "voyages.v1.Voyages") as (typeof services)[0];
    const client = createClient(service, transport(url)) as unknown as {
      unbound(request: object): Promise<{ id: string; displayName: string }>;
      watch(request: object): AsyncIterable<{ sequence: bigint }>;
    };
    expect(await client.unbound({ id: "q" })).toMatchObject({ id: "q", displayName: "Voyage 1" });
    const sequences = [];
    for await (const { sequence } of client.watch({})) sequences.push(sequence);
    expect(sequences).toEqual([1n, 2n]);
  });
});

test("echoes the request that was bound, whatever the response would be", async () => {
  const mock = run("--descriptors", voyages, "--echo", "--port", "0");
  const url = await mock.url();
  const send = async (path: string, init?: RequestInit) => (await fetch(url + path, init)).json();
  const method = (name: string) => `voyages.v1.Voyages.${name}`;
  expect(await send("/v1/fleets/1/voyages/2?view=3")).toEqual({
    method: method("Get"),
    request: { name: "fleets/1/voyages/2", view: 3 },
  });
  expect(await send("/v1/voyages:names?filter.tons=18446744073709551615")).toEqual({
    method: method("List"),
    request: { filter: { tons: "18446744073709551615" } },
  });
  expect(
    await send("/v1/blobs/a%2Fb", { method: "POST", body: new Blob(["x"], { type: "image/x" }) }),
  ).toEqual({
    method: method("Upload"),
    request: { id: "a/b", blob: { contentType: "image/x", data: "eA==" } },
  });
  expect(await send("/v1/ticks?count=1")).toEqual({ method: method("Watch"), request: { count: 1 } });
  const lines = {
    method: "POST",
    body: '{"text":"a"}\n{"text":"b"}\n',
    headers: { "content-type": "application/x-ndjson" },
  };
  expect(await send("/v1/fleets/f/ticks", lines)).toEqual({
    method: method("Ingest"),
    requests: [
      { fleet: "f", tick: { text: "a" } },
      { fleet: "f", tick: { text: "b" } },
    ],
  });
  mock.stop();
  expect(await mock.ended).toBe(0);
});

describe("says precisely what is wrong", () => {
  const file = (name: string, content: string | Uint8Array) => {
    writeFileSync(join(dir, name), content);
    return join(dir, name);
  };
  test.each<[string, () => string[], number, string]>([
    ["no file named", () => [], 2, "--descriptors is missing"],
    ["no such file", () => ["--descriptors", "nowhere.binpb"], 1, "nowhere.binpb: no such file"],
    ["a folder", () => ["--descriptors", dir], 1, "EISDIR"],
    ["a text", () => ["--descriptors", file("a.txt", "syntax = 3")], 1, "a.txt: not a FileDescriptorSet"],
    ["nothing", () => ["--descriptors", file("empty", "")], 1, "empty: not a FileDescriptorSet"],
    [
      "a bad port",
      () => ["--descriptors", voyages, "--port", "70000"],
      2,
      '--port must be a whole number up to 65535, not "70000"',
    ],
    ["an unknown option", () => ["--nothing"], 2, "--nothing"],
  ])("%s", async (_, args, code, message) => {
    const mock = run(...args());
    expect([await mock.ended, mock.out()]).toEqual([code, ""]);
    expect(mock.err()).toContain(message);
    expect(mock.err()).not.toMatch(/^\s+at /m);
  });

  test("a port that is taken", async () => {
    const other = net.createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const { port } = other.address() as AddressInfo;
    const mock = run("--descriptors", voyages, "--port", String(port));
    expect([await mock.ended, mock.err()]).toEqual([1, "the port is taken: choose another with --port\n"]);
    other.close();
  });

  const builds: [string, string, string][] = [
    ["no service", "message M {}", "no service in it has a method"],
    [
      "no rules",
      "service S { rpc Go(M) returns (M); }\nmessage M {}",
      "none of its 1 methods has a google.api.http annotation",
    ],
    [
      "a conflict",
      `import "google/api/annotations.proto";
      service S {
        rpc Go(M) returns (M) { option (google.api.http) = {get: "/{a}"}; }
        rpc Stop(M) returns (M) { option (google.api.http) = {get: "/{b}"}; }
      }
      message M { string a = 1; string b = 2; }`,
      "GET /{b} of x.S.Stop conflicts with GET /{a} of x.S.Go",
    ],
  ];
  test.each(builds)("%s", async (name, text, message) => {
    const path = `made-${name.replace(" ", "-")}`;
    const folder = join(dir, path);
    execFileSync("mkdir", [folder]);
    writeFileSync(join(folder, "x.proto"), `syntax = "proto3";\npackage x;\n${text}\n`);
    build(path, `${folder}.binpb`);
    const mock = run("--descriptors", `${folder}.binpb`, "--port", "0");
    expect(await mock.ended).toBe(1);
    expect(mock.err()).toContain(message);
  });

  test("an image without its imports", async () => {
    const out = join(dir, "bare.binpb");
    build("testdata", out, "--exclude-imports");
    const mock = run("--descriptors", out, "--port", "0");
    expect(await mock.ended).toBe(1);
    expect(mock.err()).toContain("which is not in it: include the imports");
  });
});

describe("another contract", () => {
  let image: Image;
  beforeAll(async () => {
    image = await readImage(own);
  });

  test("has examples for every response, which obey its rules", () => {
    const validator = createValidator({ registry: image.registry });
    const wrong = image.methods.flatMap(({ name, output }) => {
      const result = validator.validate(output, exampleOf(output));
      return result.kind === "valid" ? [] : [`${name}: ${result.error?.message}`];
    });
    expect(wrong).toEqual([]);
    expect(image.methods.length).toBeGreaterThan(10);
  });
});
