import { type DescMethod, getOption, hasOption, type JsonObject } from "@bufbuild/protobuf";
import { mqtt } from "#gen/portolan/options/v1/policy_pb.js";
import { type Rule, rulesOf, streamContentTypes } from "../rest/index.ts";
import type { Contract } from "./contract.ts";
import { responseExample } from "./examples.ts";
import { type About, defaultOrigin } from "./openapi.ts";
import { openApiPath, parametersOf } from "./parameters.ts";
import { Schemas, sentences } from "./schemas.ts";
import { createSurfaces, type DocumentedSurface } from "./surface.ts";

const description =
  `The live streams: each is an RPC that answers with many messages. Over HTTP it is a GET that answers
with lines of JSON, with server-sent events or with one JSON array, whichever the Accept header asks for; over gRPC,
gRPC-Web and Connect it is the server-streaming method of the same name. The paths end in \`/ws\` as in the fleet's own
document. MQTT is not served yet: the topic that a stream will have stands in \`x-mqtt\`.`.replaceAll(
    "\n",
    " ",
  );

/** The AsyncAPI 3.0 document of a contract's server streams. */
export function asyncApiDocument(contract: Contract, about: About): JsonObject {
  const schemas = new Schemas(contract);
  const surfaceOf = createSurfaces(contract);
  const channels: JsonObject = {};
  const operations: JsonObject = {};
  const messages: JsonObject = {};

  for (const method of contract.services.flatMap((service) => service.methods)) {
    if (method.methodKind !== "server_streaming") continue;
    const rules = rulesOf(method);
    const surface = surfaceOf(method, rules[0]?.template ?? "");
    messages[method.output.name] ??= {
      name: method.output.name,
      title: method.output.name,
      summary: contract.comment(method.output),
      contentType: "application/json",
      payload: schemas.ref(method.output, "output", surface),
      examples: [{ payload: surface.spelling.write(method.output, responseExample(method.output)) }],
    };
    const id = `${method.parent.name}_${method.name}`;
    channels[`${id}_rpc`] = rpcChannel(method, contract);
    operations[`${id}_rpc`] = operation(method, `${id}_rpc`, contract);
    for (const [index, rule] of rules.entries()) {
      const name = index === 0 ? id : `${id}${index + 1}`;
      channels[name] = httpChannel(rule, surface, schemas, contract);
      const binding = httpBinding(rule, surface, schemas);
      operations[name] = { ...operation(method, name, contract), bindings: { http: binding } };
    }
  }

  const { host, protocol } = new URL(defaultOrigin);
  return {
    asyncapi: "3.0.0",
    info: {
      title: "Portolan streams",
      version: about.version,
      description,
      license: { name: about.license },
    },
    defaultContentType: "application/json",
    servers: {
      http: { host, protocol: protocol.slice(0, -1), description: "REST" },
      rpc: {
        host,
        protocol: protocol.slice(0, -1),
        description: "gRPC, gRPC-Web and Connect, on the same port",
      },
    },
    channels,
    operations,
    components: { messages, schemas: schemas.finish() },
  };
}

function operation(method: DescMethod, channel: string, contract: Contract): JsonObject {
  return {
    action: "send",
    channel: { $ref: `#/channels/${channel}` },
    summary: contract.comment(method),
    messages: [{ $ref: `#/channels/${channel}/messages/${method.output.name}` }],
  };
}

function httpChannel(
  rule: Rule,
  surface: DocumentedSurface,
  schemas: Schemas,
  contract: Contract,
): JsonObject {
  const { method } = rule;
  const path = parametersOf(rule, surface, schemas).filter((parameter) => parameter.in === "path");
  const parameters = path.map(({ name, description = "" }) => [name, { description }]);
  return {
    address: openApiPath(rule, surface),
    title: `${method.parent.name}.${method.name}`,
    description: sentences([
      contract.comment(method),
      `GET, answering as ${streamContentTypes.map((type) => `\`${type}\``).join(", ")}.`,
    ]),
    servers: [{ $ref: "#/servers/http" }],
    ...(parameters.length > 0 && { parameters: Object.fromEntries(parameters) }),
    messages: { [method.output.name]: { $ref: `#/components/messages/${method.output.name}` } },
    ...mqttNote(method),
  };
}

function rpcChannel(method: DescMethod, contract: Contract): JsonObject {
  return {
    address: `/${method.parent.typeName}/${method.name}`,
    title: `${method.parent.name}.${method.name}`,
    description: contract.comment(method),
    servers: [{ $ref: "#/servers/rpc" }],
    messages: { [method.output.name]: { $ref: `#/components/messages/${method.output.name}` } },
    ...mqttNote(method),
  };
}

/** What the query of the GET may say. */
function httpBinding(rule: Rule, surface: DocumentedSurface, schemas: Schemas): JsonObject {
  const query = parametersOf(rule, surface, schemas).filter((parameter) => parameter.in === "query");
  const properties = query.map(({ name, schema, description = "" }) => {
    // Not a copy: the names of references are filled in at the end.
    return [name, Object.assign(schema as JsonObject, { description })];
  });
  return {
    method: rule.httpMethod,
    ...(query.length > 0 && { query: { type: "object", properties: Object.fromEntries(properties) } }),
    bindingVersion: "0.3.0",
  };
}

function mqttNote(method: DescMethod): JsonObject {
  if (!hasOption(method, mqtt)) return {};
  const { topic, qos } = getOption(method, mqtt);
  return { "x-mqtt": { topic, qos, served: false } };
}
