import {
  type DescEnum,
  type DescEnumValue,
  type DescField,
  type DescMessage,
  type JsonObject,
  type JsonValue,
  type Message,
  type Registry,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import type { Dialect } from "./dialect.ts";
import { enumOf, isWellKnown } from "./fields.ts";

/** A field and how its values are read. */
export interface Field {
  readonly desc: DescField;
  /** The key that protobuf's own JSON reader knows it by. */
  readonly key: string;
  readonly enum: EnumSpelling | undefined;
  /** The plan of the message it holds, unless that has no fields in JSON. */
  readonly child: Plan | undefined;
  readonly mask: boolean;
  /** Whether query parameters with brackets are gathered into its value. */
  readonly folds: boolean;
  /** Whether its values differ from protobuf's own JSON in any way. */
  respelled: boolean;
}

/** What is known of a message's JSON in one dialect. */
export interface Plan {
  readonly message: DescMessage;
  /** By every name that is accepted. */
  readonly fields: ReadonlyMap<string, Field>;
  /** Whether reading it needs more than protobuf's own JSON reader. */
  respelled: boolean;
  /** The fields that are written differently from protobuf's own JSON. */
  readonly written: readonly Field[];
}

/** The spellings of one enum. */
export interface EnumSpelling {
  /** The number of a spelling; what is none comes back as it is, to be refused. */
  read(json: JsonValue): JsonValue;
  /** How a canonical name is written; undefined if it is left out. */
  write(canonical: string): string | undefined;
  /** Even where `write` leaves a value out, as in a list. */
  writeAlways(canonical: string): string;
  /** The names to tell a client about. */
  readonly names: readonly string[];
}

interface Differences {
  readonly reading: boolean;
  readonly writing: boolean;
}

/** Thrown by `Spelling.read` for JSON that is not of the message; `explain` says why. */
export class NotOfMessage extends Error {}

/** Reads and writes the JSON of messages as a dialect spells it. Plans are made once per message type. */
export class Spelling {
  readonly dialect: Dialect;
  /** The options for protobuf's own JSON functions. */
  readonly jsonOptions: { readonly registry?: Registry };
  readonly #plans = new Map<DescMessage, Plan>();
  readonly #enums = new Map<DescEnum, EnumSpelling>();
  readonly #differing = new Map<DescMessage, Differences>();
  readonly #texts = new WeakMap<Message, string>();

  constructor(dialect: Dialect, registry?: Registry) {
    this.dialect = dialect;
    this.jsonOptions = registry ? { registry } : {};
  }

  /** Gives the proto3 JSON for what a client wrote; throws `NotOfMessage` on what it sees to be wrong. */
  read(message: DescMessage, json: JsonValue): JsonValue {
    const plan = this.plan(message);
    return plan.respelled ? readMessage(plan, json) : json;
  }

  /** As `read`, for the value of one field. */
  readField(field: Field, json: JsonValue): JsonValue {
    return field.respelled ? readField(field, json) : json;
  }

  /** The JSON of a message. */
  write(schema: DescMessage, message: Message): JsonValue {
    const json = toJson(schema, message, {
      alwaysEmitImplicit: true,
      useProtoFieldName: this.dialect.protoNames === true,
      ...this.jsonOptions,
    });
    const plan = this.plan(schema);
    if (plan.written.length > 0) this.#writeMessage(plan, json as JsonObject);
    return json;
  }

  /** The JSON of a field of a message; null if it is unset. */
  writeField(schema: DescMessage, message: Message, field: DescField): JsonValue {
    return (this.write(schema, message) as JsonObject)[this.outputName(field)] ?? null;
  }

  /**
   * The JSON text of a message, or of one field of it. A frozen message is encoded once, however many
   * streams carry it.
   */
  text(schema: DescMessage, message: Message, field: DescField | undefined): string {
    if (field) return JSON.stringify(this.writeField(schema, message, field));
    const known = this.#texts.get(message);
    if (known !== undefined) return known;
    const text = JSON.stringify(this.write(schema, message));
    if (Object.isFrozen(message)) this.#texts.set(message, text);
    return text;
  }

  /** The plan of a message. */
  plan(message: DescMessage): Plan {
    const known = this.#plans.get(message);
    if (known) return known;
    const fields = new Map<string, Field>();
    const written: Field[] = [];
    const plan: Plan = { message, fields, written, respelled: false };
    this.#plans.set(message, plan);
    if (isWellKnown(message)) return plan;

    const own = message.fields.map((desc) => {
      const field = this.#field(desc);
      const { child } = field;
      const below = child && this.#differences(child.message);
      field.respelled = this.#isRespelled(desc) || below?.reading === true;
      if (field.respelled) plan.respelled = true;
      if (this.#isWritten(desc) || below?.writing) written.push(field);
      return field;
    });
    for (const field of own) fields.set(field.desc.name, field).set(field.desc.jsonName, field);
    for (const field of own) {
      for (const alias of this.#aliases(field.desc)) {
        if (fields.has(alias)) continue;
        fields.set(alias, field);
        plan.respelled = true;
      }
    }
    return plan;
  }

  /** Whether values of the field are written differently from protobuf's own JSON. */
  #isWritten(desc: DescField): boolean {
    const of = enumOf(desc);
    return of !== undefined && styleOf(of, this.dialect) !== "canonical";
  }

  #field(desc: DescField): Field {
    const enumDesc = enumOf(desc);
    const child = desc.message && !isWellKnown(desc.message) ? this.plan(desc.message) : undefined;
    return {
      desc,
      key: desc.jsonName,
      enum: enumDesc && this.#enum(enumDesc),
      child,
      mask: desc.message?.typeName === "google.protobuf.FieldMask",
      folds: desc.scalar === ScalarType.STRING && this.dialect.foldsBrackets?.(desc) === true,
      respelled: false,
    };
  }

  #aliases(desc: DescField): readonly string[] {
    return this.dialect.fieldAliases?.(desc) ?? [];
  }

  #isRespelled(desc: DescField): boolean {
    return (
      enumOf(desc) !== undefined ||
      desc.message?.typeName === "google.protobuf.FieldMask" ||
      this.#aliases(desc).length > 0
    );
  }

  /** How a message, or any message below it, differs from protobuf's own JSON. */
  #differences(message: DescMessage): Differences {
    const known = this.#differing.get(message);
    if (known) return known;
    let reading = false;
    let writing = false;
    const seen = new Set<DescMessage>();
    const visit = (each: DescMessage): void => {
      if (seen.has(each) || isWellKnown(each)) return;
      seen.add(each);
      for (const field of each.fields) {
        reading ||= this.#isRespelled(field);
        writing ||= this.#isWritten(field);
        if (field.message) visit(field.message);
      }
    };
    visit(message);
    const found = { reading, writing };
    this.#differing.set(message, found);
    return found;
  }

  /** The name that a field is written with. */
  outputName(field: DescField): string {
    return this.dialect.protoNames ? field.name : field.jsonName;
  }

  #writeMessage(plan: Plan, json: JsonObject): void {
    for (const field of plan.written) {
      const name = this.outputName(field.desc);
      const value = json[name];
      if (value === undefined || value === null) continue;
      if (field.desc.fieldKind === "list") {
        for (const [i, each] of (value as JsonValue[]).entries()) {
          (value as JsonValue[])[i] = this.#writeOne(field, each);
        }
      } else if (field.desc.fieldKind === "map") {
        const map = value as JsonObject;
        for (const key of Object.keys(map)) {
          const respelled = this.#writeOne(field, map[key] as JsonValue);
          if (respelled !== map[key]) map[key] = respelled;
        }
      } else if (field.enum && typeof value === "string") {
        const spelled = field.enum.write(value);
        if (spelled === undefined) delete json[name];
        else json[name] = spelled;
      } else this.#writeOne(field, value);
    }
  }

  /** Messages are respelled in place. */
  #writeOne(field: Field, value: JsonValue): JsonValue {
    if (field.child) this.#writeMessage(field.child, value as JsonObject);
    else if (field.enum && typeof value === "string") return field.enum.writeAlways(value);
    return value;
  }

  #enum(desc: DescEnum): EnumSpelling {
    const known = this.#enums.get(desc);
    if (known) return known;
    const spelling = spellEnum(desc, this.dialect);
    this.#enums.set(desc, spelling);
    return spelling;
  }
}

function readMessage(plan: Plan, json: JsonValue): JsonValue {
  if (!isObject(json)) throw new NotOfMessage();
  const out: JsonObject = {};
  for (const name of Object.keys(json)) {
    const field = plan.fields.get(name);
    if (!field || Object.hasOwn(out, field.key)) throw new NotOfMessage();
    const value = json[name] as JsonValue;
    out[field.key] = field.respelled ? readField(field, value) : value;
  }
  return out;
}

function readField(field: Field, value: JsonValue): JsonValue {
  if (value === null) return null;
  switch (field.desc.fieldKind) {
    case "list":
      if (!Array.isArray(value)) throw new NotOfMessage();
      return value.map((each) => readOne(field, each));
    case "map":
      if (!isObject(value)) throw new NotOfMessage();
      // Not by assignment, which would lose the key "__proto__".
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, readOne(field, each)]));
    default:
      return readOne(field, value);
  }
}

function readOne(field: Field, value: JsonValue): JsonValue {
  if (value === null) return null;
  if (field.enum) return field.enum.read(value);
  if (field.mask) return typeof value === "string" ? maskText(value) : value;
  return field.child?.respelled ? readMessage(field.child, value) : value;
}

/** Accepts the contract's field names in a mask, where proto3 JSON has only lowerCamelCase. */
export function maskText(text: string): string {
  return text.includes("_") ? text.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase()) : text;
}

/** Whether it is a JSON object. */
export function isObject(json: JsonValue | undefined): json is JsonObject {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}

const styleOf = (desc: DescEnum, dialect: Dialect): NonNullable<Dialect["enumStyle"]> =>
  dialect.enumStyleOf?.(desc) ?? dialect.enumStyle ?? "canonical";

function spellEnum(desc: DescEnum, dialect: Dialect): EnumSpelling {
  const style = styleOf(desc, dialect);
  const short = shortNames(desc);
  const spell = (value: DescEnumValue): string => {
    if (style === "canonical") return value.jsonName;
    const name = short.get(value) ?? value.name;
    return style === "short" ? name : name.toLowerCase();
  };

  const exact = new Map<string, number>();
  const folded = new Map<string, number>();
  const accept = (spelling: string | undefined, { number }: DescEnumValue): void => {
    if (spelling === undefined) return;
    if (!exact.has(spelling)) exact.set(spelling, number);
    const upper = spelling.toUpperCase();
    if (!folded.has(upper)) folded.set(upper, number);
  };
  for (const value of desc.values) accept(value.name, value);
  for (const value of desc.values) accept(value.jsonName, value);
  for (const value of desc.values) accept(short.get(value), value);
  for (const value of desc.values) {
    for (const spelling of dialect.enumSpellings?.(value) ?? []) accept(spelling, value);
  }

  const written = new Map(desc.values.map((value) => [value.jsonName, spell(value)]));
  const omitted = new Set(
    style === "canonical" ? [] : desc.values.filter((v) => isUnspecified(v, short)).map((v) => v.jsonName),
  );
  return {
    read(json) {
      if (typeof json !== "string") return json;
      const number = exact.get(json) ?? folded.get(json.toUpperCase());
      if (number !== undefined) return number;
      return /^-?\d{1,10}$/.test(json) ? Number(json) : json;
    },
    write: (canonical) => (omitted.has(canonical) ? undefined : (written.get(canonical) ?? canonical)),
    writeAlways: (canonical) => written.get(canonical) ?? canonical,
    names: desc.values.filter((v) => !isUnspecified(v, short)).map(spell),
  };
}

function isUnspecified(value: DescEnumValue, short: ReadonlyMap<DescEnumValue, string>): boolean {
  return value.number === 0 && (short.get(value) ?? value.name) === "UNSPECIFIED";
}

/**
 * The value names without the enum's own name before them. Underscores of the enum's name are not
 * compared, since there is more than one way to snake-case `HTTPMethod`.
 */
function shortNames(desc: DescEnum): ReadonlyMap<DescEnumValue, string> {
  const own = desc.name.replaceAll("_", "").toUpperCase();
  const short = new Map<DescEnumValue, string>();
  for (const value of desc.values) {
    let length = 0;
    let matched = 0;
    for (; matched < own.length && length < value.name.length; length++) {
      const c = value.name[length];
      if (c === "_") continue;
      if (c?.toUpperCase() !== own[matched]) break;
      matched++;
    }
    const rest = value.name.slice(length + 1);
    // A name of digits would read as a number.
    if (matched < own.length || value.name[length] !== "_" || /^\d*$/.test(rest)) return new Map();
    short.set(value, rest);
  }
  return short;
}
