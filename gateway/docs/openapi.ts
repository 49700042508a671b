import type { DescField, DescMethod, JsonObject } from "@bufbuild/protobuf";
import { policyOf } from "../gate/policy.ts";
import { idempotencyHeader, replayedHeader } from "../gate/replay.ts";
import { isPaged, totalHeader } from "../paging.ts";
import { isHttpBody, type Rule, rulesOf, streamContentTypes } from "../rest/index.ts";
import { dialectOf } from "../surfaces.ts";
import { accessText, policyJson, security, securitySchemes } from "./access.ts";
import { reachable, sorted } from "./components.ts";
import { conditionParameters, hasTag, takesTag } from "./conditions.ts";
import type { Contract } from "./contract.ts";
import { deprecationOf, deprecationText } from "./deprecation.ts";
import { envelopeSchema, exampleRequestId } from "./envelope.ts";
import { type DocumentedError, errorExample, errorSchema, errorsOf } from "./errors.ts";
import { requestExample, responseExample } from "./examples.ts";
import { frozen } from "./infer.ts";
import { openApiPath, parametersOf, variablesOf } from "./parameters.ts";
import { Schemas, sentences } from "./schemas.ts";
import { isStreamIn, isStreamOut } from "./shape.ts";
import { createSurfaces, type DocumentedSurface } from "./surface.ts";

/** What package.json says of the whole. */
export interface About {
  readonly version: string;
  readonly description: string;
  readonly license: string;
}

/** Where a document says the server is until one serves it under an origin of its own. */
export const defaultOrigin = "http://127.0.0.1:8080";

const JSON_TYPE = "application/json";
const LINES_TYPE = "application/x-ndjson";

const introduction =
  `Every path here is a binding of an RPC of the same name, which gRPC, gRPC-Web and Connect serve
on the same port. An API key or an access token goes into \`Authorization: Bearer\`, an API key also into \`x-api-key\`.
Every response carries \`x-request-id\`. JSON is proto3 JSON: 64-bit numbers are strings, times are RFC 3339, durations
are seconds such as \`3.5s\`, and what is unset is left out. Fields and query parameters that are not in the contract
are refused by name.`.replaceAll("\n", " ");

/** The name of the document of everything. */
export const wholeName = "portolan";

/** The OpenAPI 3.1 documents of a contract by name: of everything, and of each surface. */
export function openApiDocuments(contract: Contract, about: About): Map<string, JsonObject> {
  const whole = new OpenApi(contract);
  const documents = new Map<string, JsonObject>();
  documents.set(wholeName, whole.document(about, undefined));
  for (const surface of whole.surfaces) documents.set(surface.name, whole.document(about, surface));
  return documents;
}

interface Operation {
  readonly path: string;
  readonly httpMethod: string;
  readonly surface: DocumentedSurface;
  readonly tag: string;
  readonly json: JsonObject;
}

class OpenApi {
  readonly #contract: Contract;
  readonly #schemas: Schemas;
  readonly #operations: Operation[] = [];
  readonly #tags = new Map<string, JsonObject>();
  readonly #examples = new Map<string, JsonObject>();
  readonly #errorSchemas = new Map<string, JsonObject>();
  readonly #components: JsonObject;
  readonly surfaces = new Set<DocumentedSurface>();

  constructor(contract: Contract) {
    this.#contract = contract;
    this.#schemas = new Schemas(contract);
    const surfaceOf = createSurfaces(contract);
    for (const service of contract.services) {
      for (const method of service.methods) {
        for (const [index, rule] of rulesOf(method).entries())
          this.#add(rule, index, surfaceOf(method, rule.template));
      }
    }
    const schemas = this.#schemas.finish();
    this.#components = {
      schemas: sorted({ ...schemas, ...Object.fromEntries(this.#errorSchemas) }),
      examples: sorted(Object.fromEntries(this.#examples)),
      headers,
      securitySchemes,
    };
  }

  /** The document of one surface, or of all. */
  document(about: About, only: DocumentedSurface | undefined): JsonObject {
    const operations = this.#operations.filter(({ surface }) => !only || surface === only);
    const paths: JsonObject = {};
    for (const { path, httpMethod, json } of operations) {
      paths[path] = { ...(paths[path] as JsonObject | undefined), [httpMethod]: json };
    }
    const used = new Set(operations.map(({ tag }) => tag));
    return {
      openapi: "3.1.0",
      info: {
        title: only ? `Portolan: ${only.name}` : "Portolan",
        version: about.version,
        summary: about.description,
        description: sentences([only?.description, introduction]),
        license: { name: about.license, identifier: about.license },
      },
      servers: [{ url: defaultOrigin }],
      tags: [...this.#tags].filter(([name]) => used.has(name)).map(([, tag]) => tag),
      paths: sorted(paths),
      components: reachable(paths, this.#components),
    };
  }

  #add(rule: Rule, index: number, surface: DocumentedSurface): void {
    const { method, httpMethod } = rule;
    const service = method.parent;
    // OpenAPI has no place for methods of its own making.
    if (!["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"].includes(httpMethod)) return;
    this.surfaces.add(surface);
    const tag = service.name;
    if (!this.#tags.has(tag)) {
      this.#tags.set(tag, { name: tag, description: this.#contract.comment(service) });
    }
    this.#operations.push({
      path: openApiPath(rule, surface),
      httpMethod: httpMethod.toLowerCase(),
      surface,
      tag,
      json: this.#operation(rule, index, surface),
    });
  }

  #operation(rule: Rule, index: number, surface: DocumentedSurface): JsonObject {
    const { method } = rule;
    const comment = this.#contract.comment(method);
    const policy = policyOf(method);
    const parameters = parametersOf(rule, surface, this.#schemas);
    if (policy.idempotencyKey) {
      parameters.push({
        name: idempotencyHeader,
        in: "header",
        description: "For 24 hours the same key with the same request gets the first response again.",
        schema: { type: "string", maxLength: 128 },
      });
    }
    parameters.push(...conditionParameters(rule));
    const body = this.#requestBody(rule, surface);
    const deprecation = deprecationOf(rule, this.#contract);
    return {
      operationId: `${method.parent.name}_${method.name}${index === 0 ? "" : index + 1}`,
      tags: [method.parent.name],
      summary: firstSentence(comment),
      description: sentences([
        deprecation && deprecationText(deprecation),
        comment,
        accessText(method),
        isStreamOut(method) && streamText,
      ]),
      ...(deprecation && { deprecated: true }),
      security: security(method, this.#contract),
      ...(parameters.length > 0 && { parameters }),
      ...(body && { requestBody: body }),
      responses: this.#responses(rule, surface),
      "x-rpc": `${method.parent.typeName}/${method.name}`,
      "x-policy": policyJson(method),
    };
  }

  #requestBody(rule: Rule, surface: DocumentedSurface): JsonObject | undefined {
    const { body, method } = rule;
    if (!body) return undefined;
    const bound = variablesOf(rule).map(({ field }) => field);
    const isWhole = body === "*";
    const desc = isWhole ? method.input : body.message;
    if (isHttpBody(desc)) return { content: { "*/*": { schema: {} } }, required: true };
    const schema = isWhole
      ? this.#schemas.ref(method.input, "input", surface, { omit: bound })
      : this.#schemas.field(body, "input", surface);
    const whole = requestExample(method.input, this.#schemas, surface, bound);
    const example = isWhole ? whole : whole[surface.spelling.outputName(body)];
    const required = [...this.#schemas.required(method.input)].filter((name) => !bound.includes(name));
    const needed = isWhole ? required.length > 0 : required.includes(body.name);
    const content: JsonObject = { schema, ...(example !== undefined && { example }) };
    return {
      content: isStreamIn(method)
        ? { [LINES_TYPE]: content, [JSON_TYPE]: { schema: { type: "array", items: schema } } }
        : { [JSON_TYPE]: content },
      ...(needed && { required: true }),
    };
  }

  #responses(rule: Rule, surface: DocumentedSurface): JsonObject {
    const { method } = rule;
    const { successStatus = 200 } = dialectOf(method, rule.template);
    const errors = errorsOf(rule, surface, this.#contract);
    return {
      [successStatus]: {
        description: this.#contract.comment(method.output) || "Success.",
        headers: {
          "x-request-id": { $ref: "#/components/headers/RequestId" },
          ...(hasTag(rule) && { etag: { $ref: "#/components/headers/ETag" } }),
          ...(rule.httpMethod === "GET" && isPaged(method) && pageHeaders(method)),
          ...(policyOf(method).idempotencyKey && {
            [replayedHeader]: { $ref: "#/components/headers/IdempotencyReplayed" },
          }),
        },
        ...(successStatus !== 204 && { content: this.#successContent(rule, surface) }),
      },
      ...(hasTag(rule) && { 304: { description: "What `If-None-Match` names is still so." } }),
      ...(takesTag(rule) && { 412: this.#errorResponse([], surface, "`If-Match` names what is not there.") }),
      ...Object.fromEntries(
        [...Map.groupBy(errors, ({ status }) => status)].map(([status, group]) => [
          status,
          this.#errorResponse(group, surface),
        ]),
      ),
    };
  }

  #successContent(rule: Rule, surface: DocumentedSurface): JsonObject {
    const { method, responseBody } = rule;
    const { output } = method;
    const { spelling } = surface;
    if (isHttpBody(responseBody?.message ?? output)) return { "*/*": { schema: {} } };
    const message = responseExample(output);
    const example = responseBody
      ? spelling.writeField(output, message, responseBody)
      : spelling.write(output, message);
    const field = (each: DescField) => this.#schemas.field(each, "output", surface);
    const body = (extra = {}) =>
      responseBody && !(responseBody.fieldKind === "message" && Object.keys(extra).length > 0)
        ? field(responseBody)
        : this.#schemas.ref(responseBody?.message ?? output, "output", surface, { extra });
    if (isStreamOut(method)) {
      // The array comes first: generators of clients that know no streams take what comes first.
      const types = streamContentTypes.toSorted((a, b) => Number(b === JSON_TYPE) - Number(a === JSON_TYPE));
      const contents = types.map((type): [string, JsonObject] => [
        type,
        type === JSON_TYPE
          ? { schema: { type: "array", items: body() }, example: [example] }
          : { schema: body(), ...(type === LINES_TYPE && { example }) },
      ]);
      return Object.fromEntries(contents);
    }
    const dialect = dialectOf(method, rule.template);
    const nameOf = (each: DescField) => spelling.outputName(each);
    const schema = envelopeSchema(dialect, rule, message, { body, field, nameOf });
    const wrapped = dialect.envelope?.(example, message, method, { requestId: exampleRequestId }) ?? example;
    return { [JSON_TYPE]: { schema, example: frozen(wrapped) } };
  }

  #errorResponse(
    errors: readonly DocumentedError[],
    surface: DocumentedSurface,
    description = errors.map(({ reason, comment }) => `- \`${reason}\`: ${comment}`).join("\n"),
  ): JsonObject {
    const schemaName = `${surface.prefix}Error`;
    if (!this.#errorSchemas.has(schemaName)) {
      const schema = { description: `Errors of the surface \`${surface.name}\`.`, ...errorSchema(surface) };
      this.#errorSchemas.set(schemaName, schema);
    }
    const examples = errors.map(({ reason, comment }) => {
      const name = `${surface.prefix}_${reason}`;
      const example = { summary: comment, value: errorExample(reason, surface) };
      if (!this.#examples.has(name)) this.#examples.set(name, example);
      return [reason, { $ref: `#/components/examples/${name}` }] as const;
    });
    return {
      description,
      content: {
        [JSON_TYPE]: {
          schema: { $ref: `#/components/schemas/${schemaName}` },
          ...(examples.length > 0 && { examples: Object.fromEntries(examples) }),
        },
      },
    };
  }
}

const streamText =
  "The response is a stream: lines of JSON unless the Accept header asks for server-sent events or for one " +
  'array. An error after the first message ends it: as a last line `{"error": …}`, or as an event `error`. ' +
  "Server-sent events end with an event `end`. A browser's EventSource, which cannot set headers, gives its " +
  "credential in the query as `token`.";

const pageHeaders = ({ output }: DescMethod): JsonObject => ({
  link: { $ref: "#/components/headers/NextPage" },
  ...(output.field.pageInfo && { [totalHeader]: { $ref: "#/components/headers/TotalCount" } }),
});

const headers: JsonObject = {
  NextPage: {
    description: 'Where a page follows: `<…>; rel="next"`, a reference to it (RFC 8288).',
    schema: { type: "string" },
  },
  TotalCount: {
    description: "How many items the list holds, where the request gave a page number.",
    schema: { type: "integer" },
  },
  ETag: { description: "Stands for this very answer, see `If-None-Match`.", schema: { type: "string" } },
  RequestId: { description: "Id of the request, as in the server's log.", schema: { type: "string" } },
  IdempotencyReplayed: {
    description: "`true` on a response that was given before under the same key.",
    schema: { type: "string", const: "true" },
  },
};

function firstSentence(comment: string): string {
  const [sentence = ""] = /^.*?[.:](?=\s|$)/s.exec(comment) ?? [comment];
  return sentence.replace(/[.:]$/, "");
}
