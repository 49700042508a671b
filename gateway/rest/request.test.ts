import { gzipSync } from "node:zlib";
import { create, type DescMessage, type JsonObject, type Message, toJson } from "@bufbuild/protobuf";
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Dialect } from "./index.ts";
import { messageOf } from "./testdata/contract.ts";
import { Host, registry } from "./testdata/host.ts";
import { exchangeRaw, type Served, serve } from "./testdata/server.ts";

const host = new Host();
let server: Served;
let strange: Served;

const lenient: Dialect = {
  fieldAliases: (field) => (field.name === "display_name" ? ["title", "label"] : []),
  enumSpellings: (value) => (value.name === "CARGO_TYPE_OIL" ? ["crude"] : []),
};

beforeAll(async () => {
  server = await serve(host.transcoder({ maxBodyBytes: 4096, ignoreQueryParameters: ["utm"] }));
  strange = await serve(host.transcoder({ dialect: () => lenient }));
});
afterAll(async () => {
  await server.close();
  await strange.close();
});
beforeEach(() => {
  host.input = undefined;
  host.respond = undefined;
});

const json = { "content-type": "application/json" };
const post = (path: string, body: unknown, headers: object = json, method = "POST") =>
  server.send(method, path, { headers, body: typeof body === "string" ? body : JSON.stringify(body) });
const violations = (answer: { json: { details: { fieldViolations: unknown }[] } }) =>
  answer.json.details[0]?.fieldViolations;

describe("query", () => {
  test.each<[string, object]>([
    ["", {}],
    ["pageSize=5", { pageSize: 5 }],
    ["page_size=5&", { pageSize: 5 }],
    ["filter.id=a%2Bb+c%26d", { filter: { id: "a+b c&d" } }],
    ["filter.displayName=x&filter.display_name", { error: "is given more than once" }],
    ["filter.place.near.dock=7", { filter: { place: { near: { dock: "7" } } } }],
    ["filter.tags=a&filter.tags=b%2Cc", { filter: { tags: ["a", "b,c"] } }],
    ["filter.marks=1&filter.marks=-2", { filter: { marks: ["1", "-2"] } }],
    [
      "filter.place.coordinates=1.5&filter.place.coordinates=-2e3",
      { filter: { place: { coordinates: [1.5, -2000] } } },
    ],
    ["filter.cargo=CARGO_TYPE_OIL", { filter: { cargo: "CARGO_TYPE_OIL" } }],
    ["filter.cargo=oil", { filter: { cargo: "CARGO_TYPE_OIL" } }],
    ["filter.cargo=2", { filter: { cargo: "CARGO_TYPE_OIL" } }],
    ["filter.cargo=99", { filter: { cargo: 99 } }],
    [
      "filter.allowed=OIL&filter.allowed=dry_bulk",
      { filter: { allowed: ["CARGO_TYPE_OIL", "CARGO_TYPE_DRY_BULK"] } },
    ],
    ["filter.done=true", { filter: { done: true } }],
    ["filter.done=yes", { error: "must be true or false" }],
    ["filter.crew=", { error: "must be an integer of 32 bits" }],
    ["filter.crew=2147483648", { error: "must be an integer of 32 bits" }],
    ["filter.crew=0x10", { error: "must be an integer of 32 bits" }],
    ["filter.tons=18446744073709551615", { filter: { tons: "18446744073709551615" } }],
    ["filter.tons=-1", { error: "must be an unsigned integer of 64 bits" }],
    ["filter.draft=Infinity", { filter: { draft: "Infinity" } }],
    ["filter.seal=-_8", { filter: { seal: "+/8=" } }],
    ["filter.seal=+/8=", { filter: { seal: "+/8=" } }],
    ["filter.at=2026-01-31T12:00:00Z", { filter: { at: "2026-01-31T12:00:00Z" } }],
    ["filter.at=soon", { error: "must be an RFC 3339 time, such as 2026-01-31T12:00:00Z" }],
    ["filter.times=2026-01-31T12:00:00Z", { filter: { times: ["2026-01-31T12:00:00Z"] } }],
    ["filter.lasts=3.5s", { filter: { lasts: "3.500s" } }],
    ["filter.mask=display_name,place.dock", { filter: { mask: "displayName,place.dock" } }],
    ["filter.mask=displayName", { filter: { mask: "displayName" } }],
    ["filter.count=7", { filter: { count: "7" } }],
    ["filter.checked=false", { filter: { checked: false } }],
    ["filter.note=", { filter: { note: "" } }],
    ["filter.extra=%7B%22a%22:1%7D", { filter: { extra: { a: 1 } } }],
    ["filter.anyValue=plain", { filter: { anyValue: "plain" } }],
    ["filter.anyValue=[1]", { filter: { anyValue: [1] } }],
    ["filter.labels[a.b]=c&filter.labels[d]=", { filter: { labels: { "a.b": "c", d: "" } } }],
    ["filter.holds[x]=oil", { filter: { holds: { x: "CARGO_TYPE_OIL" } } }],
    ["filter.labels=a", { error: "is a map: give a key in brackets" }],
    ["filter.sails=3", { filter: { sails: 3 } }],
    ["filter={}", { error: "is a message: give its fields, with a dot between" }],
    ["filter.stops=x", { error: "holds messages and cannot be a query parameter" }],
    ["utm=1", {}],
  ])("%s", async (query, expected) => {
    const answer = await server.send("GET", `/v1/voyages?${query}`);
    if ("error" in expected) {
      expect(answer.status).toBe(400);
      expect(answer.json.code).toBe(3);
      expect(violations(answer)).toMatchObject([{ description: expected.error }]);
    } else {
      expect([answer.status, host.input]).toEqual([200, expected]);
    }
  });

  test("unknown parameters are refused by name", async () => {
    const answer = await server.send(
      "GET",
      "/v1/voyages?pageSize=1&nope=1&filter.nothing=2&filter.stops.dock=1",
    );
    expect(answer.status).toBe(400);
    expect(answer.json.message).toBe("unknown query parameter: nope, filter.nothing, filter.stops.dock");
    expect(violations(answer)).toMatchObject([
      { field: "nope" },
      { field: "filter.nothing" },
      { field: "filter.stops.dock" },
    ]);
    expect(host.input).toBeUndefined();
  });

  test("a malformed escape is a bad request", async () => {
    for (const query of ["a=%zz", "%ff=1", "filter.id=%E2%82"]) {
      expect((await server.send("GET", `/v1/voyages?${query}`)).status).toBe(400);
    }
  });

  test("contradicting members of a oneof", async () => {
    const answer = await server.send("GET", "/v1/voyages?filter.fuel=a&filter.sails=1");
    expect([answer.status, answer.json.message]).toEqual([
      400,
      "filter.sails cannot be set together with filter.fuel",
    ]);
  });

  test("the path is over the query", async () => {
    await server.send("GET", "/v1/voyages/7?id=8&view=2");
    expect(host.input).toEqual({ id: "7", view: 2 });
  });

  test("a body of everything leaves no query", async () => {
    const answer = await post("/v1/voyages:import?validateOnly=true", {});
    expect(answer.status).toBe(400);
    expect(answer.json.message).toBe("unknown query parameter: validateOnly");
    expect((await post("/v1/voyages:import?utm=1", {})).status).toBe(200);
  });

  test("parameters next to a body field; those of the field itself are set aside", async () => {
    await post("/v1/voyages?validate_only=true&voyage.id=q&labels[a]=b", { displayName: "x" });
    expect(host.input).toEqual({ voyage: { displayName: "x" }, validateOnly: true, labels: { a: "b" } });
  });
});

describe("path", () => {
  test.each([
    ["/v1/voyages/a%2Fb:c", { id: "a/b:c" }],
    ["/v1/fleets/1/voyages/2", { name: "fleets/1/voyages/2" }],
    ["/v1/docks/D%207", { voyage: { place: { dock: "D 7" } } }],
    ["/v1/files/a/%2F/b", { name: "a/%2F/b" }],
  ])("%s", async (path, expected) => {
    expect((await server.send("GET", path)).status).toBe(200);
    expect(host.input).toEqual(expected);
  });

  test("a malformed escape in a variable", async () => {
    const answer = await server.send("GET", "/v1/voyages/%ff");
    expect([answer.status, answer.json.message]).toEqual([400, "id is not percent-encoded UTF-8"]);
  });

  test("an absolute request target", async () => {
    const text = "GET http://h.test/v1/voyages/9 HTTP/1.1\r\nhost: h.test\r\nconnection: close\r\n\r\n";
    expect(await exchangeRaw(server.port, text)).toContain("200 OK");
    expect(host.input).toEqual({ id: "9" });
  });
});

describe("body", () => {
  test("a field, with the path over it", async () => {
    await post("/v1/voyages/7", { id: "8", place: { dock: "A" } }, json, "PATCH");
    expect(host.input.voyage).toEqual({ id: "7", place: { dock: "A" } });
  });

  test("everything", async () => {
    await post("/v1/voyages:import", { voyage: { id: "1" }, validate_only: true });
    expect(host.input).toEqual({ voyage: { id: "1" }, validateOnly: true });
  });

  test("a map field", async () => {
    await post("/v1/voyages/7/tags", { a: "b" }, json, "PUT");
    expect(host.input).toEqual({ voyage: { id: "7" }, labels: { a: "b" } });
  });

  test("where none is declared is ignored", async () => {
    const answer = await post("/v1/voyages/7", "not json at all", { "content-type": "text/plain" }, "PURGE");
    expect([answer.status, host.input]).toEqual([200, { id: "7" }]);
  });

  test("an empty body is an empty message", async () => {
    expect((await server.send("POST", "/v1/voyages")).status).toBe(200);
    expect(host.input).toEqual({});
  });

  test.each<[string, object, number]>([
    ["application/json; charset=utf-8", {}, 200],
    ["application/vnd.x+json", {}, 200],
    ["Application/JSON", {}, 200],
    ["", {}, 200],
    ["application/json; charset=latin1", {}, 415],
    ["text/plain", {}, 415],
    ["application/x-www-form-urlencoded", {}, 415],
    ["application/json", { "content-encoding": "zstd-x" }, 415],
  ])("content type %j with %j", async (type, more, status) => {
    const answer = await post("/v1/voyages", "{}", { ...(type && { "content-type": type }), ...more });
    expect(answer.status).toBe(status);
    if (status === 415) expect(answer.json.code).toBe(3);
  });

  test("content codings, and the limit on what comes out of them", async () => {
    const body = gzipSync('{"id":"z"}');
    const headers = { ...json, "content-encoding": "gzip" };
    expect((await server.send("POST", "/v1/voyages", { headers, body })).status).toBe(200);
    expect(host.input).toEqual({ voyage: { id: "z" } });
    const bomb = gzipSync(JSON.stringify({ id: "z".repeat(100_000) }));
    const refused = await server.send("POST", "/v1/voyages", { headers, body: bomb });
    expect([refused.status, refused.json.code]).toEqual([413, 8]);
    const broken = await server.send("POST", "/v1/voyages", { headers, body: "plain" });
    expect(broken.status).toBe(400);
  });

  test("a body over the limit", async () => {
    const answer = await post("/v1/voyages", { id: "z".repeat(5000) });
    expect([answer.status, answer.json.code]).toEqual([413, 8]);
    const chunked = { ...json, "transfer-encoding": "chunked" };
    expect((await post("/v1/voyages", { id: "z".repeat(5000) }, chunked)).status).toBe(413);
  });

  test.each([
    ["", "[1"],
    ["is not valid JSON", "{"],
    ["is not valid JSON", '{"id":1,}'],
    ["is nested deeper than 100 levels", `{"extra":${"[".repeat(1000)}${"]".repeat(1000)}}`],
  ])("malformed: %s", async (message, body) => {
    const answer = await post("/v1/voyages", body);
    expect(answer.status).toBe(400);
    expect(answer.json.message).toContain(message);
    expect(answer.text).not.toMatch(/position|Unexpected|token/);
  });

  test("malformed UTF-8", async () => {
    const body = Buffer.from([0x22, 0xff, 0x22]);
    const answer = await server.send("POST", "/v1/voyages", { headers: json, body });
    expect([answer.status, answer.json.message]).toEqual([400, "the body is not UTF-8"]);
  });

  test.each<[unknown, string, string]>([
    [{ voyage: { place: { coordinates: [1, "x"] } } }, "voyage.place.coordinates[1]", "must be a number"],
    [
      { voyage: { stops: [{}, { takes: "SAND" }] } },
      "voyage.stops[1].takes",
      "must be one of CARGO_TYPE_DRY_BULK, CARGO_TYPE_OIL",
    ],
    [{ voyage: { display_name: 7 } }, "voyage.display_name", "must be a string"],
    [
      { voyage: { displayName: "a", display_name: "b" } },
      "voyage.display_name",
      "is the same field as displayName",
    ],
    [{ voyage: { nope: 1 } }, "voyage.nope", "is not a field of Voyage"],
    [{ nope: 1 }, "nope", "is not a field of CreateRequest"],
    [{ voyage: { fuel: "a", sails: 1 } }, "voyage.sails", "cannot be set together with fuel"],
    [{ voyage: { crew: 1.5 } }, "voyage.crew", "must be an integer of 32 bits"],
    [{ voyage: { place: [] } }, "voyage.place", "must be an object"],
    [{ voyage: { stops: {} } }, "voyage.stops", "must be an array"],
    [{ voyage: { stops: [null] } }, "voyage.stops[0]", "must be an object"],
    [{ voyage: { labels: { a: 1 } } }, 'voyage.labels["a"]', "must be a string"],
    [{ voyage: { berths: { x: {} } } }, 'voyage.berths["x"]', "has a key of the wrong type"],
    [{ voyage: { berths: { 1: { dock: false } } } }, 'voyage.berths["1"].dock', "must be a string"],
    [{ voyage: { at: "noon" } }, "voyage.at", "must be an RFC 3339 time, such as 2026-01-31T12:00:00Z"],
    [{ voyage: { seal: "*" } }, "voyage.seal", "must be a base64 string"],
    [{ voyage: { count: {} } }, "voyage.count", "must be an integer of 64 bits"],
    [{ voyage: { extra: [] } }, "voyage.extra", "must be a JSON object"],
    [
      { voyage: { detail: { "@type": "type.googleapis.com/no.Such" } } },
      "voyage.detail",
      'must be an object with a known "@type"',
    ],
    [[], "", "must be an object"],
    [null, "", "must be an object"],
  ])("%j", async (body, field, description) => {
    const answer = await post("/v1/voyages:import", body);
    expect(answer.status).toBe(400);
    expect(violations(answer)).toEqual([{ ...(field && { field }), description }]);
    expect(answer.json.message).toBe(`${field || "the body"} ${description}`);
  });

  test("all that is wrong is told, below the name of the body's field", async () => {
    const answer = await post("/v1/voyages", { crew: "many", place: { dock: 1 }, x: 1 });
    expect(violations(answer)).toMatchObject([
      { field: "voyage.crew" },
      { field: "voyage.place.dock" },
      { field: "voyage.x" },
    ]);
  });

  test("a key that is a part of every object", async () => {
    await post("/v1/voyages:import", '{"labels":{"__proto__":"x","constructor":"y"}}');
    expect(Object.entries(host.input.labels)).toEqual([
      ["__proto__", "x"],
      ["constructor", "y"],
    ]);
    expect((await post("/v1/voyages:import", '{"__proto__":{}}')).status).toBe(400);
    expect((await server.send("GET", "/v1/voyages?constructor=1&__proto__.x=1")).status).toBe(400);
  });

  test("Any by its registry", async () => {
    const detail = { "@type": "type.googleapis.com/voyages.v1.Place", dock: "A" };
    await post("/v1/voyages", { detail });
    expect(host.input.voyage.detail).toEqual(detail);
  });
});

describe("spelling on input", () => {
  test("aliases, further spellings and any case", async () => {
    const headers = json;
    const body = JSON.stringify({
      title: "T",
      cargo: "Crude",
      allowed: ["oil", 1],
      holds: { a: "dry_bulk" },
      stops: [{ takes: "cargo_type_oil" }],
    });
    const answer = await strange.send("POST", "/v1/voyages", { headers, body });
    expect(answer.status).toBe(200);
    expect(host.input.voyage).toEqual({
      displayName: "T",
      cargo: "CARGO_TYPE_OIL",
      allowed: ["CARGO_TYPE_OIL", "CARGO_TYPE_DRY_BULK"],
      holds: { a: "CARGO_TYPE_DRY_BULK" },
      stops: [{ takes: "CARGO_TYPE_OIL" }],
    });
    await strange.send("GET", "/v1/voyages?filter.label=q");
    expect(host.input).toEqual({ filter: { displayName: "q" } });
  });

  test("an alias and the name of the same field", async () => {
    const body = JSON.stringify({ title: "T", label: "L" });
    const answer = await strange.send("POST", "/v1/voyages", { headers: json, body });
    expect(violations(answer)).toEqual([
      { field: "voyage.label", description: "is the same field as title" },
    ]);
  });
});

describe("PATCH", () => {
  const patch = async (body: unknown, query = "") => {
    await post(`/v1/voyages/7${query}`, body, json, "PATCH");
    return host.input.updateMask;
  };
  test.each<[object, string]>([
    [{ displayName: "x" }, "displayName"],
    [{ display_name: null, crew: 0 }, "displayName,crew"],
    [{ place: { dock: "A", near: { dock: "B" } } }, "place.dock,place.near.dock"],
    [{ place: {}, stops: [], labels: { a: "b" } }, "place,stops,labels"],
    [{ extra: { a: { b: 1 } }, at: "2026-01-31T12:00:00Z" }, "extra,at"],
    [{ id: "7", crew: 1 }, "crew"],
    [{}, ""],
  ])("%j", async (body, mask) => {
    expect(await patch(body)).toBe(mask);
  });

  test("a mask that is given stays", async () => {
    expect(await patch({ displayName: "x", crew: 3 }, "?update_mask=crew")).toBe("crew");
    expect(await patch({ displayName: "x" }, "?updateMask=display_name,crew")).toBe("displayName,crew");
  });
});

describe("HttpBody", () => {
  const data = Buffer.from([0, 255, 10, 13]);
  test("up and down as it is", async () => {
    host.respond = () => ({ contentType: "image/x", data: data.toString("base64") });
    const headers = { "content-type": "application/x-thing; a=b" };
    const answer = await server.send("POST", "/v1/echo", { headers, body: data });
    expect(host.input).toEqual({ contentType: "application/x-thing; a=b", data: data.toString("base64") });
    expect([answer.status, answer.headers["content-type"]]).toEqual([200, "image/x"]);
    expect(answer.bytes.equals(data)).toBe(true);
  });

  test("in a field, next to path and query", async () => {
    await server.send("POST", "/v1/blobs/a%2Fb?title=T", { body: data });
    expect(host.input).toEqual({ id: "a/b", title: "T", blob: { data: data.toString("base64") } });
  });

  test("in pieces", async () => {
    await server.send("POST", "/v1/blobs/1:stream", { headers: { "content-type": "text/csv" }, body: "a,b" });
    expect(host.input).toEqual([
      { id: "1", blob: { contentType: "text/csv", data: Buffer.from("a,b").toString("base64") } },
    ]);
  });

  test("JSON is bytes here", async () => {
    await server.send("POST", "/v1/echo", { headers: json, body: "{" });
    expect(host.input.data).toBe("ew==");
  });
});

describe("request streams", () => {
  const lines = { "content-type": "application/x-ndjson" };
  test("a message for each line, with the path in each", async () => {
    await post("/v1/fleets/f/ticks", '{"text":"a"}\n\n{"sequence":"2","cargo":"oil"}', lines);
    expect(host.input).toEqual([
      { fleet: "f", tick: { text: "a" } },
      { fleet: "f", tick: { sequence: "2", cargo: "CARGO_TYPE_OIL" } },
    ]);
  });

  test("a JSON array, or one message", async () => {
    await post("/v1/ticks:ingest", '[{"fleet":"a"},{"fleet":"b"}]');
    expect(host.input).toEqual([{ fleet: "a" }, { fleet: "b" }]);
    await post("/v1/ticks:ingest", '{"fleet":"a"}');
    expect(host.input).toEqual([{ fleet: "a" }]);
  });

  test("many lines in pieces of any size, over the limit of one", async () => {
    const body = Array.from({ length: 500 }, (_, i) => `{"fleet":"${"é".repeat(20)}${i}"}\r\n`).join("");
    await post("/v1/ticks:ingest", body, { ...lines, "transfer-encoding": "chunked" });
    expect(host.input).toHaveLength(500);
    expect(host.input[499].fleet).toMatch(/^é+499$/);
  });

  test("a wrong line says which", async () => {
    const answer = await post("/v1/ticks:ingest", '{"fleet":"a"}\n{"tick":{"text":1}}\n', lines);
    expect([answer.status, answer.json.message]).toEqual([400, "message 2: tick.text must be a string"]);
    expect(violations(answer)).toEqual([{ field: "tick.text", description: "must be a string" }]);
    expect(host.input).toEqual([{ fleet: "a" }]);
  });

  test("a line over the limit, and what is no JSON at all", async () => {
    expect((await post("/v1/ticks:ingest", `{"fleet":"${"z".repeat(5000)}"}`, lines)).status).toBe(413);
    expect((await post("/v1/ticks:ingest", "a\nb", { "content-type": "text/csv" })).status).toBe(415);
  });
});

test("methods by header", async () => {
  const headers = { "x-http-method-override": "PATCH", ...json };
  await server.send("POST", "/v1/voyages/7", { headers, body: '{"crew":1}' });
  expect(host.input).toEqual({ voyage: { id: "7", crew: 1 }, updateMask: "crew" });
  expect((await server.send("GET", "/v1/voyages/7", { headers })).status).toBe(200);
  expect(host.context?.requestMethod).toBe("GET");
});

test("timeouts and the rest of the context", async () => {
  for (const headers of [
    { "connect-timeout-ms": "5000" },
    { "x-server-timeout": "5" },
    { "grpc-timeout": "5S" },
  ]) {
    host.respond = (_, context) => {
      expect(context.timeoutMs()).toBeGreaterThan(4000);
      expect(context.timeoutMs()).toBeLessThanOrEqual(5000);
      expect(context.signal.aborted).toBe(false);
      return {};
    };
    expect((await server.send("GET", "/v1/voyages/7?view=1", { headers })).status).toBe(200);
  }
  expect(host.context).toMatchObject({ protocolName: "rest", requestMethod: "GET" });
  expect(host.context?.url).toBe(`http://127.0.0.1:${server.port}/v1/voyages/7?view=1`);
  host.respond = () => new Promise(() => {});
  const late = await server.send("GET", "/v1/voyages/7", { headers: { "connect-timeout-ms": "30" } });
  expect([late.status, late.json.code]).toEqual([504, 4]);
});

describe("any message", () => {
  const voyage = messageOf(registry, "voyages.v1.Voyage");
  const get = messageOf(registry, "voyages.v1.ListRequest");
  const leaves = fc.record(
    {
      id: fc.string({ unit: "grapheme" }),
      displayName: fc.string(),
      cargo: fc.constantFrom(0, 1, 2),
      done: fc.boolean(),
      crew: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
      tons: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      // JSON.stringify has no negative zero.
      draft: fc.double().filter((n) => !Object.is(n, -0)),
      seal: fc.uint8Array(),
      tags: fc.array(fc.string()),
      marks: fc.array(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })),
      labels: fc.dictionary(
        fc.string({ unit: "grapheme" }).filter((k) => !/^__proto__$/.test(k)),
        fc.string(),
      ),
      note: fc.string(),
      rank: fc.integer({ min: -5, max: 5 }),
    },
    { requiredKeys: [] },
  );

  test("bound from the body it was rendered as", async () => {
    await fc.assert(
      fc.asyncProperty(leaves, fc.array(leaves, { maxLength: 2 }), async (init, stops) => {
        const message = create(voyage, {
          ...init,
          stops: stops.map((s) => ({ dock: s.id ?? "", takes: s.cargo ?? 0 })),
        } as Record<string, unknown>);
        const body = JSON.stringify(toJson(voyage, message));
        expect((await strange.send("POST", "/v1/voyages", { headers: json, body })).status).toBe(200);
        expect(host.input.voyage ?? {}).toEqual(toJson(voyage, message));
      }),
      { numRuns: 60 },
    );
  });

  test("bound from the query it was rendered as", async () => {
    await fc.assert(
      fc.asyncProperty(leaves, async (init) => {
        const message = create(get, { filter: create(voyage, init as Record<string, unknown>) } as Record<
          string,
          unknown
        >);
        const query = renderQuery(get, message);
        expect((await strange.send("GET", `/v1/voyages?${query}`)).status).toBe(200);
        const expected = toJson(get, message) as JsonObject;
        expect(host.input.filter ?? {}).toEqual(expected.filter);
      }),
      { numRuns: 60 },
    );
  });

  /** By the client's rule of the specification: leaves by path, lists by repetition. */
  function renderQuery(desc: DescMessage, message: Message): string {
    const parameters: string[] = [];
    const walk = (value: unknown, path: string): void => {
      if (Array.isArray(value)) for (const each of value) walk(each, path);
      else if (typeof value === "object" && value !== null) {
        for (const [key, each] of Object.entries(value)) {
          walk(each, path === "" ? key : /labels$/.test(path) ? `${path}[${key}]` : `${path}.${key}`);
        }
      } else parameters.push(`${encodeURIComponent(path)}=${encodeURIComponent(String(value))}`);
    };
    walk(toJson(desc, message), "");
    return parameters.join("&");
  }
});
