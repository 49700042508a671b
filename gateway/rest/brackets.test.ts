import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Host } from "./testdata/host.ts";
import { type Served, serve } from "./testdata/server.ts";

const host = new Host();
let server: Served;

beforeAll(async () => {
  server = await serve(
    host.transcoder({
      dialect: () => ({
        foldsBrackets: (field) => field.name === "display_name",
        enumStyleOf: (desc) => (desc.name === "CargoType" ? "short-lower" : undefined),
      }),
    }),
  );
});
afterAll(() => server.close());
beforeEach(() => {
  host.input = undefined;
  host.respond = undefined;
});

/** The name that reached the handler, or what is said of the refusal. */
async function nameOf(query: string) {
  const answer = await server.send("GET", `/v1/voyages?${query}`);
  return answer.status === 200 ? host.input.filter?.displayName : answer.json.message;
}

describe("brackets after a field that gathers them", () => {
  test.each([
    ["filter.display_name[status]=QUEUED", '{"status":"QUEUED"}'],
    ["filter.displayName[a][gte]=1&filter.display_name[a][lt]=9", '{"a":{"gte":"1","lt":"9"}}'],
    ["filter.displayName[a]=1&filter.displayName[b][c][d]=%5B%22", '{"a":"1","b":{"c":{"d":"[\\""}}}'],
    ["filter.displayName[__proto__][x]=1", '{"__proto__":{"x":"1"}}'],
    ["filter.displayName[]=1", '{"":"1"}'],
    ["filter.displayName=plain", "plain"],
  ])("%s", async (query, expected) => {
    expect(await nameOf(query)).toBe(expected);
    expect(({} as { x?: string }).x).toBeUndefined();
  });

  test.each([
    "filter.displayName[a]=1&filter.displayName[a]=2",
    "filter.displayName[a]=1&filter.displayName[a][b]=2",
    "filter.displayName[a][b]=1&filter.displayName[a]=2",
    "filter.displayName={}&filter.displayName[a]=2",
    "filter.displayName[a]=1&filter.displayName={}",
  ])("%s contradicts itself", async (query) => {
    expect(await nameOf(query)).toMatch(/is given more than once$/);
  });

  test("other fields take none", async () => {
    expect(await nameOf("filter.id[a]=1")).toBe("unknown query parameter: filter.id[a]");
  });
});

test("an enum with a style of its own is written in it, and the others are not", async () => {
  host.respond = () => ({
    cargo: "CARGO_TYPE_OIL",
    allowed: ["CARGO_TYPE_DRY_BULK"],
    place: { takes: "CARGO_TYPE_OIL" },
    mode: "HTTP_MODE_ON",
  });
  const { json } = await server.send("GET", "/v1/voyages/1");
  expect(json).toMatchObject({
    cargo: "oil",
    allowed: ["dry_bulk"],
    place: { takes: "oil" },
    mode: "HTTP_MODE_ON",
  });
});
