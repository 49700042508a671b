import {
  clone,
  type DescField,
  type JsonObject,
  type JsonValue,
  type Message,
  type Registry,
  toJson,
} from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { isHttpBody, isLeaf } from "./fields.ts";
import { type Rule, variableFields } from "./rules.ts";
import { isObject } from "./spelling.ts";
import { parseTemplate, type Segment, type Template, type Variable } from "./template.ts";

/** A request as a client sends it. */
export interface Rendered {
  readonly httpMethod: string;
  /** The path and the query, percent-encoded: what comes after the origin in a URL. */
  readonly path: string;
  /** JSON text, or the bytes of a `google.api.HttpBody`; undefined for no body. */
  readonly body: string | Uint8Array | undefined;
  /** The type of the body; undefined if there is none, or if a `google.api.HttpBody` does not say. */
  readonly contentType: string | undefined;
}

/** How requests are rendered. */
export interface RenderOptions {
  /** For `google.protobuf.Any`. */
  readonly registry?: Registry;
  /** Whether names in the body and the query are those of the contract rather than lowerCamelCase. */
  readonly protoNames?: boolean;
}

/**
 * Renders a message as the HTTP request that a binding of its method takes: the client's side of
 * `google.api.http`. A rule for any method is rendered as POST. What the binding makes of the request
 * equals the message.
 *
 * Throws an `Error` that names the field when the binding cannot carry the message: when a path variable
 * does not match its pattern, or is a dot segment, which HTTP clients remove; when the query would have
 * to carry a list or a map of messages, or a message that is set but empty; when an `HttpBody` has
 * `extensions`, or is set but empty.
 */
export function render(rule: Rule, message: Message, options: RenderOptions = {}): Rendered {
  const template = parseTemplate(rule.template);
  const inPath = template.variables.map((variable) => variable.field);
  const rest = clone(rule.method.input, message);
  for (const path of inPath) clear(reflect(rule.method.input, rest), variableFields(rule.method, path));

  const source: Source = { rule, rest, inPath, options };
  const query = renderQuery(source);
  return {
    httpMethod: rule.httpMethod === "*" ? "POST" : rule.httpMethod,
    path: renderPath(rule, template, message, options) + (query === "" ? "" : `?${query}`),
    ...renderBody(source),
  };
}

interface Source {
  readonly rule: Rule;
  /** The message without what is in the path. */
  readonly rest: Message;
  /** The dotted names of what is in the path. */
  readonly inPath: readonly string[];
  readonly options: RenderOptions;
}

function clear(message: ReflectMessage, [field, ...below]: readonly DescField[]): void {
  if (!field || !message.isSet(field)) return;
  if (below.length === 0) message.clear(field);
  else if (field.fieldKind === "message") clear(message.get(field), below);
}

function renderPath(rule: Rule, template: Template, message: Message, options: RenderOptions): string {
  const { segments, variables, verb } = template;
  const parts: string[] = [];
  for (let at = 0; at < segments.length; ) {
    const variable = variables.find((v) => v.start === at);
    if (variable) {
      parts.push(...expand(variable, segments, pathText(rule, variable.field, message, options)));
      at = variable.end;
      continue;
    }
    const segment = segments[at++];
    if (segment?.kind === "literal") parts.push(encode(segment.text));
    // What is matched and not captured may be anything.
    else if (segment?.kind === "single") parts.push("-");
  }
  return `/${parts.join("/")}${verb === "" ? "" : `:${encode(verb)}`}`;
}

/** The encoded segments of a variable. */
function expand({ field, start, end }: Variable, segments: readonly Segment[], text: string): string[] {
  const pattern = segments.slice(start, end);
  const isOpen = pattern.at(-1)?.kind === "rest";
  const fixed = isOpen ? pattern.slice(0, -1) : pattern;
  const isSingle = pattern.length === 1 && !isOpen;
  const parts = isSingle ? [text] : text === "" && fixed.length === 0 ? [] : text.split("/");
  const matches =
    (isOpen ? parts.length >= fixed.length : parts.length === fixed.length) &&
    fixed.every((segment, i) => (segment.kind === "literal" ? segment.text === parts[i] : parts[i] !== ""));
  if (!matches) throw new Error(`"${text}" does not match the pattern of ${field}`);
  if (parts.some((part) => part === "." || part === "..")) {
    throw new Error(`${field} cannot be in a path: HTTP clients remove the segments "." and ".."`);
  }
  return parts.map(encode);
}

function pathText(rule: Rule, path: string, message: Message, { registry }: RenderOptions): string {
  let owner = reflect(rule.method.input, message);
  const fields = variableFields(rule.method, path);
  for (const field of fields) {
    const isSet = owner.isSet(field);
    // An implicit field has its default even when it is not set.
    if (!isSet && field !== fields.at(-1)) throw new Error(`${path} is in the path and is not set`);
    if (field === fields.at(-1)) {
      if (!isSet && field.presence !== FeatureSet_FieldPresence.IMPLICIT)
        throw new Error(`${path} is in the path and is not set`);
      const json = toJson(owner.desc, owner.message, {
        alwaysEmitImplicit: true,
        ...(registry && { registry }),
      });
      return leafText(field, (json as JsonObject)[field.jsonName] as JsonValue);
    }
    if (field.fieldKind === "message") owner = owner.get(field);
  }
  return "";
}

function renderBody({ rule, rest, options }: Source): Pick<Rendered, "body" | "contentType"> {
  const { body, method } = rule;
  const root = reflect(method.input, rest);
  const none = { body: undefined, contentType: undefined };
  if (body === undefined) return none;
  if (body === "*" && isHttpBody(method.input)) return rawBody(rest);
  if (body === "*") return jsonBody(jsonOf(root, options));
  if (!root.isSet(body)) return none;
  if (body.fieldKind === "message" && isHttpBody(body.message)) {
    const raw = rawBody(root.get(body).message);
    if (raw.contentType !== undefined || raw.body?.length) return raw;
    throw new Error(`${body.name} is set and empty, which a body of bytes cannot say`);
  }
  const json = jsonOf(root, options);
  return jsonBody(json[options.protoNames ? body.name : body.jsonName] as JsonValue);
}

function rawBody(message: Message): Pick<Rendered, "body" | "contentType"> {
  const { contentType, data, extensions } = message as Message & {
    contentType: string;
    data: Uint8Array;
    extensions: unknown[];
  };
  if (extensions.length > 0) throw new Error("extensions of a google.api.HttpBody cannot be sent");
  return { body: data, contentType: contentType === "" ? undefined : contentType };
}

function jsonBody(json: JsonValue): Pick<Rendered, "body" | "contentType"> {
  return { body: JSON.stringify(json), contentType: "application/json" };
}

function jsonOf(message: ReflectMessage, { registry, protoNames }: RenderOptions): JsonObject {
  const options = { useProtoFieldName: protoNames === true, ...(registry && { registry }) };
  return toJson(message.desc, message.message, options) as JsonObject;
}

function renderQuery({ rule, rest, inPath, options }: Source): string {
  if (rule.body === "*") return "";
  const parameters: string[] = [];
  const add = (name: string, field: DescField, json: JsonValue) =>
    parameters.push(`${encode(name)}=${encode(leafText(field, json))}`);

  const visit = (message: ReflectMessage, contractPath: string, name: string): void => {
    const json = jsonOf(message, { ...options, protoNames: false });
    const before = parameters.length;
    for (const field of message.fields) {
      if (!message.isSet(field) || field === rule.body) continue;
      const path = contractPath + field.name;
      const at = name + (options.protoNames ? field.name : field.jsonName);
      const value = json[field.jsonName] as JsonValue;
      if (field.fieldKind === "message" && !isLeaf(field)) visit(message.get(field), `${path}.`, `${at}.`);
      else if (!isLeaf(field)) throw new Error(`${path} holds messages and cannot be in a query`);
      else if (field.fieldKind === "list") for (const each of value as JsonValue[]) add(at, field, each);
      else if (field.fieldKind === "map" && isObject(value))
        for (const [key, each] of Object.entries(value)) add(`${at}[${key}]`, field, each);
      else add(at, field, value);
    }
    const isInPath = inPath.some((path) => path.startsWith(contractPath));
    if (contractPath !== "" && parameters.length === before && !isInPath) {
      throw new Error(`${contractPath.slice(0, -1)} is set and empty, which a query cannot say`);
    }
  };
  visit(reflect(rule.method.input, rest), "", "");
  return parameters.join("&");
}

const JSON_TEXTS = new Set(["Struct", "Value", "ListValue", "Any"].map((name) => `google.protobuf.${name}`));

/** One value of a leaf field as the text that stands for it in a path or a query. */
function leafText(field: DescField, json: JsonValue): string {
  if (field.message && JSON_TEXTS.has(field.message.typeName)) return JSON.stringify(json);
  return Object.is(json, -0) ? "-0" : String(json);
}

/** By the specification, all but the unreserved characters. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
