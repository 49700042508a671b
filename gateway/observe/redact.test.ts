import { describe, expect, it } from "vitest";
import { TokenService } from "#gen/portolan/identity/v1/token_service_pb.js";
import { ShareService } from "#gen/portolan/shares/v1/share_service_pb.js";
import { newSecret } from "#kernel/ids.ts";
import { Redactor, secretFields } from "./redact.ts";

const redactor = new Redactor();
redactor.hideFieldsOf([ShareService, TokenService]);
redactor.hideValue("hunter2");

it("finds the secret fields of the contracts", () => {
  const names = [...secretFields([ShareService, TokenService])].map(({ name }) => name);
  expect(names).toEqual(expect.arrayContaining(["pin", "share_code", "client_secret"]));
  expect(names).not.toContain("resource_id");
});

describe("a secret field is hidden", () => {
  const within = JSON.stringify({ body: JSON.stringify({ pin: "84213", note: "kept" }) });
  it.each([
    ["in JSON", '{"pin":"84213","note":"kept"}'],
    ["in JSON with spaces", '{"pin" : "84213", "note":"kept"}'],
    ["as a number", '{"pin":84213,"note":"kept"}'],
    ["in JSON within JSON", within],
    ["in JSON within JSON within JSON", JSON.stringify({ outer: within })],
    ["in a query", "GET /v3/shares/x?pin=84213&note=kept"],
    ["by its JSON name", '{"clientSecret":"84213","client_secret":"84213","note":"kept"}'],
    ["with quotes inside", '{"pin":"842\\"84213","note":"kept"}'],
    [
      "in a header",
      '{"x-api-key":"84213","authorization":"Bearer 84213","cookie":"a=84213; b=84213","note":"kept"}',
    ],
    ["in a list of headers", '{"set-cookie":["84213"],"note":"kept"}'],
  ])("%s", (_, text) => {
    const clean = redactor.redact(text);
    expect(clean).not.toContain("84213");
    expect(clean).toContain("kept");
    if (text.startsWith("{")) expect(() => JSON.parse(clean)).not.toThrow();
  });
});

it("hides what tells itself by its form, and given values, in any text", () => {
  const secrets = [
    newSecret("sk_"),
    newSecret("share-"),
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJrIn0.c2lnbmF0dXJl",
    "hunter2",
  ];
  const clean = redactor.redact(`first ${secrets.join(" then ")} last, Authorization: Bearer abcdef`);
  for (const secret of [...secrets, "abcdef"]) expect(clean).not.toContain(secret);
  expect(clean).toMatch(/^first .* last/);
});

it("hides the password of an address", () => {
  const clean = redactor.redact('{"err":"cannot reach postgres://portolan:s3cr3t@db:5432/portolan?ssl=1"}');
  expect(clean).toBe('{"err":"cannot reach postgres://portolan:[redacted]@db:5432/portolan?ssl=1"}');
});

it("leaves everything else alone", () => {
  const line =
    '{"level":30,"spinning":"fast","tokens":3,"method":"portolan.shares.v1.ShareService/CreateShare","url":"http://127.0.0.1:8080/a@b"}';
  expect(redactor.redact(line)).toBe(line);
});
