import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeCapture, Router } from "./router.ts";
import { parseTemplate } from "./template.ts";

function routerOf(...routes: string[]): Router<string> {
  const router = new Router<string>();
  for (const route of routes) {
    const [method = "", path = ""] = route.split(" ");
    router.add(method, parseTemplate(path), route, route);
  }
  return router;
}

/** The route and its captures, or the methods allowed, or nothing. */
function found(router: Router<string>, request: string): unknown {
  const [method = "", path = ""] = request.split(" ");
  const result = router.find(method, path);
  if (result?.kind !== "route") return result?.allow.join();
  return [result.value, ...result.captures.map((c) => `${c.field}=${decodeCapture(c)}`)];
}

const router = routerOf(
  "GET /v1/voyages",
  "POST /v1/voyages",
  "GET /v1/voyages/{id}",
  "DELETE /v1/voyages/{id}",
  "GET /v1/voyages/latest",
  "POST /v1/voyages/{id}:cancel",
  "POST /v1/voyages/{id}:cancel:now",
  "GET /v1/voyages:search",
  "GET /v1/{name=fleets/*/voyages/*}",
  "GET /v1/files/{path=**}",
  "POST /v1/files/special/{id}",
  "GET /v1/files/{path=**}:stat",
  "GET /v1/a%20b/{x.y}",
  "* /v1/any/{id}",
  "PUT /v1/any/{id}",
  "GET /v1/{kind}/{id}/deep",
  "PUT /v1/voyages/{id}/deep",
  "GET /",
);

test.each<[string, unknown]>([
  ["GET /", ["GET /"]],
  ["GET /v1/voyages", ["GET /v1/voyages"]],
  ["GET /v1/voyages/", undefined],
  ["GET /v1//voyages", undefined],
  ["GET //v1/voyages", undefined],
  ["GET /v1/nothing", undefined],
  ["GET /v1/voyages/7", ["GET /v1/voyages/{id}", "id=7"]],
  ["GET /v1/voyages/7/", undefined],
  // Percent-encoding: one decoding, a slash in an id is no separator, literals compare decoded.
  ["GET /v1/voyages/a%2Fb", ["GET /v1/voyages/{id}", "id=a/b"]],
  ["GET /v1/voyages/a%252Fb", ["GET /v1/voyages/{id}", "id=a%2Fb"]],
  ["GET /v1/voyages/%E2%82%AC+%2B", ["GET /v1/voyages/{id}", "id=€++"]],
  ["GET /v1/%76oyages/7", ["GET /v1/voyages/{id}", "id=7"]],
  ["GET /v1/a%20b/7", ["GET /v1/a%20b/{x.y}", "x.y=7"]],
  ["GET /v1/voyages/..", ["GET /v1/voyages/{id}", "id=.."]],
  ["GET /v1/voyages/!$&'()+,;=@~", ["GET /v1/voyages/{id}", "id=!$&'()+,;=@~"]],
  // Precedence, going back by method.
  ["GET /v1/voyages/latest", ["GET /v1/voyages/latest"]],
  ["DELETE /v1/voyages/latest", ["DELETE /v1/voyages/{id}", "id=latest"]],
  ["GET /v1/voyages/7/deep", ["GET /v1/{kind}/{id}/deep", "kind=voyages", "id=7"]],
  ["PUT /v1/voyages/7/deep", ["PUT /v1/voyages/{id}/deep", "id=7"]],
  ["PUT /v1/x/7/deep", "GET,HEAD,OPTIONS"],
  ["GET /v1/files/special/1", ["GET /v1/files/{path=**}", "path=special/1"]],
  ["POST /v1/files/special/1", ["POST /v1/files/special/{id}", "id=1"]],
  // Several segments.
  ["GET /v1/fleets/1/voyages/2", ["GET /v1/{name=fleets/*/voyages/*}", "name=fleets/1/voyages/2"]],
  [
    "GET /v1/fleets/a%2fb/voyages/c%20d",
    ["GET /v1/{name=fleets/*/voyages/*}", "name=fleets/a%2fb/voyages/c d"],
  ],
  ["GET /v1/files", ["GET /v1/files/{path=**}", "path="]],
  ["GET /v1/files/", ["GET /v1/files/{path=**}", "path="]],
  ["GET /v1/files/a//b/", ["GET /v1/files/{path=**}", "path=a//b/"]],
  ["GET /v1/files/a%2Fb/c%3Ad", ["GET /v1/files/{path=**}", "path=a%2Fb/c:d"]],
  // Verbs: the longest known suffix; other colons are data.
  ["POST /v1/voyages/7:cancel", ["POST /v1/voyages/{id}:cancel", "id=7"]],
  ["POST /v1/voyages/a:b:cancel", ["POST /v1/voyages/{id}:cancel", "id=a:b"]],
  ["POST /v1/voyages/a:cancel:now", ["POST /v1/voyages/{id}:cancel:now", "id=a"]],
  ["GET /v1/voyages/urn:imo:9074729", ["GET /v1/voyages/{id}", "id=urn:imo:9074729"]],
  ["GET /v1/voyages/7%3Acancel", ["GET /v1/voyages/{id}", "id=7:cancel"]],
  ["GET /v1/voyages/7:cancel", "OPTIONS,POST"],
  ["GET /v1/any/7:cancel", ["* /v1/any/{id}", "id=7:cancel"]],
  ["GET /v1/voyages:search", ["GET /v1/voyages:search"]],
  ["GET /v1/voyages/:search", ["GET /v1/voyages/{id}", "id=:search"]],
  ["GET /v1/files/a/b:stat", ["GET /v1/files/{path=**}:stat", "path=a/b"]],
  ["GET /v1/files/a/b:other", ["GET /v1/files/{path=**}", "path=a/b:other"]],
  // Methods.
  ["HEAD /v1/voyages", ["GET /v1/voyages"]],
  ["PATCH /v1/voyages", "GET,HEAD,OPTIONS,POST"],
  ["OPTIONS /v1/voyages/latest", "DELETE,GET,HEAD,OPTIONS"],
  ["PUT /v1/any/1", ["PUT /v1/any/{id}", "id=1"]],
  ["BREW /v1/any/1", ["* /v1/any/{id}", "id=1"]],
  ["get /v1/voyages", "GET,HEAD,OPTIONS,POST"],
])("%s", (request, expected) => {
  expect(found(router, request)).toEqual(expected);
});

describe("conflicts", () => {
  test.each([
    ["GET /v1/{a}", "GET /v1/{b}"],
    ["GET /v1/{a=**}", "GET /v1/**"],
    ["GET /v1/{name=x/*}", "GET /v1/x/{id}"],
    ["GET /v1/x:v", "GET /v1/x:v"],
    ["* /v1/x", "* /v1/x"],
    ["GET /v1/%41", "GET /v1/A"],
  ])("%s and %s", (one, other) => {
    expect(() => routerOf(one, other)).toThrow(`${other} of ${other} conflicts with ${one} of ${one}`);
  });

  test.each([
    ["GET /v1/{a}", "PUT /v1/{a}"],
    ["GET /v1/{a}", "GET /v1/x"],
    ["GET /v1/{a}", "GET /v1/{a=**}"],
    ["GET /v1/{a}", "GET /v1/{a}:v"],
    ["GET /v1/{a}", "* /v1/{a}"],
  ])("none of %s and %s", (one, other) => {
    expect(() => routerOf(one, other)).not.toThrow();
  });
});

test("what a client expands by the rules comes back", () => {
  const ids = routerOf("GET /v1/{id}", "GET /v2/{path=**}", "GET /v3/{name=a/*/b}:verb");
  const reserve = (text: string) => encodeURIComponent(text);
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", minLength: 1 }), (id) => {
      expect(found(ids, `GET /v1/${reserve(id)}`)).toEqual(["GET /v1/{id}", `id=${id}`]);
      const segment = id.replaceAll("/", "");
      if (segment === "" || /%2f/i.test(segment)) return;
      expect(found(ids, `GET /v3/a/${reserve(segment)}/b:verb`)).toEqual([
        "GET /v3/{name=a/*/b}:verb",
        `name=a/${segment}/b`,
      ]);
      expect(found(ids, `GET /v2/${reserve(segment)}/x/${reserve(segment)}`)).toEqual([
        "GET /v2/{path=**}",
        `path=${segment}/x/${segment}`,
      ]);
    }),
  );
});
