import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  getOption,
  hasOption,
  type JsonObject,
  ScalarType,
} from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence as Presence } from "@bufbuild/protobuf/wkt";
import { createValidator } from "@bufbuild/protovalidate";
import {
  type FieldRules,
  field as fieldRules,
  message as messageRules,
} from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { aliases } from "#gen/portolan/options/v1/policy_pb.js";
import { enumOf, isWellKnown } from "../rest/index.ts";
import type { Contract } from "./contract.ts";
import { elementRules, enumNumbers, keywordsOf, rulesOfField } from "./rules.ts";
import type { DocumentedSurface } from "./surface.ts";

/** Whether a schema says what is accepted or what is sent: they differ in what must be there. */
export type Direction = "input" | "output";

/** How a schema of a message differs from the plain one. */
export interface Variation {
  /** Names of fields that are not part of it, since the path binds them. */
  readonly omit?: readonly string[];
  /** Properties that an envelope puts beside the message's own. */
  readonly extra?: Readonly<Record<string, JsonObject>>;
}

interface Component {
  readonly desc: DescMessage | DescEnum;
  readonly surface: DocumentedSurface;
  /** Names for it, the best one first; the last is its alone. */
  readonly names: readonly string[];
  readonly refs: JsonObject[];
  schema: JsonObject;
}

/**
 * The JSON Schemas of messages as the transcoder reads and writes them. What is asked for, and all
 * that it refers to, becomes a component.
 */
export class Schemas {
  readonly #contract: Contract;
  readonly #components = new Map<string, Component>();
  readonly #required = new Map<DescMessage, ReadonlySet<string>>();
  readonly #validator = createValidator();

  constructor(contract: Contract) {
    this.#contract = contract;
  }

  /** A reference to the schema of a message. */
  ref(
    desc: DescMessage,
    direction: Direction,
    surface: DocumentedSurface,
    variation: Variation = {},
    nested = false,
  ): JsonObject {
    const { omit = [], extra = {} } = variation;
    const id = [direction, desc.typeName, surface.name, ...omit, ...Object.keys(extra)].join(" ");
    const short = direction === "input" && nested ? `${desc.name}Input` : desc.name;
    return this.#component(id, desc, surface, short, () => this.#object(desc, direction, surface, variation));
  }

  /** The schema of a field's value. */
  field(field: DescField, direction: Direction, surface: DocumentedSurface): JsonObject {
    const rules = rulesOfField(field);
    const keywords = direction === "input" ? keywordsOf(rules) : {};
    const one = (rules?: FieldRules) => this.#one(field, direction, surface, rules);
    if (field.fieldKind === "list") return { type: "array", items: one(elementRules(rules)), ...keywords };
    if (field.fieldKind === "map")
      return { type: "object", additionalProperties: one(elementRules(rules)), ...keywords };
    return one(rules);
  }

  /** Names of the fields that a request cannot leave out: the rules fail without them. */
  required(desc: DescMessage): ReadonlySet<string> {
    const known = this.#required.get(desc);
    if (known) return known;
    const { violations = [] } = this.#validator.validate(desc, create(desc));
    const names = violations.flatMap(({ field: [first, ...more] }) =>
      first?.kind === "field" && more.length === 0 ? [first.name] : [],
    );
    const found = new Set(names);
    this.#required.set(desc, found);
    return found;
  }

  /** What people should know of a field. */
  describe(field: DescField): string {
    const also = getOption(field, aliases).map((alias) => `\`${alias}\``);
    const rules = hasOption(field, fieldRules) ? getOption(field, fieldRules).cel : [];
    return sentences([
      this.#contract.comment(field),
      ...rules.map((rule) => rule.message),
      also.length > 0 && `Also read as ${also.join(" and ")}.`,
    ]);
  }

  /** Names every component, puts the names into the references, and gives the schemas by name. */
  finish(): JsonObject {
    const named = nameComponents([...this.#components.values()]);
    for (const [name, { refs }] of named) {
      for (const ref of refs) ref.$ref = `#/components/schemas/${name}`;
    }
    return Object.fromEntries(
      [...named].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, { schema }]) => [name, schema]),
    );
  }

  #component(
    id: string,
    desc: DescMessage | DescEnum,
    surface: DocumentedSurface,
    short: string,
    build: () => JsonObject,
  ): JsonObject {
    let component = this.#components.get(id);
    if (!component) {
      const prefixed = surface.prefix + short;
      const names = [short, prefixed, `${domainOf(desc)}${prefixed}`, id.replaceAll(/\W+/g, "_")];
      component = { desc, surface, names, refs: [], schema: {} };
      this.#components.set(id, component);
      component.schema = build();
    }
    const ref: JsonObject = { $ref: "" };
    component.refs.push(ref);
    return ref;
  }

  #object(
    desc: DescMessage,
    direction: Direction,
    surface: DocumentedSurface,
    { omit = [], extra = {} }: Variation,
  ): JsonObject {
    const { spelling } = surface;
    const fields = desc.fields.filter((field) => !omit.includes(field.name));
    const properties: JsonObject = { ...extra };
    const required = Object.keys(extra);
    for (const field of fields) {
      const name = spelling.outputName(field);
      const description = this.describe(field);
      // Not a copy: the names of references are filled in at the end.
      const schema = this.field(field, direction, surface);
      if (description) schema.description = description;
      properties[name] = schema;
      if (direction === "input" ? this.required(desc).has(field.name) : isAlwaysWritten(field, surface))
        required.push(name);
    }
    const rules = hasOption(desc, messageRules) ? getOption(desc, messageRules).cel : [];
    return {
      type: "object",
      description: sentences([this.#contract.comment(desc), ...rules.map((rule) => `${rule.message}.`)]),
      properties,
      ...(required.length > 0 && { required }),
      ...(direction === "input" && { additionalProperties: false }),
    };
  }

  #one(
    field: DescField,
    direction: Direction,
    surface: DocumentedSurface,
    rules: FieldRules | undefined,
  ): JsonObject {
    const keywords = direction === "input" ? keywordsOf(rules) : {};
    const enumDesc = enumOf(field);
    if (enumDesc) {
      const numbers = direction === "input" ? enumNumbers(rules) : undefined;
      return numbers
        ? this.#enum(enumDesc, field, surface, numbers)
        : this.#enumRef(enumDesc, field, surface);
    }
    if (field.enum) return { type: "null" };
    if (!field.message) return { ...scalar(field.scalar as ScalarType), ...keywords };
    return isWellKnown(field.message)
      ? wellKnown(field.message)
      : this.ref(field.message, direction, surface, {}, true);
  }

  #enumRef(desc: DescEnum, field: DescField, surface: DocumentedSurface): JsonObject {
    const id = ["enum", desc.typeName, surface.name].join(" ");
    return this.#component(id, desc, surface, desc.name, () => this.#enum(desc, field, surface));
  }

  #enum(
    desc: DescEnum,
    field: DescField,
    { spelling }: DocumentedSurface,
    numbers?: readonly number[],
  ): JsonObject {
    const spelled = spelling.plan(field.parent).fields.get(field.name)?.enum;
    const values = desc.values
      .filter((value) => numbers === undefined || numbers.includes(value.number))
      .map((value) => [spelled?.write(value.jsonName), this.#contract.comment(value)] as const)
      .filter(([name]) => name !== undefined);
    const list = values.map(([name, comment]) => `- \`${name}\`: ${comment}`).join("\n");
    return {
      type: "string",
      description: numbers ? list : `${this.#contract.comment(desc)}\n\n${list}`,
      enum: values.map(([name]) => name as string),
    };
  }
}

/** Whether a field is in the JSON of every message: fields without presence are, unless unspecified enums. */
function isAlwaysWritten(field: DescField, { spelling }: DocumentedSurface): boolean {
  if (field.fieldKind === "list" || field.fieldKind === "map") return true;
  if (field.presence !== Presence.IMPLICIT) return false;
  const zero = enumOf(field)?.values[0];
  if (!zero) return true;
  const spelled = spelling.plan(field.parent).fields.get(field.name)?.enum;
  return spelled?.write(zero.jsonName) !== undefined;
}

function scalar(type: ScalarType): JsonObject {
  switch (type) {
    case ScalarType.BOOL:
      return { type: "boolean" };
    case ScalarType.STRING:
      return { type: "string" };
    case ScalarType.BYTES:
      return { type: "string", contentEncoding: "base64" };
    case ScalarType.DOUBLE:
      return { type: "number", format: "double" };
    case ScalarType.FLOAT:
      return { type: "number", format: "float" };
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return { type: "integer", format: "int64", minimum: 0, maximum: 4294967295 };
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return { type: "integer", format: "int32" };
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      // JavaScript numbers have 53 bits.
      return { type: "string", pattern: "^[0-9]{1,20}$" };
    default:
      return { type: "string", pattern: "^-?[0-9]{1,19}$" };
  }
}

function wellKnown(desc: DescMessage): JsonObject {
  switch (desc.typeName) {
    case "google.protobuf.Timestamp":
      return { type: "string", format: "date-time" };
    case "google.protobuf.Duration":
      return { type: "string", pattern: "^-?[0-9]+(\\.[0-9]{1,9})?s$" };
    case "google.protobuf.FieldMask":
      return { type: "string" };
    case "google.protobuf.Struct":
      return { type: "object", additionalProperties: true };
    case "google.protobuf.ListValue":
      return { type: "array", items: {} };
    case "google.protobuf.Value":
      return {};
    case "google.protobuf.Any":
      return {
        type: "object",
        properties: { "@type": { type: "string" } },
        required: ["@type"],
        additionalProperties: true,
      };
    default: {
      const { type, ...rest } = scalar(desc.fields[0]?.scalar as ScalarType);
      return { type: [type as string, "null"], ...rest };
    }
  }
}

/** Gives each component the first of its names that no other one would take at the same place. */
function nameComponents(components: readonly Component[]): Map<string, Component> {
  const named = new Map<string, Component>();
  let open = components;
  for (let at = 0; open.length > 0; at++) {
    const groups = Map.groupBy(open, ({ names }) => names[at] ?? (names.at(-1) as string));
    open = [];
    for (const [name, group] of groups) {
      if (group.length === 1 && !named.has(name)) named.set(name, group[0] as Component);
      else open = [...open, ...group];
    }
  }
  return named;
}

/** `Jobs` for a type of portolan.jobs.v1. */
function domainOf(desc: DescMessage | DescEnum): string {
  const domain = desc.file.proto.package.split(".").at(-2) ?? "";
  return domain.charAt(0).toUpperCase() + domain.slice(1);
}

/** Joins paragraphs into one text of Markdown. */
export function sentences(parts: readonly (string | false | undefined)[]): string {
  return parts
    .filter((part) => part)
    .map((part) => (/[.:!?)`]$/.test(part as string) ? part : `${part}.`))
    .join("\n\n");
}
