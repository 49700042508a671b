import {
  create,
  type DescField,
  type DescMessage,
  type DescMethod,
  isFieldSet,
  type Message,
} from "@bufbuild/protobuf";
import { type FieldMask, FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { PageInfoSchema } from "#gen/portolan/common/v1/page_pb.js";
import { fail } from "#kernel/errors.ts";
import { namesOf } from "#kernel/list/field.ts";

/** The fields that a caller asks for; a field without a tree of its own is wanted whole. */
export type FieldTree = ReadonlyMap<DescField, FieldTree | undefined>;

/** What a response was cut down to. */
export interface Cut {
  /** The response field that holds the resource, or the resources. */
  readonly subject: DescField;
  readonly tree: FieldTree;
}

/** How responses were cut down, for who writes fields that are not set, as REST does. */
const cuts = new WeakMap<Message, Cut>();

/** What a response was cut down to; undefined if it is whole. */
export const cutOf = (response: Message): Cut | undefined => cuts.get(response);

/** The field of a method's response that holds the resource, or the resources, if there is one such field. */
export function subjectOf({ output }: DescMethod): DescField | undefined {
  const subjects = output.fields.filter(
    ({ message }) => message && message.typeName !== PageInfoSchema.typeName,
  );
  return subjects.length === 1 ? subjects[0] : undefined;
}

/**
 * What the request field `fields` of a method does: gives a function that takes a request, and
 * gives one that cuts its response down, or undefined if the request asks for everything.
 * Undefined for methods without that field.
 * @throws Error if it is not clear what in the response the field is about
 */
export function createSparse(method: DescMethod) {
  const mask = method.input.field.fields;
  if (mask?.fieldKind !== "message" || mask.message.typeName !== FieldMaskSchema.typeName) return undefined;
  const subject = subjectOf(method);
  if (!subject?.message) {
    throw new Error(`${method.parent.typeName}.${method.name}: no single field of the response to cut down`);
  }
  const desc = subject.message;

  return (request: Message): ((response: Message) => Message) | undefined => {
    const paths = (request as Message & { fields?: FieldMask }).fields?.paths ?? [];
    if (paths.length === 0 || paths.includes("*")) return undefined;
    const tree = treeOf(desc, paths);
    const whole = method.output.fields.map((field) => [field, field === subject ? tree : undefined] as const);
    return (response) => {
      const cut = prune(method.output, response, new Map(whole));
      cuts.set(cut, { subject, tree });
      return cut;
    };
  };
}

/** The tree of field paths. Names may be the contract's or the JSON form. */
function treeOf(desc: DescMessage, paths: readonly string[], prefix = ""): FieldTree {
  const tree = new Map<DescField, FieldTree | undefined>();
  const below = new Map<DescField, string[]>();
  const whole = new Set<DescField>();
  for (const path of paths) {
    const [name = "", ...rest] = path.split(".");
    const field = desc.fields.find((each) => namesOf(each).includes(name));
    if (!field || (rest.length > 0 && (!field.message || field.fieldKind === "map"))) {
      throw unknown(prefix + path);
    }
    if (rest.length === 0) whole.add(field);
    else below.set(field, [...(below.get(field) ?? []), rest.join(".")]);
    tree.set(field, undefined);
  }
  for (const [field, rest] of below) {
    const branch = treeOf(field.message as DescMessage, rest, `${prefix}${field.name}.`);
    if (!whole.has(field)) tree.set(field, branch);
  }
  return tree;
}

function unknown(path: string) {
  const description = `${path} is not a field of what is returned`;
  return fail("INVALID_FIELD_MASK", {
    message: `fields: ${description}`,
    violations: [{ field: "fields", description, reason: "UNKNOWN_FIELD" }],
    metadata: { path },
  });
}

function prune(desc: DescMessage, message: Message, tree: FieldTree): Message {
  const whole = message as Message & Record<string, unknown>;
  const cut = create(desc) as Message & Record<string, unknown>;
  for (const [field, branch] of tree) {
    if (!isFieldSet(message, field)) continue;
    const group = field.oneof && (whole[field.oneof.localName] as { case: string; value: unknown });
    const value = group ? group.value : whole[field.localName];
    const wanted = !branch
      ? value
      : Array.isArray(value)
        ? value.map((each) => prune(field.message as DescMessage, each, branch))
        : prune(field.message as DescMessage, value as Message, branch);
    if (group) cut[field.oneof?.localName as string] = { case: group.case, value: wanted };
    else cut[field.localName] = wanted;
  }
  return cut;
}
