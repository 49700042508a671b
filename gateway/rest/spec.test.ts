import type { JsonValue } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { Library, type ShortRule, using } from "./testdata/library.ts";

/**
 * The worked examples and the rules in the comments of google/api/http.proto, proto3 JSON, and our choices
 * where the specification leaves one and its implementations differ: each row gives rules, a request as it
 * goes over the wire, and the request message that is bound, or the status of the refusal.
 */
type Row = [
  basis: string,
  rule: ShortRule | Record<string, ShortRule>,
  request: string,
  expected: number | object | [method: string, request: object],
];

const get = (path: string): ShortRule => ({ route: `GET ${path}` });
const post = (path: string, body = "*"): ShortRule => ({ route: `POST ${path}`, body });

const rows: Record<string, Row[]> = {
  "the worked examples of http.proto": [
    [
      "a path of several segments",
      get("/v1/{name=messages/*}"),
      "GET /v1/messages/123456",
      { name: "messages/123456" },
    ],
    [
      "the rest is in the query",
      get("/v1/messages/{message_id}"),
      "GET /v1/messages/123456?revision=2&sub.subfield=foo",
      { messageId: "123456", revision: "2", sub: { subfield: "foo" } },
    ],
    ["repeated parameters", get("/v1/messages"), "GET /v1/messages?tags=A&tags=B", { tags: ["A", "B"] }],
    [
      "a field as the body",
      { route: "PATCH /v1/messages/{message_id}", body: "sub" },
      'PATCH /v1/messages/123456 {"subfield": "Hi!"}',
      // The request has exactly one mask, so that it is derived.
      { messageId: "123456", sub: { subfield: "Hi!" }, mask: "subfield" },
    ],
    [
      "everything as the body",
      { route: "PATCH /v1/messages/{message_id}", body: "*" },
      'PATCH /v1/messages/123456 {"text": "Hi!"}',
      { messageId: "123456", text: "Hi!" },
    ],
    ...["/v1/messages/123456", "/v1/users/me/messages/123456"].map(
      (path): Row => [
        "additional bindings",
        {
          ...get("/v1/messages/{message_id}"),
          additional: [get("/v1/users/{user_id}/messages/{message_id}")],
        },
        `GET ${path}`,
        path.includes("me") && path.includes("users")
          ? { userId: "me", messageId: "123456" }
          : { messageId: "123456" },
      ],
    ),
    [
      "the example of a service configuration",
      get("/v1/messages/{message_id}/{sub.subfield}"),
      "GET /v1/messages/123456/foo",
      { messageId: "123456", sub: { subfield: "foo" } },
    ],
  ],
  templates: [
    ["{x} is {x=*}", get("/v1/{name=*}"), "GET /v1/a", { name: "a" }],
    ["a wildcard that is not captured", get("/v1/*/x"), "GET /v1/anything/x", {}],
    ["** takes none", get("/v1/files/{name=**}"), "GET /v1/files", {}],
    ["** takes many", get("/v1/files/{name=**}"), "GET /v1/files/a/b/c", { name: "a/b/c" }],
    ["** without a variable", get("/v1/**"), "GET /v1/a/b", {}],
    ["literals before ** in a variable", get("/v1/{name=a/*/**}"), "GET /v1/a/b/c/d", { name: "a/b/c/d" }],
    ["** of a variable takes none", get("/v1/{name=a/**}"), "GET /v1/a", { name: "a" }],
    ["* takes exactly one", get("/v1/{name=a/*}"), "GET /v1/a", 404],
    ["* takes no more than one", get("/v1/{name=a/*}"), "GET /v1/a/b/c", 404],
    ["* takes no empty segment", get("/v1/{name}"), "GET /v1/", 404],
    ["* takes no empty segment within", get("/v1/{name}/x"), "GET /v1//x", 404],
    ["a trailing slash is another path", get("/v1/messages"), "GET /v1/messages/", 404],
    ["a verb", post("/v1/{name}:cancel"), "POST /v1/a:cancel {}", { name: "a" }],
    ["a verb after a literal", get("/v1/messages:search"), "GET /v1/messages:search", {}],
    ["a verb after **", get("/v1/{name=**}:go"), "GET /v1/a/b:go", { name: "a/b" }],
    ["no verb where one is needed", get("/v1/{name}:go"), "GET /v1/a", 404],
    ["another verb is no match without", get("/v1/{name}:go"), "GET /v1/a:stop", 404],
    ["a colon of no verb is data", get("/v1/{name}"), "GET /v1/urn:isbn:1", { name: "urn:isbn:1" }],
    [
      "the longest suffix that is a verb",
      { Ask: get("/v1/{name}:go"), Read: get("/v1/{name}:and:go") },
      "GET /v1/a:and:go",
      ["Read", { name: "a" }],
    ],
    ["an escaped colon is data", get("/v1/{name}"), "GET /v1/a%3Ago", { name: "a:go" }],
    ["a literal compares decoded", get("/v1/a%20b"), "GET /v1/%61%20b", {}],
    ["literals are case-sensitive", get("/v1/messages"), "GET /v1/Messages", 404],
    ["a literal within a variable", get("/v1/{name=fixed}"), "GET /v1/fixed", { name: "fixed" }],
    ["nested fields", get("/v1/{sub.deep.subfield}"), "GET /v1/x", { sub: { deep: { subfield: "x" } } }],
    ["a number", get("/v1/{revision}"), "GET /v1/-9223372036854775808", { revision: "-9223372036854775808" }],
    ["what is no number", get("/v1/{revision}"), "GET /v1/x", 400],
    ["an enum by name", get("/v1/{shelf}"), "GET /v1/SHELF_TOP", { shelf: "SHELF_TOP" }],
    ["an enum by number", get("/v1/{shelf}"), "GET /v1/2", { shelf: "SHELF_LOW" }],
    ["no such enum", get("/v1/{shelf}"), "GET /v1/MIDDLE", 400],
    ["a bool", get("/v1/{flag}"), "GET /v1/true", { flag: true }],
    ["a bool by any other name", get("/v1/{flag}"), "GET /v1/1", 400],
    ["the root", get("/"), "GET /", {}],
  ],
  "percent-encoding": [
    ["a slash in one segment", get("/v1/{name}"), "GET /v1/a%2Fb", { name: "a/b" }],
    ["a slash in a segment of several", get("/v1/{name=a/*}"), "GET /v1/a/b%2Fc", { name: "a/b%2Fc" }],
    ["lower case stays", get("/v1/{name=**}"), "GET /v1/a%2fb/c", { name: "a%2fb/c" }],
    ["the rest is decoded in several", get("/v1/{name=**}"), "GET /v1/a%20b/%C3%A9%3F", { name: "a b/é?" }],
    ["once only", get("/v1/{name}"), "GET /v1/a%252Fb", { name: "a%2Fb" }],
    ["once only in several", get("/v1/{name=**}"), "GET /v1/a%252Fb", { name: "a%2Fb" }],
    ["a plus is a plus in a path", get("/v1/{name}"), "GET /v1/a+b", { name: "a+b" }],
    ["a plus is a space in a query", get("/v1"), "GET /v1?text=a+b%2Bc", { text: "a b+c" }],
    ["no UTF-8", get("/v1/{name}"), "GET /v1/%FF", 400],
    ["no escape", get("/v1/{name}"), "GET /v1/%GG", 400],
    ["no escape in a query", get("/v1"), "GET /v1?text=%G", 400],
    ["dots are data", get("/v1/{name}/x"), "GET /v1/../x", { name: ".." }],
  ],
  precedence: [
    [
      "a literal before *",
      { Ask: get("/v1/{name}"), Read: get("/v1/latest") },
      "GET /v1/latest",
      ["Read", {}],
    ],
    [
      "* before **",
      { Ask: get("/v1/{name=**}"), Read: get("/v1/{name}") },
      "GET /v1/a",
      ["Read", { name: "a" }],
    ],
    [
      "back to ** where * leads nowhere",
      { Ask: get("/v1/{name=**}"), Read: get("/v1/{name}/x") },
      "GET /v1/a/y",
      ["Ask", { name: "a/y" }],
    ],
    [
      "back to * where the literal has another method",
      { Ask: post("/v1/{name}"), Read: get("/v1/latest") },
      "POST /v1/latest {}",
      ["Ask", { name: "latest" }],
    ],
    ["the path over the query", get("/v1/{name}"), "GET /v1/a?name=b", { name: "a" }],
    [
      "the path over the body",
      post("/v1/{name}"),
      'POST /v1/a {"name":"b","text":"c"}',
      { name: "a", text: "c" },
    ],
    [
      "the path within the body's field",
      { route: "PUT /v1/{sub.subfield}", body: "sub" },
      'PUT /v1/a {"subfield":"b","numbers":[1]}',
      { sub: { subfield: "a", numbers: [1] } },
    ],
    ["the body over the query", post("/v1", "text"), 'POST /v1?text=q "b"', { text: "b" }],
    [
      "a method before any method",
      { Ask: { route: "* /v1/{name}" }, Read: get("/v1/{name}") },
      "GET /v1/a",
      ["Read", { name: "a" }],
    ],
  ],
  query: [
    ["contract names", get("/v1"), "GET /v1?message_id=a", { messageId: "a" }],
    ["JSON names", get("/v1"), "GET /v1?messageId=a", { messageId: "a" }],
    ["a JSON name of its own", get("/v1"), "GET /v1?newName=a", { newName: "a" }],
    ["and the contract's for it", get("/v1"), "GET /v1?renamed=a", { newName: "a" }],
    ["deep", get("/v1"), "GET /v1?sub.deep.deep.subfield=x", { sub: { deep: { deep: { subfield: "x" } } } }],
    ["repeated below", get("/v1"), "GET /v1?sub.numbers=1&sub.numbers=2", { sub: { numbers: [1, 2] } }],
    ["no message", get("/v1"), "GET /v1?sub=%7B%7D", 400],
    ["no repeated message", get("/v1"), "GET /v1?inners=%7B%7D", 400],
    ["nothing below a repeated message", get("/v1"), "GET /v1?inners.subfield=x", 400],
    ["unknown", get("/v1"), "GET /v1?nothing=1", 400],
    ["unknown below", get("/v1"), "GET /v1?sub.nothing=1", 400],
    ["a single value twice", get("/v1"), "GET /v1?text=a&text=b", 400],
    [
      "enums",
      get("/v1"),
      "GET /v1?shelf=SHELF_LOW&shelves=1&shelves=SHELF_LOW",
      { shelf: "SHELF_LOW", shelves: ["SHELF_TOP", "SHELF_LOW"] },
    ],
    ["booleans", get("/v1"), "GET /v1?flag=true", { flag: true }],
    ["no boolean", get("/v1"), "GET /v1?flag=TRUE", 400],
    ["exponents", get("/v1"), "GET /v1?weight=-1.5e%2B3", { weight: -1500 }],
    ["infinity", get("/v1"), "GET /v1?weight=-Infinity&ratio=NaN", { weight: "-Infinity", ratio: "NaN" }],
    ["too large for 32 bits", get("/v1"), "GET /v1?size=4294967296", 400],
    ["too large for a float", get("/v1"), "GET /v1?ratio=1e39", 400],
    ["too large for 64 bits", get("/v1"), "GET /v1?revision=9223372036854775808", 400],
    ["an integer without a fraction", get("/v1"), "GET /v1?size=1.5", 400],
    ["base64", get("/v1"), "GET /v1?blob=%2B%2F8%3D", { blob: "+/8=" }],
    ["base64url", get("/v1"), "GET /v1?blob=-_8", { blob: "+/8=" }],
    ["a time", get("/v1"), "GET /v1?at=2026-01-31T12:00:00%2B02:00", { at: "2026-01-31T10:00:00Z" }],
    [
      "an offset that was not escaped",
      get("/v1"),
      "GET /v1?at=2026-01-31T12:00:00+02:00",
      { at: "2026-01-31T10:00:00Z" },
    ],
    ["a duration", get("/v1"), "GET /v1?lasts=-1.5s", { lasts: "-1.500s" }],
    ["a duration in other words", get("/v1"), "GET /v1?lasts=1m", 400],
    ["a mask", get("/v1"), "GET /v1?mask=messageId,sub.deep", { mask: "messageId,sub.deep" }],
    ["a mask in contract names", get("/v1"), "GET /v1?mask=message_id", { mask: "messageId" }],
    ["wrappers", get("/v1"), "GET /v1?note=&count=5&checked=false", { note: "", count: "5", checked: false }],
    ["a struct", get("/v1"), "GET /v1?extra=%7B%22a%22%3A%5B1%5D%7D", { extra: { a: [1] } }],
    ["a map", get("/v1"), "GET /v1?labels[a]=1&labels%5Bb%5D=2", { labels: { a: "1", b: "2" } }],
    [
      "a key that every object has",
      get("/v1"),
      "GET /v1?labels[a]=1&labels[__proto__]=2",
      { labels: { a: "1", ["__proto__"]: "2" } },
    ],
    ["explicit presence", get("/v1"), "GET /v1?rank=0", { rank: 0 }],
    ["one of several", get("/v1"), "GET /v1?left=", { left: "" }],
    ["two of several", get("/v1"), "GET /v1?left=a&right=b", 400],
    ["one in the path, one in the query", get("/v1/{left}"), "GET /v1/a?right=b", { left: "a" }],
    ["empty pairs", get("/v1"), "GET /v1?&text=a&&", { text: "a" }],
  ],
  bodies: [
    ["no query next to *", post("/v1"), "POST /v1?text=a {}", 400],
    [
      "a query next to a field",
      post("/v1", "sub"),
      'POST /v1?text=a {"subfield":"x"}',
      { text: "a", sub: { subfield: "x" } },
    ],
    ["none declared: what comes is ignored", { route: "POST /v1" }, "POST /v1?text=a {{{", { text: "a" }],
    [
      "a repeated field as an array",
      post("/v1", "inners"),
      'POST /v1 [{"subfield":"x"},{}]',
      { inners: [{ subfield: "x" }, {}] },
    ],
    ["a repeated scalar", post("/v1", "tags"), 'POST /v1 ["a"]', { tags: ["a"] }],
    ["a scalar", post("/v1", "revision"), 'POST /v1 "7"', { revision: "7" }],
    ["an enum", post("/v1", "shelf"), 'POST /v1 "SHELF_TOP"', { shelf: "SHELF_TOP" }],
    ["a map", post("/v1", "labels"), 'POST /v1 {"a":"b"}', { labels: { a: "b" } }],
    ["a time", post("/v1", "at"), 'POST /v1 "2026-01-31T10:00:00Z"', { at: "2026-01-31T10:00:00Z" }],
    ["contract names", post("/v1"), 'POST /v1 {"message_id":"a"}', { messageId: "a" }],
    ["unknown fields", post("/v1"), 'POST /v1 {"nothing":1}', 400],
    ["no JSON", post("/v1"), "POST /v1 {", 400],
    ["an array for a message", post("/v1"), "POST /v1 []", 400],
    ["no body is an empty message", post("/v1/{name}"), "POST /v1/a", { name: "a" }],
    ["null is unset", post("/v1"), 'POST /v1 {"text":null,"sub":null}', {}],
    [
      "on a DELETE",
      { route: "DELETE /v1/{name}", body: "sub" },
      'DELETE /v1/a {"subfield":"x"}',
      { name: "a", sub: { subfield: "x" } },
    ],
  ],
  methods: [
    ["HEAD is GET", get("/v1/{name}"), "HEAD /v1/a", { name: "a" }],
    ["another method", get("/v1/{name}"), "POST /v1/a {}", 405],
    ["OPTIONS", get("/v1/{name}"), "OPTIONS /v1/a", 204],
    ["a custom kind", { route: "PURGE /v1/{name}" }, "PURGE /v1/a", { name: "a" }],
    ["HEAD of its own", { route: "HEAD /v1/{name}" }, "HEAD /v1/a", { name: "a" }],
    ["any method", { route: "* /v1/{name}" }, "PROPFIND /v1/a", { name: "a" }],
    ["methods are case-sensitive", get("/v1/{name}"), "post /v1/a {}", 405],
    ["unknown", get("/v1/{name}"), "GET /v2/a", 404],
  ],
};

for (const [group, cases] of Object.entries(rows)) {
  describe(group, () => {
    test.each(cases)("%s: %j %s", async (_, rule, request, expected) => {
      const [method = "", path = "", ...rest] = request.split(" ");
      const body = rest.join(" ");
      const host = new Library();
      const rules = "route" in rule ? { Ask: rule as ShortRule } : (rule as Record<string, ShortRule>);
      const answer = await using(host.transcoder(rules), (send) =>
        send(
          method,
          path,
          body === ""
            ? {}
            : { headers: { "content-type": "application/json", "content-length": body.length }, body },
        ),
      );
      if (typeof expected === "number") {
        expect([answer.status, host.called]).toEqual([expected, undefined]);
        return;
      }
      const call = Array.isArray(expected) ? expected : ["Ask", expected];
      expect([answer.status, host.called]).toEqual([200, call]);
    });
  });
}

describe("rules that are refused at the start", () => {
  test.each<[string, ShortRule | Record<string, ShortRule>, string]>([
    ["no slash", get("v1"), 'invalid path template "v1"'],
    ["a trailing slash", get("/v1/"), "it ends with a slash"],
    ["an empty segment", get("/v1//x"), "empty segment"],
    ["something after **", get("/v1/**/x"), '"**" must be the last segment'],
    ["something after a variable of **", get("/v1/{name=**}/x"), '"**" must be the last segment'],
    ["a variable in a variable", get("/v1/{name={text}}"), "invalid path template"],
    ["a variable twice", get("/v1/{name}/{name}"), '"name" is bound twice'],
    ["half a segment", get("/v1/x{name}"), "invalid path template"],
    ["the leading slash", get("/v1/{name=/x}"), "empty segment"],
    ["an open brace", get("/v1/{name"), "a brace is not closed"],
    ["no such field", get("/v1/{nothing}"), '"nothing" is not a field of library.v1.Question'],
    ["a JSON name", get("/v1/{messageId}"), '"messageId" is not a field'],
    ["a message", get("/v1/{sub}"), '"sub" cannot be in a path: it is a message'],
    ["a repeated field", get("/v1/{tags}"), '"tags" cannot be in a path'],
    ["a map", get("/v1/{labels}"), '"labels" cannot be in a path'],
    ["below a repeated field", get("/v1/{inners.subfield}"), '"inners.subfield" cannot be in a path'],
    ["no such body", post("/v1", "nothing"), 'body "nothing" is not a field'],
    ["a body that is not at the top", post("/v1", "sub.deep"), 'body "sub.deep" is not a field'],
    ["no such response body", { ...get("/v1"), responseBody: "no" }, 'response_body "no" is not a field'],
    ["no method at all", { route: "A,B /v1" }, '"A,B" is not an HTTP method'],
    [
      "additional bindings of additional bindings",
      { ...get("/a"), additional: [{ ...get("/b"), additional: [get("/c")] }] },
      "additional_bindings cannot be nested",
    ],
    [
      "two for the same requests",
      { Ask: get("/v1/{name}"), Read: get("/v1/{text}") },
      "GET /v1/{text} of library.v1.Library.Read conflicts with GET /v1/{name} of library.v1.Library.Ask",
    ],
    [
      "two of one method",
      { ...get("/v1/{name}"), additional: [get("/v1/{text=*}")] },
      "GET /v1/{text=*} of library.v1.Library.Ask conflicts with GET /v1/{name} of library.v1.Library.Ask",
    ],
  ])("%s: %j", (_, rule, message) => {
    const rules = "route" in rule ? { Ask: rule as ShortRule } : (rule as Record<string, ShortRule>);
    expect(() => new Library().transcoder(rules)).toThrow(message);
  });
});

test("405 and OPTIONS name the methods there are", async () => {
  const rules = {
    Ask: { ...get("/v1/{name}"), additional: [{ route: "DELETE /v1/{name}" }] },
    Read: get("/v1/latest"),
  };
  await using(new Library().transcoder(rules), async (send) => {
    const refused = await send("PUT", "/v1/latest");
    expect([refused.status, refused.headers.allow]).toEqual([405, "DELETE, GET, HEAD, OPTIONS"]);
    expect(refused.json.code).toBe(12);
    expect((await send("OPTIONS", "/v1/latest")).headers.allow).toBe("DELETE, GET, HEAD, OPTIONS");
  });
});

test.each<[string, JsonValue]>([
  ["items", [expect.objectContaining({ name: "a" })]],
  ["next", "n"],
  ["first", null],
])("response_body %s", async (responseBody, expected) => {
  const host = new Library();
  host.respond = () => ({ items: [{ name: "a" }], next: "n" });
  const answer = await using(host.transcoder({ Read: { ...get("/v1"), responseBody } }), (send) =>
    send("GET", "/v1"),
  );
  expect(answer.json).toEqual(expected);
});

describe("service configuration", () => {
  const rule = (selector: string, path: string) => ({
    selector,
    pattern: { case: "get" as const, value: path },
  });
  const routesOf = async (http: object) => {
    const { Host } = await import("./testdata/host.ts");
    return new Host()
      .transcoder({ http })
      .routes.map((r) => `${r.method.name} ${r.httpMethod} ${r.template}`);
  };

  test("a rule takes the place of the annotation, and gives one to who has none", async () => {
    const routes = await routesOf({
      rules: [
        rule("voyages.v1.Voyages.Get", "/v9/{id}"),
        rule("voyages.v1.Voyages.Unbound", "/v9/unbound/{id}"),
      ],
    });
    expect(routes.filter((r) => /^(Get|Unbound) /.test(r))).toEqual([
      "Get GET /v9/{id}",
      "Unbound GET /v9/unbound/{id}",
    ]);
    expect(routes).toContain("Latest GET /v1/voyages/latest");
  });

  test("the last rule wins", async () => {
    const one = rule("voyages.v1.Voyages.Get", "/a");
    const routes = await routesOf({ rules: [one, rule("voyages.v1.Voyages.Get", "/b")] });
    expect(routes.filter((r) => r.startsWith("Get "))).toEqual(["Get GET /b"]);
    const late = await routesOf({
      rules: [
        rule("voyages.v1.Voyages.Get, voyages.v1.Voyages.List", "/b"),
        one,
        rule("voyages.v1.Voyages.List", "/c"),
      ],
    });
    expect(late.filter((r) => /^(Get|List) /.test(r))).toEqual(["Get GET /a", "List GET /c"]);
  });

  test.each([
    ["voyages.v1.Voyages.Nothing", 'the selector "voyages.v1.Voyages.Nothing" selects no method'],
    ["voyages.v1.Voy*", '"voyages.v1.Voy*" is not a selector'],
    ["", '"" is not a selector'],
  ])("the selector %j is refused", async (selector, message) => {
    await expect(routesOf({ rules: [rule(selector, "/x")] })).rejects.toThrow(message);
  });

  test.each([
    ["/v1/{name=**}", "/v1/a%2Fb/c", "a/b/c"],
    ["/v1/{name=a/**}", "/v1/a/b%2fc", "a/b/c"],
    ["/v1/{name=a/*}", "/v1/a/b%2Fc", "a/b%2Fc"],
    ["/v1/{name=*/x/**}", "/v1/a%2Fb/x/c%2Fd", "a%2Fb/x/c/d"],
  ])("fully_decode_reserved_expansion of %s in %s", async (template, path, name) => {
    const host = new Library();
    const options = { http: { fullyDecodeReservedExpansion: true } };
    await using(host.transcoder({ Ask: get(template) }, options), (send) => send("GET", path));
    expect(host.called).toEqual(["Ask", { name }]);
  });
});

test("unknown parameters are passed over where a route is lenient", async () => {
  const host = new Library();
  const rules = {
    Ask: get("/v1/ask"),
    Change: { route: "POST /v1/change", body: "*" },
    Read: get("/v1/read"),
  };
  const ignoreUnknownQuery = ({ method }: { method: { name: string } }) => method.name !== "Read";
  await using(host.transcoder(rules, { ignoreUnknownQuery }), async (send) => {
    expect((await send("GET", "/v1/ask?nothing=1&text=a&sub.no=1")).status).toBe(200);
    expect(host.called).toEqual(["Ask", { text: "a" }]);
    expect((await send("GET", "/v1/ask?size=x")).status).toBe(400);
    expect((await send("POST", "/v1/change?x=1")).status).toBe(200);
    expect((await send("GET", "/v1/read?nothing=1")).status).toBe(400);
  });
});

test("a method that streams both ways", async () => {
  const host = new Library();
  const headers = { "content-type": "application/x-ndjson" };
  const answer = await using(host.transcoder({ Talk: post("/v1/{name}/talk") }), (send) =>
    send("POST", "/v1/a/talk", { headers, body: '{"text":"1"}\n{"text":"2"}\n' }),
  );
  const texts = answer.text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect([answer.status, texts]).toMatchObject([
    200,
    [
      { name: "a", text: "1" },
      { name: "a", text: "2" },
    ],
  ]);
});

describe("violations are spelled as the client spelled them", () => {
  test.each<[string, string, string]>([
    ["GET /v1/a?sub.deep.subfield=a&sub.deep.subfield=b", "", "sub.deep.subfield"],
    ["GET /v1/a?revision=x", "", "revision"],
    ["GET /v1/a?userID=x", "", "userID"],
    ["POST /v1/a", '{"message_id":1}', "message_id"],
    ["POST /v1/a", '{"messageId":1}', "messageId"],
    ["POST /v1/a", '{"newName":1}', "newName"],
    ["POST /v1/a", '{"inners":[{},{"sub_field":1}]}', "inners[1].sub_field"],
    ["POST /v1/a", '{"labels":{"a.b":1}}', 'labels["a.b"]'],
    ["GET /v1/n/x", "", "revision"],
  ])("%s %s", async (request, body, field) => {
    const [method = "", path = ""] = request.split(" ");
    const rule = {
      ...get("/v1/{name}"),
      additional: [post("/v1/{name}"), get("/v1/n/{revision}")],
    };
    const answer = await using(new Library().transcoder({ Ask: rule }), (send) =>
      send(method, path, body === "" ? {} : { body }),
    );
    expect([answer.status, answer.json.details[0].fieldViolations[0].field]).toEqual([400, field]);
  });
});
