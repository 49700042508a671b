import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createConfig, lint } from "@redocly/openapi-core";
import { Ajv } from "ajv";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adminKey, root, startTestServer, type TestServer } from "#test/support/gateway.ts";
import { readOpenApi } from "#test/support/openapi.ts";

const read = (path: string) => JSON.parse(readFileSync(join(root, path), "utf8"));

const names = readdirSync(join(root, "gen/openapi"));

describe.each(names)("gen/openapi/%s", (name) => {
  const document = read(`gen/openapi/${name}`);
  const openApi = readOpenApi(document);

  it("is valid OpenAPI, and passes the recommended rules of a linter", async () => {
    const config = await createConfig({ extends: ["recommended"] });
    const problems = await lint({ ref: join(root, "gen/openapi", name), config });
    expect(problems.map(({ ruleId, message }) => `${ruleId}: ${message}`)).toEqual([]);
  });

  it("has examples that are valid by their schemas", () => {
    let checked = 0;
    const visit = (pointer: string[], value: unknown): void => {
      if (typeof value !== "object" || value === null) return;
      const node = value as Record<string, unknown>;
      if ("schema" in node && "example" in node) {
        openApi.check([...pointer, "schema"], node.example);
        checked++;
      }
      if ("schema" in node && "examples" in node) {
        for (const { $ref } of Object.values(node.examples as Record<string, { $ref: string }>)) {
          const example = document.components.examples[$ref.split("/").at(-1) as string];
          openApi.check([...pointer, "schema"], example.value);
          checked++;
        }
      }
      for (const [key, child] of Object.entries(node)) visit([...pointer, key], child);
    };
    visit(["paths"], document.paths);
    expect(checked).toBeGreaterThan(openApi.operations.length);
  });

  it("names every operation once", () => {
    const ids = openApi.operations.map(({ json }) => json.operationId);
    expect(new Set(ids).size).toBe(ids.length);
  });
});

it("the documents of the surfaces make up the whole, each operation in one of them", () => {
  const operationsIn = (name: string) =>
    readOpenApi(read(`gen/openapi/${name}`)).operations.map(({ method, path }) => `${method} ${path}`);
  const parts = names.filter((name) => name !== "portolan.json").flatMap(operationsIn);
  expect(parts.sort()).toEqual(operationsIn("portolan.json").sort());
});

describe("the document of everything", () => {
  const { operations, json } = readOpenApi(read("gen/openapi/portolan.json"));
  const operation = (id: string) => operations.find((each) => each.json.operationId === id)?.json;

  it("tells of the credentials, permission, roles and limits of the policy", () => {
    expect(operation("JobService_CreateJob")).toMatchObject({
      security: [{ apiKey: [] }, { bearer: [] }],
      "x-policy": { permission: "jobs:write", roles: ["ROLE_PILOT", "ROLE_MANAGER"], idempotencyKey: true },
    });
    expect(operation("ShareService_TrackShare").security).toEqual([]);
    expect(operation("TokenService_IssueToken").security).toEqual([{ apiKey: [] }]);
    expect(operation("TrackService_Track2").security).toContainEqual({ token: [] });
  });

  it("takes the Idempotency-Key where the policy honours it, and only there", () => {
    const takes = operations
      .filter(({ json }) =>
        json.parameters?.some((each: { name: string }) => each.name === "Idempotency-Key"),
      )
      .map(({ json }) => json.operationId);
    expect(takes.sort()).toEqual(
      operations
        .filter(({ json }) => json["x-policy"].idempotencyKey)
        .map(({ json }) => json.operationId)
        .sort(),
    );
    expect(takes).toContain("JobService_CreateJob");
  });

  it("names the reasons of errors under the status that they have over REST", () => {
    const { responses } = operation("JobService_CancelJob");
    expect(Object.keys(responses)).toEqual(
      expect.arrayContaining(["200", "400", "401", "403", "404", "500"]),
    );
    expect(responses[400].content["application/json"].examples).toHaveProperty("JOB_NOT_CANCELLABLE");
    expect(responses[404].content["application/json"].examples).toHaveProperty("JOB_NOT_FOUND");
  });

  it("states the rules of the contract as JSON Schema", () => {
    const { properties, required } = json.components.schemas.CreateJobRequest;
    expect(required).toEqual(["deviceGroupId"]);
    expect(properties.priority).toMatchObject({ type: "integer", minimum: 1, maximum: 10 });
    expect(properties.deviceGroupId).toMatchObject({ minLength: 1, maxLength: 128 });
    expect(json.components.schemas.ReportJobRequest.properties.state.enum).toEqual([
      "INPROGRESS",
      "COMPLETED",
      "FAILED",
      "CANCELLED",
    ]);
  });

  it("spells enums as each surface does", () => {
    expect(json.components.schemas.FleetRole.enum).toContain("PILOT");
    expect(json.components.schemas.IntegrationRole.enum).toContain("pilot");
  });

  it("lists the forms of a stream", () => {
    const { content } = operation("JobService_TrackJob").responses[200];
    expect(Object.keys(content).sort()).toEqual([
      "application/json",
      "application/x-ndjson",
      "text/event-stream",
    ]);
    expect(content["application/json"].schema.type).toBe("array");
  });
});

describe("gen/asyncapi.json", () => {
  const document = read("gen/asyncapi.json");

  it("is valid by the JSON Schema of AsyncAPI 3", () => {
    const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
    const schema = read("node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json");
    const validate = ajv.compile(schema);
    validate(document);
    expect(validate.errors).toBeNull();
    expect(validate({ ...document, channels: { broken: { messages: 1 } } })).toBe(false);
  });

  it("has a channel for every path that streams, and for its RPC", () => {
    const { operations } = readOpenApi(read("gen/openapi/portolan.json"));
    const streams = operations.filter(
      ({ json }) => "text/event-stream" in (json.responses[200]?.content ?? {}),
    );
    expect(streams.length).toBeGreaterThan(5);
    const channels = Object.values<{ address: string }>(document.channels).map(({ address }) => address);
    for (const { path, json } of streams) {
      expect(channels).toContain(path);
      expect(channels).toContain(`/${json["x-rpc"]}`);
    }
  });

  it("has examples that are valid by their payloads", () => {
    const ajv = new Ajv({ strict: false, validateFormats: false });
    ajv.addSchema(document, "asyncapi");
    for (const [name, message] of Object.entries<{ examples: { payload: unknown }[] }>(
      document.components.messages,
    )) {
      const validate = ajv.getSchema(`asyncapi#/components/messages/${name}/payload`);
      for (const { payload } of message.examples) validate?.(payload);
      expect([name, validate?.errors]).toEqual([name, null]);
    }
  });
});

describe("gen/postman.json", () => {
  interface Item {
    name: string;
    request: {
      method: string;
      auth?: { type: string };
      header: { key: string; value: string; disabled?: boolean }[];
      url: {
        raw: string;
        query: { key: string; value: string; disabled: boolean }[];
        variable: { key: string; value: string }[];
      };
      body?: { raw: string };
    };
  }
  const collection = read("gen/postman.json");
  const items: Item[] = collection.item.flatMap((folder: { item: Item[] }) => folder.item);
  let server: TestServer;

  beforeAll(async () => {
    server = await startTestServer();
  });
  afterAll(() => server.stop());

  /** Sends a request as Postman does, its variables filled in. */
  async function send({ request }: Item): Promise<{ status: number; text: string }> {
    const { url, header, body, method } = request;
    let path = url.raw.replace("{{baseUrl}}", "");
    for (const { key, value } of url.variable) path = path.replace(`:${key}`, encodeURIComponent(value));
    const query = url.query.filter(({ disabled }) => !disabled).map(({ key, value }) => `${key}=${value}`);
    const leaving = new AbortController();
    const answer = await fetch(`${server.url}${path}?${query.join("&")}`, {
      method,
      signal: leaving.signal,
      headers: {
        ...(request.auth?.type !== "noauth" && { "x-api-key": adminKey }),
        ...Object.fromEntries(
          header.filter(({ disabled }) => !disabled).map(({ key, value }) => [key, value]),
        ),
      },
      ...(body && { body: body.raw }),
    });
    const isStream = /event-stream|ndjson/.test(answer.headers.get("content-type") ?? "");
    const text = isStream ? "" : await answer.text();
    leaving.abort();
    return { status: answer.status, text };
  }

  it("has a request for every operation", () => {
    const { operations } = readOpenApi(read("gen/openapi/portolan.json"));
    expect(items.length).toBe(operations.length);
    expect(collection.info.schema).toBe(
      "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
    );
  });

  it("has requests that the server understands as they stand", async () => {
    for (const item of items) {
      const { status, text } = await send(item);
      const outcome = `${item.request.method} ${item.request.url.raw} ${status} ${text}`;
      expect(outcome).not.toMatch(/ (405|5\d\d) |UNKNOWN_PATH|VALIDATION_ERROR|MALFORMED|UNKNOWN_FIELD/);
    }
  });
});
