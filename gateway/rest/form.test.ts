import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Library } from "./testdata/library.ts";
import { type Served, serve } from "./testdata/server.ts";

const host = new Library();
let server: Served;

beforeAll(async () => {
  server = await serve(
    host.transcoder(
      {
        Put: {
          route: "POST /all",
          body: "*",
          additional: [
            { route: "POST /file/{id}", body: "file" },
            { route: "POST /data/{id}", body: "data" },
          ],
        },
        Raw: { route: "POST /raw", body: "*" },
        Change: { route: "PATCH /books/{book.id}", body: "book" },
      },
      { maxBodyBytes: 100_000 },
    ),
  );
});
afterAll(() => server.close());
beforeEach(() => {
  host.called = undefined;
});

type Entry = [name: string, value: string | Blob, filename?: string];
const file = (text: string, type = "text/csv") => new Blob([text], { type });

/** Sends a form as fetch writes it. */
async function send(path: string, ...entries: Entry[]) {
  const form = new FormData();
  for (const [name, value, filename] of entries) {
    if (typeof value === "string") form.append(name, value);
    else form.append(name, value, filename ?? "f.csv");
  }
  const request = new Request("http://h", { method: "POST", body: form });
  const headers = { "content-type": request.headers.get("content-type") ?? "" };
  return server.send("POST", path, { headers, body: new Uint8Array(await request.arrayBuffer()) });
}

const base64 = (text: string) => Buffer.from(text).toString("base64");

describe("a form", () => {
  test("whose file is the body, and the other parts are fields next to it", async () => {
    const answer = await send(
      "/file/7?about.subfield=q",
      ["title", "T é"],
      ["upload", file("a,b\r\n--x\r\n")],
    );
    expect(answer.status).toBe(200);
    expect(host.called).toEqual([
      "Put",
      {
        id: "7",
        title: "T é",
        about: { subfield: "q" },
        file: { contentType: "text/csv", data: base64("a,b\r\n--x\r\n") },
      },
    ]);
  });

  test("whose file is the bytes of a field", async () => {
    await send("/data/7", ["data", file("xyz")], ["about.numbers", "1"], ["about.numbers", "2"]);
    expect(host.called).toEqual(["Put", { id: "7", data: base64("xyz"), about: { numbers: [1, 2] } }]);
  });

  test("whose file is the request", async () => {
    expect((await send("/raw", ["any", file("xyz", "image/png")])).status).toBe(200);
    expect(host.called).toEqual(["Raw", { contentType: "image/png", data: base64("xyz") }]);
    expect((await send("/raw", ["any", file("x")], ["text", "y"])).status).toBe(400);
  });

  test("whose parts are the fields of the request", async () => {
    const answer = await send(
      "/all",
      ["id", "7"],
      ["file", file("a")],
      ["data", file("b")],
      ["more", file("c")],
      ["more", file("d")],
      ["about", '{"subfield":"s","numbers":[1]}'],
    );
    expect(answer.status).toBe(200);
    expect(host.called?.[1]).toEqual({
      id: "7",
      file: { contentType: "text/csv", data: base64("a") },
      data: base64("b"),
      more: [base64("c"), base64("d")],
      about: { subfield: "s", numbers: [1] },
    });
  });

  test.each<[string, string, Entry[], string, string]>([
    ["no file", "/file/7", [["title", "T"]], "", "has no file"],
    [
      "two files",
      "/file/7",
      [
        ["a", file("x")],
        ["b", file("y")],
      ],
      "b",
      "is a second file, where there can be one",
    ],
    [
      "an unknown part",
      "/file/7",
      [
        ["a", file("x")],
        ["nothing", "y"],
      ],
      "nothing",
      "is not a parameter of this method",
    ],
    ["an unknown part of all", "/all", [["nothing", "y"]], "nothing", "is not a parameter of this method"],
    ["a file in a text", "/all", [["title", file("x")]], "title", "cannot hold a file"],
    ["no JSON for a message", "/all", [["about", "{"]], "about", "must be an object"],
    ["a wrong number", "/all", [["about.numbers", "x"]], "about.numbers", "must be an integer of 32 bits"],
    [
      "a part twice",
      "/all",
      [
        ["title", "a"],
        ["title", "b"],
      ],
      "title",
      "is given more than once",
    ],
  ])("with %s is refused", async (_, path, entries, field, description) => {
    const answer = await send(path, ...entries);
    expect(answer.status).toBe(400);
    expect(answer.json.details[0].fieldViolations).toEqual([{ ...(field && { field }), description }]);
    expect(host.called).toBeUndefined();
  });

  test.each<[string, string, string, number]>([
    ["no boundary", "multipart/form-data", "x", 400],
    [
      "no end",
      'multipart/form-data; boundary="b"',
      '--b\r\ncontent-disposition: form-data; name="id"\r\n\r\nx',
      400,
    ],
    ["no name", "multipart/form-data; boundary=b", "--b\r\n\r\nx\r\n--b--\r\n", 400],
    ["no form at all", "multipart/form-data; boundary=b", "{}", 400],
    ["another kind of multipart", "multipart/mixed; boundary=b", "--b--", 415],
    ["too large", "multipart/form-data; boundary=b", "x".repeat(100_001), 413],
  ])("%s", async (_, type, body, status) => {
    const answer = await server.send("POST", "/all", { headers: { "content-type": type }, body });
    expect([answer.status, host.called]).toEqual([status, undefined]);
  });

  test("of a thousand parts, and no more", async () => {
    const part = '--b\r\ncontent-disposition: form-data; name="about.numbers"\r\n\r\n1\r\n';
    const headers = { "content-type": "multipart/form-data; boundary=b" };
    const status = async (parts: number) =>
      (await server.send("POST", "/all", { headers, body: `${part.repeat(parts)}--b--\r\n` })).status;
    expect([await status(1000), await status(1001)]).toEqual([200, 400]);
  });

  test("is not taken where nothing can hold a file", async () => {
    const headers = { "content-type": "multipart/form-data; boundary=b" };
    expect((await server.send("PATCH", "/books/1", { headers, body: "--b--\r\n" })).status).toBe(415);
  });
});
