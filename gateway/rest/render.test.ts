import { create, equals, fromJson, type JsonValue, type Message } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HttpRuleSchema } from "#gen/google/api/http_pb.js";
import { Binding } from "./binding.ts";
import { Refusals } from "./errors.ts";
import { splitTarget } from "./http.ts";
import { type Rendered, type Rule, render, rulesOf, Spelling } from "./index.ts";
import { parseQuery } from "./query.ts";
import { Router } from "./router.ts";
import { parseTemplate } from "./template.ts";
import { messages, rules } from "./testdata/arbitrary.ts";
import { serviceOf } from "./testdata/contract.ts";
import { Host, registry } from "./testdata/host.ts";
import { serve } from "./testdata/server.ts";

const { method } = serviceOf(registry, "voyages.v1.Voyages");
const methods = Object.values(method);
const of = (name: string) => methods.find((m) => m.name === name) as (typeof methods)[number];
const spelling = new Spelling({}, registry);
const refusals = new Refusals();

/** What a server makes of a request, without the wire between. */
function bind(rule: Rule, { httpMethod, path: target, body, contentType = "" }: Rendered): Message {
  const template = parseTemplate(rule.template);
  const router = new Router<Binding>();
  router.add(rule.httpMethod, template, "the rule", new Binding(rule, template, spelling, refusals));
  const { path, query } = splitTarget(target);
  const found = router.find(httpMethod, path);
  if (found?.kind !== "route") throw new Error(`${httpMethod} ${path} is not ${rule.template}`);
  const bound = found.value.target(found.captures, parseQuery(query));
  if (body instanceof Uint8Array) return found.value.fromBytes(bound, { contentType, data: body });
  return found.value.fromJson(bound, body === undefined ? undefined : (JSON.parse(body) as JsonValue));
}

function ruleOf(name: string, init: Parameters<typeof create<typeof HttpRuleSchema>>[1]): Rule {
  return rulesOf(of(name), create(HttpRuleSchema, init))[0] as Rule;
}

describe("what a server binds of what a client rendered is the message", () => {
  // A PATCH without a mask has one made for it.
  const names = ["Get", "List", "Create", "Upload", "Cancel"];
  test.each(names)("for random rules of %s", (name) => {
    let carried = 0;
    let inexpressible = 0;
    fc.assert(
      fc.property(rules(of(name)), messages(of(name).input), fc.boolean(), (init, message, protoNames) => {
        const rule = ruleOf(name, init);
        let rendered: Rendered;
        try {
          rendered = render(rule, message, { registry, protoNames });
        } catch (error) {
          expect((error as Error).message).toMatch(
            /does not match the pattern|is in the path and is not set|segments "." and|in a query|(?:query|bytes) cannot say|cannot be sent/,
          );
          inexpressible++;
          return;
        }
        carried++;
        const back = bind(rule, rendered);
        expect(equals(of(name).input, back, message), JSON.stringify(rendered)).toBe(true);
      }),
      { numRuns: 1500 },
    );
    expect(carried).toBeGreaterThan(inexpressible / 20);
  });
});

test("over the wire, for the rules of the contract", async () => {
  const host = new Host();
  const server = await serve(host.transcoder());
  const unary = ["Get", "List", "Create", "Upload"];
  await fc.assert(
    fc.asyncProperty(
      fc
        .constantFrom(...unary)
        .chain((name) => fc.tuple(fc.constant(name), messages(of(name).input), fc.nat(3))),
      async ([name, message, pick]) => {
        const all = rulesOf(of(name));
        const rule = all[pick % all.length] as Rule;
        let rendered: Rendered;
        try {
          rendered = render(rule, message, { registry });
        } catch {
          return;
        }
        // Node's limit for a request line and its headers.
        fc.pre(rendered.path.length < 8_000 && !/^\/v1\/voyages\/latest$/.test(rendered.path));
        const { httpMethod, path, body, contentType } = rendered;
        const headers = contentType === undefined ? {} : { "content-type": encodeURI(contentType) };
        fc.pre(contentType === undefined || headers["content-type"] === contentType);
        host.message = undefined;
        const answer = await server.send(httpMethod, path, { headers, ...(body !== undefined && { body }) });
        expect([answer.status, path, answer.status === 200 ? "" : answer.text]).toEqual([200, path, ""]);
        expect(equals(of(name).input, host.message as unknown as Message, message)).toBe(true);
      },
    ),
    { numRuns: 150 },
  );
  await server.close();
});

describe("render", () => {
  const get = (json: JsonValue) => fromJson(of("Get").input, json, { registry });
  test.each<[string, object, JsonValue, string]>([
    ["Get", { get: "/v1/voyages/{id}" }, { id: "a/b:c é!" }, "GET /v1/voyages/a%2Fb%3Ac%20%C3%A9%21"],
    ["Get", { get: "/v1/{name=x/*}" }, { name: "x/a b", view: 2 }, "GET /v1/x/a%20b?view=2"],
    ["Get", { get: "/v1/{name=**}:go" }, { name: "a//b/" }, "GET /v1/a//b/:go"],
    ["Get", { get: "/v1/*/{id}" }, { id: "1" }, "GET /v1/-/1"],
    [
      "Get",
      { get: "/v1/{voyage.id}" },
      { voyage: { id: "1", tags: ["a", "b"] } },
      "GET /v1/1?voyage.tags=a&voyage.tags=b",
    ],
    [
      "Get",
      { get: "/v1" },
      { voyage: { displayName: "x", labels: { "a.b": "c" } } },
      "GET /v1?voyage.displayName=x&voyage.labels%5Ba.b%5D=c",
    ],
  ])("%s %j of %j is %s", (name, { get: template }: { get?: string }, json, expected) => {
    const rule = ruleOf(name, { pattern: { case: "get", value: template as string } });
    const { httpMethod, path } = render(rule, get(json), { registry });
    expect(`${httpMethod} ${path}`).toBe(expected);
  });

  test.each<[string, JsonValue, string]>([
    ["/v1/{id}", {}, '"" does not match the pattern of id'],
    ["/v1/{name=x/*}", { name: "y/1" }, '"y/1" does not match the pattern of name'],
    ["/v1/{id}", { id: ".." }, "HTTP clients remove"],
    ["/v1/{voyage.id}", {}, "voyage.id is in the path and is not set"],
    ["/v1", { voyage: {} }, "voyage is set and empty"],
    ["/v1", { voyage: { stops: [{}] } }, "voyage.stops holds messages"],
  ])("%s cannot carry %j", (template, json, message) => {
    const rule = ruleOf("Get", { pattern: { case: "get", value: template } });
    expect(() => render(rule, get(json))).toThrow(message);
  });

  test("in the names of the contract", () => {
    const rule = ruleOf("Get", { pattern: { case: "post", value: "/v1" }, body: "voyage" });
    const { body, contentType } = render(rule, get({ voyage: { displayName: "x" } }), { protoNames: true });
    expect([body, contentType]).toEqual(['{"display_name":"x"}', "application/json"]);
  });
});
