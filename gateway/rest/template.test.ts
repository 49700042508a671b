import fc from "fast-check";
import { expect, test } from "vitest";
import { parseTemplate } from "./template.ts";

const shape = (text: string) => {
  const { segments, variables, verb } = parseTemplate(text);
  const path = segments.map((s) => (s.kind === "literal" ? s.text : s.kind === "single" ? "*" : "**"));
  const held = variables.map((v) => `${v.field}[${v.start},${v.end})${v.multi ? "+" : ""}`);
  return [path.join("|"), held.join(" "), verb];
};

test.each([
  ["/", "", "", ""],
  ["/v1", "v1", "", ""],
  ["/v1/*", "v1|*", "", ""],
  ["/v1/**", "v1|**", "", ""],
  ["/v1/{id}", "v1|*", "id[1,2)", ""],
  ["/v1/{id=*}", "v1|*", "id[1,2)", ""],
  ["/v1/{id=**}", "v1|**", "id[1,2)+", ""],
  ["/v1/{name=shelves/*}", "v1|shelves|*", "name[1,3)+", ""],
  ["/v1/{name=shelves/*/books/*}/x/{y}", "v1|shelves|*|books|*|x|*", "name[1,5)+ y[6,7)", ""],
  ["/v1/{a.b.c}", "v1|*", "a.b.c[1,2)", ""],
  ["/v1/{a=lit}", "v1|lit", "a[1,2)", ""],
  ["/v1/x:cancel", "v1|x", "", "cancel"],
  ["/v1/{id}:cancel", "v1|*", "id[1,2)", "cancel"],
  ["/v1/**:purge", "v1|**", "", "purge"],
  ["/v1/a:b/c", "v1|a:b|c", "", ""],
  ["/v1/x:a:b", "v1|x", "", "a:b"],
  ["/v1/a%20b", "v1|a b", "", ""],
  ["/v1/{name=a/**}:watch", "v1|a|**", "name[1,3)+", "watch"],
  ["/v1/~a_b-c.d", "v1|~a_b-c.d", "", ""],
])("%s", (text, path, held, verb) => {
  expect(shape(text)).toEqual([path, held, verb]);
});

test.each([
  [""],
  ["v1"],
  ["/v1/"],
  ["/v1//x"],
  ["//"],
  ["/v1/**/x"],
  ["/v1/{id=**}/x"],
  ["/v1/**/**"],
  ["/v1/***"],
  ["/v1/a*"],
  ["/v1/{id"],
  ["/v1/id}"],
  ["/v1/{}"],
  ["/v1/{=*}"],
  ["/v1/{id=}"],
  ["/v1/{a={b}}"],
  ["/v1/{a.}"],
  ["/v1/{1a}"],
  ["/v1/{a}{b}"],
  ["/v1/x{a}"],
  ["/v1/{a}x"],
  ["/v1/{a}/{a}"],
  ["/v1/x:"],
  ["/:verb"],
  ["/v1/x:a*"],
  ["/v1/a b"],
  ["/v1/%zz"],
  ["/v1/%ff"],
  ["/v1/x?y"],
  ["/v1/{a}:v/x:"],
])("refuses %j", (text) => {
  expect(() => parseTemplate(text)).toThrow(`invalid path template "${text}"`);
});

test("any text is refused with a reason or parsed", () => {
  const characters = fc.constantFrom(..."/{}=*:.a1%2 ");
  fc.assert(
    fc.property(fc.string({ unit: characters, maxLength: 16 }), (rest) => {
      try {
        const { segments, variables } = parseTemplate(`/${rest}`);
        for (const v of variables) expect(v.end).toBeLessThanOrEqual(segments.length);
      } catch (error) {
        expect((error as Error).message).toContain("invalid path template");
      }
    }),
    { numRuns: 2000 },
  );
});
