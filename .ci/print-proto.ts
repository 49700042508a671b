import type { FileDescriptorProto } from "@bufbuild/protobuf/wkt";
import {
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";

/**
 * Prints a file descriptor as .proto source: declarations only, without options and comments,
 * which is what importers need to compile.
 */
export function printProto(file: { proto: FileDescriptorProto }): string {
  const { proto } = file;
  const syntax = proto.syntax || "proto2";
  const scope = { proto3: syntax === "proto3" };
  return [
    `syntax = "${syntax}";`,
    `package ${proto.package};`,
    ...proto.dependency.map((path) => `import "${path}";`),
    ...proto.enumType.map((e) => printEnum(e)),
    ...proto.messageType.map((m) => printMessage(m, scope)),
    ...proto.extension.map((x) => `extend ${x.extendee} {\n${printField(x, scope)}\n}`),
    "",
  ].join("\n");
}

function printEnum(desc: EnumDescriptorProto): string {
  const alias = desc.options?.allowAlias ? "option allow_alias = true;\n" : "";
  return `enum ${desc.name} {\n${alias}${desc.value.map((v) => `${v.name} = ${v.number};`).join("\n")}\n}`;
}

function printMessage(desc: DescriptorProto, scope: { proto3: boolean }): string {
  const nested = desc.nestedType.filter((m) => !m.options?.mapEntry);
  const isReal = (f: FieldDescriptorProto) => f.oneofIndex !== undefined && !f.proto3Optional && hasOneof(f);
  const hasOneof = (f: FieldDescriptorProto) => Object.hasOwn(f, "oneofIndex");
  const oneofs = desc.oneofDecl.map((oneof, index) => {
    const members = desc.field.filter((f) => isReal(f) && f.oneofIndex === index);
    if (members.length === 0) return "";
    return `oneof ${oneof.name} {\n${members.map((f) => printField(f, scope, true)).join("\n")}\n}`;
  });
  return [
    `message ${desc.name} {`,
    ...desc.enumType.map((e) => printEnum(e)),
    ...nested.map((m) => printMessage(m, scope)),
    ...desc.field.filter((f) => !isReal(f)).map((f) => printField(f, scope)),
    ...oneofs,
    ...desc.extensionRange.map((r) => `extensions ${r.start} to ${r.end >= 536870912 ? "max" : r.end - 1};`),
    "}",
  ].join("\n");
}

function printField(field: FieldDescriptorProto, scope: { proto3: boolean }, bare = false): string {
  const type = field.typeName || Type[field.type]?.toLowerCase();
  const label =
    field.label === Label.REPEATED
      ? "repeated "
      : bare || (scope.proto3 && !field.proto3Optional)
        ? ""
        : field.label === Label.REQUIRED
          ? "required "
          : "optional ";
  return `${label}${type} ${field.name} = ${field.number};`;
}
