import { readFile } from "node:fs/promises";
import {
  createFileRegistry,
  type DescMethod,
  type DescService,
  type FileRegistry,
  fromBinary,
} from "@bufbuild/protobuf";
import { type FileDescriptorSet, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { rulesOf } from "../rules.ts";

/** Says in one sentence why a contract cannot be served. */
export class ImageError extends Error {}

/** A compiled contract. */
export interface Image {
  readonly registry: FileRegistry;
  readonly services: readonly DescService[];
  /** The methods that REST requests can reach. */
  readonly methods: readonly DescMethod[];
}

/** Reads a `FileDescriptorSet` from a file, as `buf build -o` and `protoc -o --include_imports` write it. */
export async function readImage(path: string): Promise<Image> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw new ImageError(missing ? `${path}: no such file` : `${path}: ${(error as Error).message}`);
  }
  return parseImage(bytes, path);
}

/** As `readImage`, of bytes; `name` begins what an error says. */
export function parseImage(bytes: Uint8Array, name: string): Image {
  const set = parse(bytes);
  if (!set) {
    throw new ImageError(`${name}: not a FileDescriptorSet; write one with \`buf build -o image.binpb\``);
  }
  const present = new Set(set.file.map((file) => file.name));
  for (const file of set.file) {
    const missing = file.dependency.find((each) => !present.has(each));
    if (missing !== undefined) {
      throw new ImageError(
        `${name}: ${file.name} imports ${missing}, which is not in it: include the imports`,
      );
    }
  }
  let registry: FileRegistry;
  try {
    registry = createFileRegistry(set);
  } catch (error) {
    throw new ImageError(`${name}: ${(error as Error).message}`);
  }
  const services = [...registry].filter((type) => type.kind === "service");
  const methods = services.flatMap((service) => service.methods);
  if (methods.length === 0) throw new ImageError(`${name}: no service in it has a method`);
  const bound = methods.filter((method) => rulesOf(method).length > 0);
  if (bound.length === 0) {
    throw new ImageError(`${name}: none of its ${methods.length} methods has a google.api.http annotation`);
  }
  return { registry, services, methods: bound };
}

function parse(bytes: Uint8Array): FileDescriptorSet | undefined {
  try {
    const set = fromBinary(FileDescriptorSetSchema, bytes);
    return set.file.length > 0 && set.file.every((file) => file.name !== "") ? set : undefined;
  } catch {
    return undefined;
  }
}
