import {
  createFileRegistry,
  type DescEnum,
  type DescEnumValue,
  type DescField,
  type DescFile,
  type DescMessage,
  type DescMethod,
  type DescService,
  type FileRegistry,
  fromBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

/** What a comment can stand on. */
export type Commented = DescMessage | DescField | DescEnum | DescEnumValue | DescService | DescMethod;

/** A contract with its comments, which generated code does not carry. */
export interface Contract {
  readonly registry: FileRegistry;
  /** The services of our own packages, by name. */
  readonly services: readonly DescService[];
  /** The comment of a declaration, one paragraph a line; empty if it has none. */
  comment(desc: Commented): string;
}

/** Reads a contract from an image that `buf build` made with source info. */
export function readContract(image: Uint8Array): Contract {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, image));
  const comments = new Map<DescFile, ReadonlyMap<string, string>>();
  const services = [...registry]
    .filter((type) => type.kind === "service")
    .filter((service) => service.typeName.startsWith("portolan."))
    .sort((a, b) => (a.typeName < b.typeName ? -1 : 1));
  return {
    registry,
    services,
    comment(desc) {
      const file = fileOf(desc);
      const ofFile = comments.get(file) ?? commentsOf(file);
      comments.set(file, ofFile);
      return ofFile.get(pathOf(desc).join(".")) ?? "";
    },
  };
}

function commentsOf(file: DescFile): ReadonlyMap<string, string> {
  const locations = file.proto.sourceCodeInfo?.location ?? [];
  return new Map(locations.map(({ path, leadingComments }) => [path.join("."), unwrap(leadingComments)]));
}

/** Joins the lines of each paragraph; a blank line separates paragraphs. */
function unwrap(comment: string): string {
  return comment
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.trim().replaceAll(/\s*\n\s*/g, " "))
    .join("\n")
    .trim();
}

function fileOf(desc: Commented): DescFile {
  switch (desc.kind) {
    case "field":
    case "enum_value":
    case "rpc":
      return desc.parent.file;
    default:
      return desc.file;
  }
}

/** The path of a declaration by the field numbers of descriptor.proto, as SourceCodeInfo counts it. */
function pathOf(desc: Commented): number[] {
  switch (desc.kind) {
    case "message":
      return desc.parent
        ? [...pathOf(desc.parent), 3, desc.parent.proto.nestedType.indexOf(desc.proto)]
        : [4, desc.file.proto.messageType.indexOf(desc.proto)];
    case "enum":
      return desc.parent
        ? [...pathOf(desc.parent), 4, desc.parent.proto.enumType.indexOf(desc.proto)]
        : [5, desc.file.proto.enumType.indexOf(desc.proto)];
    case "service":
      return [6, desc.file.proto.service.indexOf(desc.proto)];
    case "field":
      return [...pathOf(desc.parent), 2, desc.parent.proto.field.indexOf(desc.proto)];
    case "enum_value":
      return [...pathOf(desc.parent), 2, desc.parent.proto.value.indexOf(desc.proto)];
    case "rpc":
      return [...pathOf(desc.parent), 2, desc.parent.proto.method.indexOf(desc.proto)];
  }
}
