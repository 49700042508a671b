import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { type Answer, NoSuchReference, referencesIn, resolve, type Template } from "./references.ts";

const template = (parts: Partial<Template>): Template => ({
  path: "/",
  headers: {},
  body: undefined,
  ...parts,
});
const answers = new Map<string, Answer>([
  [
    "create",
    {
      status: 201,
      headers: { etag: '"7"' },
      json: { job: { id: "a/b c", tags: ["x", { y: null }], count: 3, open: true }, "": 0 },
    },
  ],
  ["empty", { status: 204, headers: {} }],
]);
const bodyOf = (body: Template["body"]) => resolve(template({ body }), answers).body;

describe("a string that is one reference", () => {
  test.each([
    ["{{create.body.job.id}}", "a/b c"],
    ["{{ create.body.job.id }}", "a/b c"],
    ["{{create.body.job.count}}", 3],
    ["{{create.body.job.open}}", true],
    ["{{create.body.job.tags}}", ["x", { y: null }]],
    ["{{create.body.job.tags.1}}", { y: null }],
    ["{{create.body.job.tags.1.y}}", null],
    ["{{create.headers.ETag}}", '"7"'],
    ["{{create.status}}", 201],
  ])("%s takes the value with its type", (text, value) => {
    expect(bodyOf({ deep: [text] })).toEqual({ deep: [value] });
  });

  test.each([
    ["{{create.body.job.name}}", "the answer has nothing there"],
    ["{{create.body.job.tags.length}}", "the answer has nothing there"],
    ["{{create.body.job.tags.2}}", "the answer has nothing there"],
    ["{{create.body.toString}}", "the answer has nothing there"],
    ["{{create.body.job.id.0}}", "the answer has nothing there"],
    ["{{create.headers.location}}", "the answer has nothing there"],
    ["{{empty.body}}", "the answer has nothing there"],
    ["{{later.status}}", "no earlier operation is called later"],
  ])("%s leads nowhere", (text, why) => {
    expect(() => bodyOf(text)).toThrow(`${text}: ${why}`);
    expect(() => bodyOf(text)).toThrow(NoSuchReference);
  });
});

describe("references in a text", () => {
  it("are spelled out", () => {
    expect(bodyOf("{{create.status}}: {{create.body.job.id}}, {{create.body.job.open}}")).toBe(
      "201: a/b c, true",
    );
  });

  it("are percent-encoded in a path and as they are in a header", () => {
    const { path, headers } = resolve(
      template({
        path: "/v3/jobs/{{create.body.job.id}}?n={{create.body.job.count}}",
        headers: { "if-match": "{{create.headers.etag}}" },
      }),
      answers,
    );
    expect([path, headers]).toEqual(["/v3/jobs/a%2Fb%20c?n=3", { "if-match": '"7"' }]);
  });

  it("cannot lead to what is no text", () => {
    for (const end of ["job", "job.tags", "job.tags.1.y"]) {
      expect(() => resolve(template({ path: `/{{create.body.${end}}}` }), answers)).toThrow("part of a text");
    }
  });
});

it("leaves other braces alone", () => {
  const body = [
    "{{name}}",
    "{{user.name}}",
    "{{create}}",
    "{{create.other.x}}",
    "{create.status}",
    "{{a b.body}}",
  ];
  expect(bodyOf(body)).toEqual(body);
  expect(referencesIn(template({ body }))).toEqual(new Set());
});

it("finds references wherever they can be", () => {
  const found = referencesIn({
    path: "/{{a.status}}/{{b.body.x}}",
    headers: { x: "{{c.headers.y}}" },
    body: [{ z: "and {{d.body}} and {{a.body}}" }],
  });
  expect(found).toEqual(new Set(["a", "b", "c", "d"]));
});

it("gives a body without references as it is", () => {
  fc.assert(
    fc.property(fc.jsonValue(), (json) => {
      fc.pre(!JSON.stringify(json).includes("{{"));
      expect(bodyOf(json as never)).toEqual(json);
    }),
  );
});
