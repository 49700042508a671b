import {
  create,
  type DescField,
  type DescMessage,
  isFieldSet,
  type JsonObject,
  type JsonValue,
  type Message,
  mergeFromJson,
  ScalarType,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import type { ConnectError } from "@connectrpc/connect";
import { demandedTag, etagField, type TagPlace, tagPlace } from "./conditional.ts";
import type { Refusals } from "./errors.ts";
import { explain, explainField, type Violation } from "./explain.ts";
import { expected, isHttpBody, isLeaf, scalarOf } from "./fields.ts";
import { bindForm, canHoldFile, type Form } from "./form.ts";
import { bindQuery, isParameter, leafJson, objectAt, type Parameter } from "./query.ts";
import { type Capture, decodeCapture } from "./router.ts";
import { type Rule, variableFields } from "./rules.ts";
import { type Field, isObject, type Plan, type Spelling } from "./spelling.ts";
import type { Template } from "./template.ts";

/** What the path and the query of a request say about its message, as proto3 JSON. */
export interface Target {
  readonly path: JsonObject;
  readonly query: JsonObject;
}

/** A body that is bytes rather than JSON. */
export interface RawBody {
  readonly contentType: string;
  readonly data: Uint8Array;
}

/** How a binding deviates from what is usual. */
export interface BindingOptions {
  /** Whether `%2F` is decoded even in what `**` matched. */
  readonly fullyDecode?: boolean;
  readonly ignoreUnknownQuery?: boolean;
}

/** One HTTP binding of a method, ready to make request messages: path over body over query. */
export class Binding {
  readonly rule: Rule;
  readonly spelling: Spelling;
  readonly #refusals: Refusals;
  readonly #input: DescMessage;
  readonly #plan: Plan;
  readonly #variables: ReadonlyMap<string, readonly Field[]>;
  /** The field that is the body, unless the whole message is. */
  readonly #body: Field | undefined;
  readonly #mask: Field | undefined;
  readonly #resume: Field | undefined;
  readonly #etag: readonly Field[] | undefined;
  readonly #options: BindingOptions;
  /** Where responses have the tag of their resource. */
  readonly tagPlace: TagPlace | undefined;
  /** Whether the body may come as a form, since it can hold a file. */
  readonly takesForms: boolean;

  constructor(
    rule: Rule,
    template: Template,
    spelling: Spelling,
    refusals: Refusals,
    options: BindingOptions = {},
  ) {
    this.rule = rule;
    this.#options = options;
    this.spelling = spelling;
    this.#refusals = refusals;
    this.#input = rule.method.input;
    this.#plan = spelling.plan(this.#input);
    this.#variables = new Map(template.variables.map(({ field }) => [field, this.#chain(field)]));
    this.#body = rule.body && rule.body !== "*" ? this.#plan.fields.get(rule.body.name) : undefined;
    this.#mask = this.#findMask();
    this.#resume = this.#findResume();
    this.#etag = this.#findEtag();
    this.tagPlace = tagPlace(rule.method.output, rule.responseBody);
    this.takesForms = this.#isFile || (this.#formPlan?.message.fields.some(canHoldFile) ?? false);
  }

  /** Whether the body is the bytes of a `google.api.HttpBody`. */
  get isRaw(): boolean {
    return this.rule.body === "*" ? isHttpBody(this.#input) : isHttpBody(this.#singularMessage(this.#body));
  }

  /** Whether a query parameter of this name can be bound. */
  isParameter(name: string): boolean {
    return this.rule.body !== "*" && isParameter(this.#plan, name);
  }

  /** Binds what the variables captured and the query parameters; throws a refusal. */
  target(captures: readonly Capture[], parameters: readonly Parameter[]): Target {
    return { path: this.#bindPath(captures), query: this.#bindQuery(parameters) };
  }

  /** Makes the message of a body of JSON; `where` introduces what is said of an error in it. */
  fromJson(target: Target, body: JsonValue | undefined, where = ""): Message {
    return this.#build(target, where, (message) => {
      if (body === undefined || !this.rule.body) return;
      if (!this.#body) {
        this.#merge(
          message,
          () => this.spelling.read(this.#input, body),
          () => this.#refusals.malformed(explain(this.spelling, this.#plan, body, ""), where),
        );
        return;
      }
      const field = this.#body;
      const name = this.spelling.dialect.protoNames ? field.desc.name : field.desc.jsonName;
      this.#merge(
        message,
        () => ({ [field.key]: this.spelling.readField(field, body) }),
        () => this.#refusals.malformed(explainField(this.spelling, this.#plan, field, body, name), where),
      );
      if (this.#mask && !isFieldSet(message, this.#mask.desc))
        this.#setMask(message, this.#mask, field, body);
    });
  }

  /** Makes the message of a form: its file is the body, or its parts are the fields of the body. */
  fromForm(target: Target, form: Form): Message {
    if (this.#isFile) return this.#fromFile(target, form);
    const plan = this.#formPlan as Plan;
    const { json, violations } = bindForm(this.spelling, plan, form);
    if (violations.length > 0) throw this.#refusals.malformed(violations);
    const body = this.#body ? { [this.#body.key]: json } : json;
    const contradiction = () => this.#refusals.of("malformed", "the parts of the form contradict each other");
    return this.#build(target, "", (message) => this.#merge(message, () => body, contradiction));
  }

  /** The file is the body, whatever its name; the other parts are as parameters of the query. */
  #fromFile(target: Target, form: Form): Message {
    const [file, ...more] = form.files;
    if (!file || more.length > 0) {
      const description = file ? "is a second file, where there can be one" : "has no file";
      throw this.#refusals.malformed([{ field: more[0]?.name ?? "", description }]);
    }
    const values = this.rule.body === "*" ? {} : this.#bindQuery(form.texts, "part of the form");
    const { contentType, data } = file;
    return this.#build(target, "", (message) => {
      this.#merge(
        message,
        () => values,
        () => this.#refusals.of("malformed", "the form and the query parameters contradict each other"),
      );
      if (this.rule.body === "*" && form.texts.length > 0) {
        const description = "is not a field of this method";
        throw this.#refusals.malformed(form.texts.map(([field]) => ({ field, description, unknown: true })));
      }
      if (!this.#body) Object.assign(message, { contentType, data });
      else if (this.isRaw) setMessage(message, this.#input, this.#body, { contentType, data });
      else reflect(this.#input, message).set(this.#body.desc as DescField & { fieldKind: "scalar" }, data);
    });
  }

  /** Makes the message of a raw body, or of a piece of it. */
  fromBytes(target: Target, { contentType, data }: RawBody): Message {
    return this.#build(target, "", (message) => {
      // No body leaves the field unset, as it does for JSON.
      if (data.length === 0 && contentType === "") return;
      if (this.#body) setMessage(message, this.#input, this.#body, { contentType, data });
      else Object.assign(message, { contentType, data });
    });
  }

  /** Sets `after_sequence` from the last event id, if the request has that field unset; throws a refusal. */
  resume(message: Message, lastEventId: string): void {
    const field = this.#resume;
    if (!field || isFieldSet(message, field.desc)) return;
    const refuse = () =>
      this.#refusals.malformed([{ field: "Last-Event-ID", description: "must be an id this stream gave" }]);
    this.#merge(message, () => ({ [field.key]: leafJson(field, lastEventId) }), refuse);
  }

  /**
   * Sets the `etag` of the request, or of the resource in its body, from an `If-Match` header, if the
   * request has that field unset; throws a refusal.
   */
  ifMatch(message: Message, header: string): void {
    const [outer, inner] = this.#etag ?? [];
    if (!outer) return;
    const tag = demandedTag(header);
    if (tag === undefined) return;
    const refuse = (description: string) => this.#refusals.malformed([{ field: "If-Match", description }]);
    if (tag === null) throw refuse("must be one entity tag, in quotes");
    const json = inner ? { [outer.key]: { [inner.key]: tag } } : { [outer.key]: tag };
    if (!this.#hasEtag(message, outer, inner))
      this.#merge(
        message,
        () => json,
        () => refuse("cannot be read"),
      );
  }

  #hasEtag(message: Message, outer: Field, inner: Field | undefined): boolean {
    if (!isFieldSet(message, outer.desc)) return false;
    if (!inner || outer.desc.fieldKind !== "message") return true;
    return reflect(this.#input, message).get(outer.desc).isSet(inner.desc);
  }

  #build(target: Target, where: string, setBody: (message: Message) => void): Message {
    const message = create(this.#input);
    const contradiction = () =>
      this.#refusals.of("malformed", `${where}the path and the query parameters contradict each other`);
    if (!isEmpty(target.query)) this.#merge(message, () => target.query, contradiction);
    setBody(message);
    if (!isEmpty(target.path)) this.#merge(message, () => target.path, contradiction);
    return message;
  }

  #merge(message: Message, json: () => JsonValue, refusal: () => ConnectError): void {
    try {
      mergeFromJson(this.#input, message, json(), this.spelling.jsonOptions);
    } catch {
      throw refusal();
    }
  }

  #bindPath(captures: readonly Capture[]): JsonObject {
    const root: JsonObject = {};
    for (const capture of captures) {
      const fields = this.#variables.get(capture.field) ?? [];
      const field = fields.at(-1) as Field;
      const value = leafJson(field, this.#decode(capture));
      let one: JsonValue = value;
      for (const each of fields.toReversed()) one = { [each.key]: one };
      this.#merge(
        create(this.#input),
        () => one,
        () => {
          const description = `must be ${expected(field.desc, () => field.enum?.names ?? [])}`;
          return this.#refusals.malformed([{ field: capture.field, description }]);
        },
      );
      objectAt(root, fields.slice(0, -1))[field.key] = value;
    }
    return root;
  }

  #decode(capture: Capture): string {
    try {
      return decodeCapture(capture, this.#options.fullyDecode);
    } catch {
      const description = "is not percent-encoded UTF-8";
      throw this.#refusals.of("bad-encoding", `${capture.field} ${description}`, [
        { field: capture.field, description },
      ]);
    }
  }

  #bindQuery(parameters: readonly Parameter[], what = "query parameter"): JsonObject {
    if (parameters.length === 0) return {};
    if (this.rule.body === "*") {
      if (this.#options.ignoreUnknownQuery) return {};
      const description = "is not a parameter of this method: its body holds the whole request";
      throw this.#unknown(
        parameters.map(([field]) => ({ field, description, unknown: true })),
        what,
      );
    }
    const body = this.#body?.desc.name;
    const bound = bindQuery(
      this.spelling,
      this.#plan,
      parameters,
      (path) => path === body || (body && path.startsWith(`${body}.`)) || this.#variables.has(path),
    );
    const violations = this.#options.ignoreUnknownQuery
      ? bound.violations.filter((violation) => !violation.unknown)
      : bound.violations;
    if (violations.length > 0) throw this.#unknown(violations, what);
    return bound.json;
  }

  #unknown(violations: readonly Violation[], what: string): ConnectError {
    const unknown = violations.filter((v) => v.unknown);
    if (unknown.length === 0) return this.#refusals.malformed(violations);
    const names = unknown.map((v) => v.field).join(", ");
    return this.#refusals.of("unknown-query", `unknown ${what}: ${names}`, violations);
  }

  #chain(path: string): Field[] {
    let plan: Plan | undefined = this.#plan;
    return variableFields(this.rule.method, path).map((desc) => {
      const field = plan?.fields.get(desc.name) as Field;
      plan = field.child;
      return field;
    });
  }

  /** Whether the body is the bytes of a file and nothing else. */
  get #isFile(): boolean {
    return (
      this.isRaw ||
      (this.#body?.desc.fieldKind === "scalar" && scalarOf(this.#body.desc) === ScalarType.BYTES)
    );
  }

  /** The message whose fields the parts of a form are. */
  get #formPlan(): Plan | undefined {
    if (this.rule.body === "*") return this.#plan;
    return this.#singularMessage(this.#body) ? this.#body?.child : undefined;
  }

  #findEtag(): readonly Field[] | undefined {
    const own = etagField(this.#input);
    if (own) return [this.#plan.fields.get(own.name) as Field];
    const body = this.#body;
    const inner = etagField(this.#singularMessage(body));
    return body && inner ? [body, body.child?.fields.get(inner.name) as Field] : undefined;
  }

  #singularMessage(field: Field | undefined): DescMessage | undefined {
    return field?.desc.fieldKind === "message" ? field.desc.message : undefined;
  }

  #findMask(): Field | undefined {
    if (this.rule.httpMethod !== "PATCH" || !this.#singularMessage(this.#body) || !this.#body?.child) {
      return undefined;
    }
    const masks = this.#input.fields.filter((f) => f.message?.typeName === "google.protobuf.FieldMask");
    const [mask] = masks;
    return masks.length === 1 && mask?.fieldKind === "message" ? this.#plan.fields.get(mask.name) : undefined;
  }

  /** The fields the client wrote; those in the path and the `etag` say which resource it is, not what changes. */
  #setMask(message: Message, mask: Field, body: Field, json: JsonValue): void {
    const paths = isObject(json) && body.child ? maskPaths(body.child, json, "") : [];
    const etag = this.#etag?.[1]?.desc.name;
    const changed = paths.filter(
      (path) => path !== etag && !this.#variables.has(`${body.desc.name}.${path}`),
    );
    setMessage(message, this.#input, mask, { paths: changed });
  }

  #findResume(): Field | undefined {
    const field = this.#plan.fields.get("after_sequence");
    const isOutput = this.rule.method.methodKind === "server_streaming";
    return isOutput && field?.desc.fieldKind === "scalar" && field.desc.scalar === ScalarType.UINT64
      ? field
      : undefined;
  }
}

function maskPaths(plan: Plan, json: JsonObject, prefix: string): string[] {
  return Object.entries(json).flatMap(([name, value]) => {
    const field = plan.fields.get(name);
    if (!field) return [];
    const path = prefix + field.desc.name;
    const nested = field.desc.fieldKind === "message" && !isLeaf(field.desc) && field.child;
    return nested && isObject(value) && !isEmpty(value) ? maskPaths(nested, value, `${path}.`) : [path];
  });
}

function setMessage(message: Message, owner: DescMessage, field: Field, init: Record<string, unknown>): void {
  const { desc } = field;
  if (desc.fieldKind !== "message") return;
  reflect(owner, message).set(desc, reflect(desc.message, create(desc.message, init)));
}

function isEmpty(object: JsonObject): boolean {
  for (const _ in object) return false;
  return true;
}
