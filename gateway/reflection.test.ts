import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { create, createFileRegistry, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { createWritableIterable } from "@connectrpc/connect/protocol";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Health } from "#gen/grpc/health/v1/health_pb.js";
import {
  ServerReflection as ReflectionV1,
  type ServerReflectionRequestSchema,
} from "#gen/grpc/reflection/v1/reflection_pb.js";
import { ServerReflection as ReflectionV1alpha } from "#gen/grpc/reflection/v1alpha/reflection_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { type Listener, listen } from "./listener.ts";
import { createReflection } from "./reflection.ts";

type Question = NonNullable<MessageInitShape<typeof ServerReflectionRequestSchema>["messageRequest"]>;

const reflection = createReflection([ResourceService]);
let listener: Listener;

beforeAll(async () => {
  const handler = connectNodeAdapter({
    routes: (router) => {
      router.service(ReflectionV1, reflection.v1);
      router.service(ReflectionV1alpha, reflection.v1alpha);
    },
  });
  listener = await listen({ host: "127.0.0.1", port: 0, handler });
});
afterAll(() => listener.drain(0));

const versions = { v1: ReflectionV1, v1alpha: ReflectionV1alpha };

/** Asks the questions one after the other on one stream. */
async function ask(version: keyof typeof versions, questions: Question[]) {
  const transport = createGrpcTransport({ baseUrl: listener.url });
  const requests = createWritableIterable<{ host: string; messageRequest: Question }>();
  // The two versions have the same shape.
  const client = createClient(versions[version] as typeof ReflectionV1, transport);
  const responses = client.serverReflectionInfo(requests)[Symbol.asyncIterator]();
  const answers = [];
  for (const messageRequest of questions) {
    void requests.write({ host: "h", messageRequest });
    const { value } = await responses.next();
    expect(value).toMatchObject({ validHost: "h", originalRequest: { host: "h", messageRequest } });
    answers.push(value.messageResponse);
  }
  requests.close();
  expect((await responses.next()).done).toBe(true);
  return answers;
}

function filesOf(answer: Awaited<ReturnType<typeof ask>>[number] | undefined): FileDescriptorProto[] {
  if (answer?.case !== "fileDescriptorResponse") throw new Error(`answered ${JSON.stringify(answer)}`);
  return answer.value.fileDescriptorProto.map((bytes: Uint8Array) =>
    fromBinary(FileDescriptorProtoSchema, bytes),
  );
}

const NOT_FOUND = { case: "errorResponse", value: { errorCode: Code.NotFound } };

describe.each(["v1", "v1alpha"] as const)("%s", (version) => {
  test("lists the services, itself and health included", async () => {
    const [answer] = await ask(version, [{ case: "listServices", value: "" }]);
    expect(answer.value.service.map((service: { name: string }) => service.name)).toEqual([
      Health.typeName,
      ReflectionV1.typeName,
      ReflectionV1alpha.typeName,
      ResourceService.typeName,
    ]);
  });

  test("sends a file with all it needs, dependencies once per stream", async () => {
    const name = ResourceService.file.proto.name;
    const [first, second] = await ask(version, [
      { case: "fileByFilename", value: name },
      { case: "fileContainingSymbol", value: ResourceService.typeName },
    ]);
    const files = filesOf(first);
    expect(files[0]?.name).toBe(name);
    // Throws unless every import is there.
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: linkOrder(files) }));
    expect(registry.getService(ResourceService.typeName)?.methods).toHaveLength(
      ResourceService.methods.length,
    );
    expect(filesOf(second).map((file) => file.name)).toEqual([name]);
  });

  test("goes on after what is not found", async () => {
    const answers = await ask(version, [
      { case: "fileByFilename", value: "no/such.proto" },
      { case: "fileContainingSymbol", value: "no.Such" },
      { case: "fileContainingExtension", value: { containingType: "no.Such", extensionNumber: 1 } },
      {
        case: "fileContainingExtension",
        value: { containingType: "google.protobuf.MethodOptions", extensionNumber: 1 },
      },
      { case: "allExtensionNumbersOfType", value: "no.Such" },
      { case: "fileByFilename", value: "google/protobuf/descriptor.proto" },
    ]);
    const last = answers.pop();
    for (const answer of answers) expect(answer).toMatchObject(NOT_FOUND);
    expect(filesOf(last).map((file) => file.name)).toEqual(["google/protobuf/descriptor.proto"]);
  });

  test("refuses a request that asks nothing", async () => {
    const [answer] = await ask(version, [{ case: undefined }]);
    expect(answer).toMatchObject({ case: "errorResponse", value: { errorCode: Code.InvalidArgument } });
  });
});

test.each([
  ["a service", "grpc.health.v1.Health", "grpc/health/v1/health.proto"],
  ["a method", "grpc.health.v1.Health.Watch", "grpc/health/v1/health.proto"],
  ["a message", "grpc.health.v1.HealthCheckRequest", "grpc/health/v1/health.proto"],
  ["a field", "grpc.health.v1.HealthCheckRequest.service", "grpc/health/v1/health.proto"],
  ["a nested enum", "grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto"],
  ["an enum value", "grpc.health.v1.HealthCheckResponse.NOT_SERVING", "grpc/health/v1/health.proto"],
  [
    "a oneof",
    "grpc.reflection.v1.ServerReflectionRequest.message_request",
    "grpc/reflection/v1/reflection.proto",
  ],
  ["an extension", "google.api.http", "google/api/annotations.proto"],
  ["a top-level enum value", "google.protobuf.EDITION_2023", "google/protobuf/descriptor.proto"],
])("finds the file of %s", async (_, symbol, file) => {
  const [answer] = await ask("v1", [{ case: "fileContainingSymbol", value: symbol }]);
  expect(filesOf(answer)[0]?.name).toBe(file);
});

test("finds extensions by type and number", async () => {
  const type = "google.protobuf.MethodOptions";
  const [numbers, file, none] = await ask("v1", [
    { case: "allExtensionNumbersOfType", value: type },
    { case: "fileContainingExtension", value: { containingType: type, extensionNumber: 72295728 } },
    { case: "allExtensionNumbersOfType", value: "grpc.health.v1.HealthCheckRequest" },
  ]);
  expect(numbers.value).toMatchObject({ baseTypeName: type });
  expect(numbers.value.extensionNumber).toContain(72295728);
  expect(filesOf(file)[0]?.name).toBe("google/api/annotations.proto");
  expect(none.value).toMatchObject({ extensionNumber: [] });
});

test.each(["grpc-v1", "grpc-v1alpha", undefined])("buf curl lists services by %s", async (protocol) => {
  const { stdout } = await promisify(execFile)("buf", [
    "curl",
    "--http2-prior-knowledge",
    "--protocol",
    "grpc",
    ...(protocol ? ["--reflect-protocol", protocol] : []),
    listener.url,
    "--list-methods",
  ]);
  for (const method of ResourceService.methods)
    expect(stdout).toContain(`${ResourceService.typeName}/${method.name}`);
  expect(stdout).toContain("grpc.health.v1.Health/Watch");
});

test("buf curl lists services", async () => {
  const args = ["curl", "--http2-prior-knowledge", "--protocol", "grpc", listener.url, "--list-services"];
  const { stdout } = await promisify(execFile)("buf", args);
  expect(stdout.trim().split("\n")).toContain(ResourceService.typeName);
});

/** Imports before importers. */
function linkOrder(files: FileDescriptorProto[]): FileDescriptorProto[] {
  const ordered = new Set<FileDescriptorProto>();
  const visit = (file: FileDescriptorProto) => {
    for (const name of file.dependency) visit(files.find((one) => one.name === name) ?? file);
    ordered.add(file);
  };
  for (const file of files) visit(file);
  return [...ordered];
}
