import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

interface Parameter {
  readonly name: string;
  readonly in: "path" | "query" | "header";
  readonly required?: boolean;
  readonly description?: string;
  readonly example?: JsonValue;
}

interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly security: readonly JsonObject[];
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly content: Record<string, { readonly example?: JsonValue }> };
}

/** As much of an OpenAPI document as a collection is made of. */
interface OpenApi {
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly servers: readonly { readonly url: string }[];
  readonly tags: readonly { readonly name: string; readonly description: string }[];
  readonly paths: Record<string, Record<string, Operation>>;
}

/**
 * The Postman collection (format 2.1) of an OpenAPI document: a folder for each tag, a request for each
 * operation, filled with its examples. The variables `baseUrl` and `apiKey` are for the user to set.
 */
export function postmanCollection(document: JsonObject): JsonObject {
  const { info, servers, tags, paths } = document as unknown as OpenApi;
  const requests = Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({
      tags: operation.tags,
      item: requestItem(path, method.toUpperCase(), operation),
    })),
  );
  return {
    info: {
      name: info.title,
      version: info.version,
      description: info.description,
      schema: "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
    },
    auth: {
      type: "apikey",
      apikey: [
        { key: "key", value: "x-api-key", type: "string" },
        { key: "value", value: "{{apiKey}}", type: "string" },
        { key: "in", value: "header", type: "string" },
      ],
    },
    variable: [
      { key: "baseUrl", value: servers[0]?.url ?? "", type: "string" },
      { key: "apiKey", value: "", type: "string" },
    ],
    item: tags.map(({ name, description }) => ({
      name,
      description,
      item: requests.filter((request) => request.tags.includes(name)).map(({ item }) => item),
    })),
  };
}

function requestItem(path: string, method: string, operation: Operation): JsonObject {
  const { parameters = [], requestBody, summary, description, security } = operation;
  const at = (place: Parameter["in"]) => parameters.filter((parameter) => parameter.in === place);
  const body = requestBody?.content["application/json"];
  // Postman writes a variable of the path as `:name`.
  const segments = path
    .slice(1)
    .replaceAll(/\{([^}]+)\}/g, ":$1")
    .split("/");
  return {
    name: summary,
    request: {
      method,
      description,
      ...(security.length === 0 && { auth: { type: "noauth" } }),
      header: [
        ...(body ? [{ key: "Content-Type", value: "application/json" }] : []),
        ...at("header").map((parameter) => ({ ...pair(parameter), disabled: true })),
      ],
      url: {
        raw: `{{baseUrl}}/${segments.join("/")}`,
        host: ["{{baseUrl}}"],
        path: segments,
        query: at("query").map((parameter) => ({ ...pair(parameter), disabled: !parameter.required })),
        variable: at("path").map(pair),
      },
      ...(body && {
        body: {
          mode: "raw",
          raw: JSON.stringify(body.example ?? {}, null, 2),
          options: { raw: { language: "json" } },
        },
      }),
    },
  };
}

function pair({ name, example = "", description = "" }: Parameter): JsonObject {
  return { key: name, value: typeof example === "string" ? example : JSON.stringify(example), description };
}
