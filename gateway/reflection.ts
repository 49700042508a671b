import { type DescExtension, type DescFile, type DescService, toBinary } from "@bufbuild/protobuf";
import { nestedTypes } from "@bufbuild/protobuf/reflect";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ServiceImpl } from "@connectrpc/connect";
import { Health } from "#gen/grpc/health/v1/health_pb.js";
import {
  ServerReflection as ReflectionV1,
  type ServerReflectionRequest as RequestV1,
} from "#gen/grpc/reflection/v1/reflection_pb.js";
import {
  ServerReflection as ReflectionV1alpha,
  type ServerReflectionRequest as RequestV1alpha,
} from "#gen/grpc/reflection/v1alpha/reflection_pb.js";

/** The two versions of the reflection service, which differ in their package name only. */
export interface Reflection {
  readonly v1: ServiceImpl<typeof ReflectionV1>;
  readonly v1alpha: ServiceImpl<typeof ReflectionV1alpha>;
}

type Question = (RequestV1 | RequestV1alpha)["messageRequest"];
type Answer =
  | { case: "fileDescriptorResponse"; value: { fileDescriptorProto: Uint8Array[] } }
  | { case: "allExtensionNumbersResponse"; value: { baseTypeName: string; extensionNumber: number[] } }
  | { case: "listServicesResponse"; value: { service: { name: string }[] } }
  | { case: "errorResponse"; value: { errorCode: Code; errorMessage: string } };

/**
 * Creates server reflection over the files of the given services and all they import. The health
 * service and reflection itself are always part of it.
 */
export function createReflection(services: DescService[]): Reflection {
  const listed = new Map(
    [...services, Health, ReflectionV1, ReflectionV1alpha].map((service) => [service.typeName, service]),
  );
  const index = new Index([...listed.values()].map((service) => service.file));
  const names = [...listed.keys()].sort();

  function answer(question: Question, sent: Set<DescFile>): Answer {
    switch (question.case) {
      case "listServices":
        return { case: "listServicesResponse", value: { service: names.map((name) => ({ name })) } };
      case "fileByFilename":
        return files(index.files.get(question.value), `file ${question.value}`, sent);
      case "fileContainingSymbol":
        return files(index.symbols.get(question.value), `symbol ${question.value}`, sent);
      case "fileContainingExtension": {
        const { containingType, extensionNumber } = question.value;
        const file = index.extensions.get(containingType)?.get(extensionNumber)?.file;
        return files(file, `extension ${extensionNumber} of ${containingType}`, sent);
      }
      case "allExtensionNumbersOfType": {
        const known = index.extensions.get(question.value);
        if (!known) return error(Code.NotFound, `type ${question.value} not found`);
        return {
          case: "allExtensionNumbersResponse",
          value: { baseTypeName: question.value, extensionNumber: [...known.keys()] },
        };
      }
      default:
        return error(Code.InvalidArgument, "message_request is not set");
    }
  }

  function files(file: DescFile | undefined, what: string, sent: Set<DescFile>): Answer {
    if (!file) return error(Code.NotFound, `${what} not found`);
    // The file asked for is sent even if sent before: an empty response would read as a failure.
    const found = [...closure([file])].filter((one) => one === file || !sent.has(one));
    for (const one of found) sent.add(one);
    return {
      case: "fileDescriptorResponse",
      value: { fileDescriptorProto: found.map((f) => index.bytes(f)) },
    };
  }

  async function* respond<R extends RequestV1 | RequestV1alpha>(requests: AsyncIterable<R>) {
    const sent = new Set<DescFile>();
    for await (const request of requests) {
      yield {
        validHost: request.host,
        originalRequest: request,
        messageResponse: answer(request.messageRequest, sent),
      };
    }
  }

  return { v1: { serverReflectionInfo: respond }, v1alpha: { serverReflectionInfo: respond } };
}

function error(errorCode: Code, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}

/** The given files and all they import, directly or not. */
function closure(roots: Iterable<DescFile>): Set<DescFile> {
  const found = new Set<DescFile>(roots);
  // A set's iteration also visits what is added on the way.
  for (const file of found) for (const dependency of file.dependencies) found.add(dependency);
  return found;
}

/** What is declared where. */
class Index {
  readonly files = new Map<string, DescFile>();
  readonly symbols = new Map<string, DescFile>();
  /** The extensions of every known message, by its name and the field number. */
  readonly extensions = new Map<string, Map<number, DescExtension>>();
  readonly #bytes = new Map<DescFile, Uint8Array>();

  constructor(roots: DescFile[]) {
    const all = closure(roots);
    for (const file of all) {
      this.files.set(file.proto.name, file);
      for (const name of symbolsOf(file)) this.symbols.set(name, file);
      for (const type of nestedTypes(file)) {
        if (type.kind === "message") this.extensions.set(type.typeName, new Map());
      }
    }
    for (const file of all) {
      for (const type of nestedTypes(file)) {
        if (type.kind === "extension") this.extensions.get(type.extendee.typeName)?.set(type.number, type);
      }
    }
  }

  bytes(file: DescFile): Uint8Array {
    const bytes = this.#bytes.get(file) ?? toBinary(FileDescriptorProtoSchema, file.proto);
    this.#bytes.set(file, bytes);
    return bytes;
  }
}

/** The full names of everything a file declares. */
function* symbolsOf(file: DescFile): Generator<string> {
  for (const type of nestedTypes(file)) {
    yield type.typeName;
    if (type.kind === "message") {
      for (const member of [...type.fields, ...type.oneofs]) yield `${type.typeName}.${member.name}`;
    } else if (type.kind === "service") {
      for (const method of type.methods) yield `${type.typeName}.${method.name}`;
    } else if (type.kind === "enum") {
      // Enum values are siblings of their enum, not its children.
      const scope = type.parent?.typeName ?? file.proto.package;
      for (const value of type.values) yield scope ? `${scope}.${value.name}` : value.name;
    }
  }
}
