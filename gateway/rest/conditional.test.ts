import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Library } from "./testdata/library.ts";
import { type Served, serve } from "./testdata/server.ts";

const host = new Library();
let server: Served;
let enveloped: Served;

beforeAll(async () => {
  const rules = {
    Ask: {
      route: "GET /ask/{name}",
      additional: [{ route: "POST /ask", body: "*" }],
    },
    Read: { route: "GET /read" },
    Fetch: { route: "GET /fetch", additional: [{ route: "POST /fetch", body: "*" }] },
    FetchPart: { route: "GET /part", responseBody: "file" },
    Change: {
      route: "PATCH /books/{book.id}",
      body: "book",
      additional: [{ route: "GET /books/{book.id}" }, { route: "GET /bare/{book.id}", responseBody: "book" }],
    },
    Follow: { route: "GET /follow" },
  };
  const errorStatus = (error: ConnectError, { conditional }: { conditional: boolean }) =>
    conditional && error.code === Code.Aborted ? 412 : undefined;
  server = await serve(host.transcoder(rules, { dialect: () => ({ errorStatus }) }));
  let calls = 0;
  const envelope = (body: unknown) => ({ body, at: ++calls }) as never;
  enveloped = await serve(host.transcoder(rules, { dialect: () => ({ envelope, envelopeVaries: true }) }));
});
afterAll(async () => {
  await server.close();
  await enveloped.close();
});
beforeEach(() => {
  host.respond = undefined;
  host.called = undefined;
});

const send = (method: string, path: string, headers: object = {}, body?: string) =>
  server.send(method, path, { headers, ...(body !== undefined && { body }) });
const get = (path: string, headers: object = {}) => send("GET", path, headers);

describe("ETag", () => {
  test("is of what is sent, on reads alone", async () => {
    const one = await get("/ask/a");
    expect(one.headers.etag).toMatch(/^"[\w-]{22}"$/);
    expect(one.headers["cache-control"]).toBe("private, no-cache");
    expect((await get("/ask/a")).headers.etag).toBe(one.headers.etag);
    expect((await send("HEAD", "/ask/a")).headers.etag).toBe(one.headers.etag);
    host.respond = () => ({ name: "b" });
    expect((await get("/ask/a")).headers.etag).not.toBe(one.headers.etag);
    const written = await send("POST", "/ask", {}, "{}");
    expect(written.headers).not.toHaveProperty("etag");
    expect(written.headers["cache-control"]).toBe("no-store");
    expect((await get("/follow")).headers).not.toHaveProperty("etag");
  });

  test("is the etag of the one message in the response, and of the body's field", async () => {
    host.respond = () => ({ book: { id: "1", etag: "v7" } });
    expect((await get("/books/1")).headers.etag).toBe('"v7"');
    expect((await get("/bare/1")).headers.etag).toBe('"v7"');
    host.respond = () => ({ book: { id: "1" } });
    expect((await get("/books/1")).headers.etag).toMatch(/^"[\w-]{22}"$/);
    host.respond = () => ({ book: { id: "1", etag: 'a "b";/+=é%' } });
    expect((await get("/books/1")).headers.etag).toBe('"a%20%22b%22%3B/+=%C3%A9%25"');
    host.respond = () => ({ book: { id: "1", etag: 'W/"x"' } });
    expect((await get("/books/1")).headers.etag).toBe('W/"x"');
  });

  test("of the handler stays, and so does its Cache-Control", async () => {
    host.respond = ({ responseHeader }) => {
      responseHeader.set("etag", '"own"');
      responseHeader.set("cache-control", "public, max-age=60");
      return {};
    };
    const answer = await get("/ask/a");
    expect(answer.headers).toMatchObject({ etag: '"own"', "cache-control": "public, max-age=60" });
    expect((await get("/ask/a", { "if-none-match": '"own"' })).status).toBe(304);
  });

  test("is weak, and of what is within, where the envelope differs each time", async () => {
    const [one, other] = [await enveloped.send("GET", "/ask/a"), await enveloped.send("GET", "/ask/a")];
    expect(one.text).not.toBe(other.text);
    expect(one.headers.etag).toMatch(/^W\/"[\w-]{22}"$/);
    expect(other.headers.etag).toBe(one.headers.etag);
  });

  test("differs by content coding", async () => {
    host.respond = () => ({ book: { title: "x".repeat(5000), etag: "v7" } });
    const of = async (coding: string) => (await get("/books/1", { "accept-encoding": coding })).headers;
    const [plain, gzip, br] = [await of("identity"), await of("gzip"), await of("br")];
    expect([plain, gzip, br].map((h) => h.etag)).toEqual(['"v7"', '"v7;gzip"', '"v7;br"']);
    expect([plain, gzip, br].map((h) => h.vary)).toEqual(Array(3).fill("Accept-Encoding"));
    const again = await get("/books/1", { "accept-encoding": "br", "if-none-match": '"v7;br"' });
    expect([again.status, again.headers.etag, again.headers.vary]).toEqual([
      304,
      '"v7;br"',
      "Accept-Encoding",
    ]);
    expect(again.headers).not.toHaveProperty("content-encoding");
    expect((await get("/books/1", { "if-none-match": '"v7;br"' })).status).toBe(200);
  });

  test("an error has none and is not kept", async () => {
    host.respond = () => {
      throw new ConnectError("no", Code.NotFound);
    };
    const answer = await get("/ask/a", { "if-none-match": "*" });
    expect([answer.status, answer.headers.etag, answer.headers["cache-control"]]).toEqual([
      404,
      undefined,
      "no-store",
    ]);
  });
});

describe("If-None-Match", () => {
  test.each<[string, number]>([
    ['"v7"', 304],
    ['W/"v7"', 304],
    ['"a", W/"b" , "v7"', 304],
    ["*", 304],
    ['"v8"', 200],
    ["v7", 200],
    ['"v7', 200],
    ['"v7x"', 200],
    ["", 200],
  ])("%s", async (header, status) => {
    host.respond = () => ({ book: { etag: "v7" } });
    for (const method of ["GET", "HEAD"]) {
      const answer = await send(method, "/books/1", { "if-none-match": header });
      expect(answer.status).toBe(status);
      if (status !== 304) continue;
      expect(answer.text).toBe("");
      expect(answer.headers).toMatchObject({ etag: '"v7"', "cache-control": "private, no-cache" });
      expect(answer.headers).not.toHaveProperty("content-type");
    }
  });

  test("by date, where the handler gives one", async () => {
    host.respond = ({ responseHeader }) => {
      responseHeader.set("last-modified", "Sat, 31 Jan 2026 12:00:00 GMT");
      return {};
    };
    const at = async (date: string, more = {}) =>
      (await get("/ask/a", { "if-modified-since": date, ...more })).status;
    expect(await at("Sat, 31 Jan 2026 12:00:00 GMT")).toBe(304);
    expect(await at("Sat, 31 Jan 2026 11:59:59 GMT")).toBe(200);
    expect(await at("some day")).toBe(200);
    expect(await at("Sat, 31 Jan 2026 12:00:00 GMT", { "if-none-match": '"other"' })).toBe(200);
  });
});

describe("If-Match", () => {
  const patch = (headers: object, body = '{"title":"t"}') => send("PATCH", "/books/1", headers, body);
  const bound = () => (host.called?.[1] as { book?: { etag?: string } } | undefined)?.book?.etag;

  test.each<[string, string | undefined]>([
    ['"v7"', "v7"],
    ['"v7;gzip"', "v7"],
    ['"a%20%22b%22%3B/+=%C3%A9%25"', 'a "b";/+=é%'],
    ['W/"v7"', 'W/"v7"'],
    ["*", undefined],
  ])("%s binds the etag of the resource", async (header, etag) => {
    expect((await patch({ "if-match": header })).status).toBe(200);
    expect(bound()).toBe(etag);
    // The etag says which version is changed; it is no change.
    expect(host.called?.[1]).toMatchObject({ updateMask: "title" });
  });

  test("gives way to the body", async () => {
    await patch({ "if-match": '"v7"' }, '{"title":"t","etag":"v6"}');
    expect([bound(), host.called?.[1]]).toMatchObject(["v6", { updateMask: "title" }]);
  });

  test.each(["v7", '"a", "b"', ""])("%j is refused", async (header) => {
    const answer = await patch({ "if-match": header });
    expect([answer.status, answer.json.details[0].fieldViolations]).toEqual([
      400,
      [{ field: "If-Match", description: "must be one entity tag, in quotes" }],
    ]);
  });

  test("is passed over where there is no etag", async () => {
    expect((await send("POST", "/ask", { "if-match": "whatever" }, "{}")).status).toBe(200);
  });

  test("fails with the status of the dialect", async () => {
    host.respond = () => {
      throw new ConnectError("changed", Code.Aborted);
    };
    expect((await patch({ "if-match": '"v6"' })).status).toBe(412);
    expect((await patch({}, '{"etag":"v6"}')).status).toBe(409);
  });
});

describe("ranges", () => {
  const text = "0123456789";
  beforeEach(() => {
    host.respond = () => ({ contentType: "text/plain", data: Buffer.from(text).toString("base64") });
  });

  test.each<[string, number, string, string?]>([
    ["bytes=0-3", 206, "0123", "bytes 0-3/10"],
    ["bytes=4-", 206, "456789", "bytes 4-9/10"],
    ["bytes=-3", 206, "789", "bytes 7-9/10"],
    ["bytes=8-100", 206, "89", "bytes 8-9/10"],
    ["bytes=-100", 206, text, "bytes 0-9/10"],
    ["Bytes = 9-9", 206, "9", "bytes 9-9/10"],
    ["bytes=0-1,4-5", 200, text],
    ["bytes=3-1", 200, text],
    ["bytes=-", 200, text],
    ["bytes=a-b", 200, text],
    ["lines=0-1", 200, text],
  ])("%s", async (range, status, body, contentRange) => {
    const answer = await get("/fetch", { range });
    expect([answer.status, answer.text, answer.headers["content-range"]]).toEqual([
      status,
      body,
      contentRange,
    ]);
    expect(answer.headers).toMatchObject({
      "accept-ranges": "bytes",
      "content-type": "text/plain",
      "content-length": String(body.length),
    });
  });

  test.each(["bytes=10-", "bytes=10-12", "bytes=-0"])("%s lies outside", async (range) => {
    const answer = await get("/fetch", { range });
    expect([answer.status, answer.headers["content-range"], answer.json.code]).toEqual([
      416,
      "bytes */10",
      11,
    ]);
  });

  test("only of what the client has a part of", async () => {
    const { etag } = (await get("/fetch")).headers;
    const part = async (ifRange: string | undefined) =>
      (await get("/fetch", { range: "bytes=0-3", "if-range": ifRange })).status;
    expect(await part(etag)).toBe(206);
    expect(await part('"other"')).toBe(200);
    expect(await part(`W/${etag}`)).toBe(200);
    expect(await part("Sat, 31 Jan 2026 12:00:00 GMT")).toBe(200);
    host.respond = ({ responseHeader }) => {
      responseHeader.set("last-modified", "Sat, 31 Jan 2026 12:00:00 GMT");
      return { data: "YWFhYQ==" };
    };
    expect(await part("Sat, 31 Jan 2026 12:00:00 GMT")).toBe(206);
    expect(await part("Sat, 31 Jan 2026 12:00:01 GMT")).toBe(200);
  });

  test("after the condition, not on HEAD, not on POST, not of JSON", async () => {
    const { etag } = (await get("/fetch")).headers;
    expect((await get("/fetch", { range: "bytes=0-3", "if-none-match": etag })).status).toBe(304);
    const head = await send("HEAD", "/fetch", { range: "bytes=0-3" });
    expect([head.status, head.headers["content-length"]]).toEqual([200, "10"]);
    const posted = await send("POST", "/fetch", { range: "bytes=0-3" }, "{}");
    expect([posted.status, posted.headers["accept-ranges"]]).toEqual([200, undefined]);
    host.respond = undefined;
    const json = await get("/ask/a", { range: "bytes=0-3" });
    expect([json.status, json.headers["accept-ranges"]]).toEqual([200, undefined]);
  });

  test("of a field, and of bytes that would be compressed", async () => {
    const data = Buffer.alloc(5000, "ab").toString("base64");
    host.respond = () => ({ file: { contentType: "text/csv", data } });
    const headers = { "accept-encoding": "gzip" };
    const part = await get("/part", { ...headers, range: "bytes=1-2" });
    expect([part.status, part.text, part.headers["content-encoding"]]).toEqual([206, "ba", undefined]);
    const whole = await get("/part", headers);
    expect(gunzipSync(whole.bytes).length).toBe(5000);
    expect(whole.headers.etag).toMatch(/;gzip"$/);
  });
});

describe("compression", () => {
  test.each<[string, string | undefined]>([
    ["gzip, deflate, br", "br"],
    ["gzip", "gzip"],
    ["x-gzip", "gzip"],
    ["GZIP;Q=0.5", "gzip"],
    ["br;q=0.2, gzip;q=0.9", "gzip"],
    ["*", "br"],
    ["br;q=0, *", "gzip"],
    ["gzip;q=0, br;q=0", undefined],
    ["*;q=0", undefined],
    ["identity, gzip;q=0.5", undefined],
    ["identity;q=0.1, gzip;q=0.5", "gzip"],
    ["zstd", undefined],
    ["", undefined],
  ])("Accept-Encoding: %s", async (header, coding) => {
    host.respond = () => ({ text: "x".repeat(5000) });
    const answer = await get("/ask/a", { "accept-encoding": header });
    expect([answer.headers["content-encoding"], answer.headers.vary]).toEqual([coding, "Accept-Encoding"]);
    const bytes =
      coding === "br" ? brotliDecompressSync(answer.bytes) : coding ? gunzipSync(answer.bytes) : answer.bytes;
    expect(JSON.parse(bytes.toString()).text).toHaveLength(5000);
  });

  test("not of what is small or compressed already", async () => {
    const headers = { "accept-encoding": "br" };
    expect((await get("/ask/a", headers)).headers).not.toHaveProperty("content-encoding");
    host.respond = () => ({ contentType: "image/png", data: Buffer.alloc(5000).toString("base64") });
    const answer = await get("/fetch", headers);
    expect([answer.headers["content-encoding"], answer.headers.vary]).toEqual([undefined, undefined]);
  });
});
