import type { Template } from "./template.ts";

/** What a request path came to. */
export type Found<T> =
  | { readonly kind: "route"; readonly value: T; readonly captures: readonly Capture[] }
  /** The path is known, but not with this method; these are the ones it has. */
  | { readonly kind: "other-methods"; readonly allow: readonly string[] };

/** What a variable held, still percent-encoded. */
export interface Capture {
  readonly field: string;
  readonly raw: string;
  readonly multi: boolean;
  /** Where what `**` matched begins in `raw`; undefined if the variable has no `**`. */
  readonly rest: number | undefined;
}

interface Route<T> {
  readonly template: Template;
  readonly owner: string;
  readonly value: T;
}

interface Node<T> {
  readonly literals: Map<string, Node<T>>;
  single: Node<T> | undefined;
  rest: Node<T> | undefined;
  /** By verb, then by HTTP method; the method `*` stands for any. */
  readonly routes: Map<string, Map<string, Route<T>>>;
}

const ANY_METHOD = "*";

/**
 * Routes raw request paths over templates: a literal before `*` before `**` at every segment, going
 * back to the less specific one when the more specific lacks the path or the method.
 */
export class Router<T> {
  readonly #root: Node<T> = emptyNode();
  readonly #verbs = new Set<string>();

  /** Adds a route; throws if another one would answer exactly the same requests. */
  add(httpMethod: string, template: Template, owner: string, value: T): void {
    let node = this.#root;
    for (const segment of template.segments) {
      if (segment.kind === "single") node = node.single ??= emptyNode();
      else if (segment.kind === "rest") node = node.rest ??= emptyNode();
      else {
        const next = node.literals.get(segment.text) ?? emptyNode();
        node.literals.set(segment.text, next);
        node = next;
      }
    }
    const methods = node.routes.get(template.verb) ?? new Map<string, Route<T>>();
    const there = methods.get(httpMethod);
    if (there) {
      throw new Error(
        `${httpMethod} ${template.text} of ${owner} conflicts with ${httpMethod} ${there.template.text} of ${there.owner}`,
      );
    }
    methods.set(httpMethod, { template, owner, value });
    node.routes.set(template.verb, methods);
    if (template.verb) this.#verbs.add(template.verb);
  }

  /** Finds the route of a request by its raw path, without the query; undefined if no route has it. */
  find(httpMethod: string, rawPath: string): Found<T> | undefined {
    if (!rawPath.startsWith("/")) return undefined;
    const raw = rawPath === "/" ? [] : rawPath.slice(1).split("/");
    const last = raw.at(-1) ?? "";

    // The longest suffix that is a verb of this path is the verb; a colon of no verb is data.
    for (let colon = last.indexOf(":"); colon >= 0; colon = last.indexOf(":", colon + 1)) {
      const verb = decodeForLiterals(last.slice(colon + 1));
      if (!this.#verbs.has(verb)) continue;
      const found = this.#search(httpMethod, raw.with(-1, last.slice(0, colon)), verb);
      if (found) return found;
    }
    return this.#search(httpMethod, raw, "");
  }

  #search(httpMethod: string, raw: readonly string[], verb: string): Found<T> | undefined {
    const allow = new Set<string>();
    const route = visit(this.#root, 0, raw, raw.map(decodeForLiterals), verb, httpMethod, allow);
    if (route) return { kind: "route", value: route.value, captures: capture(route.template, raw) };
    return allow.size > 0 ? { kind: "other-methods", allow: allowed(allow) } : undefined;
  }
}

function visit<T>(
  node: Node<T>,
  at: number,
  raw: readonly string[],
  decoded: readonly string[],
  verb: string,
  httpMethod: string,
  allow: Set<string>,
): Route<T> | undefined {
  if (at === raw.length) {
    const route = pick(node, verb, httpMethod, allow);
    if (route) return route;
  } else {
    const literal = node.literals.get(decoded[at] ?? "");
    const byLiteral = literal && visit(literal, at + 1, raw, decoded, verb, httpMethod, allow);
    if (byLiteral) return byLiteral;
    const bySingle =
      node.single && raw[at] !== "" && visit(node.single, at + 1, raw, decoded, verb, httpMethod, allow);
    if (bySingle) return bySingle;
  }
  return node.rest && pick(node.rest, verb, httpMethod, allow);
}

function pick<T>(node: Node<T>, verb: string, httpMethod: string, allow: Set<string>): Route<T> | undefined {
  const methods = node.routes.get(verb);
  if (!methods) return undefined;
  const route =
    methods.get(httpMethod) ??
    (httpMethod === "HEAD" ? methods.get("GET") : undefined) ??
    methods.get(ANY_METHOD);
  if (!route) for (const method of methods.keys()) allow.add(method);
  return route;
}

/** The values of `Allow`, in a stable order; HEAD follows from GET, and OPTIONS is always answered. */
function allowed(methods: ReadonlySet<string>): string[] {
  const all = new Set([...methods, "OPTIONS"]);
  if (all.has("GET")) all.add("HEAD");
  return [...all].sort();
}

function capture(template: Template, raw: readonly string[]): Capture[] {
  return template.variables.map(({ field, start, end, multi }) => {
    if (template.segments[end - 1]?.kind !== "rest") {
      return { field, multi, raw: raw.slice(start, end).join("/"), rest: undefined };
    }
    const before = raw.slice(start, end - 1).join("/");
    return { field, multi, raw: raw.slice(start).join("/"), rest: before.length };
  });
}

/** Literals and verbs are compared decoded; one that cannot be decoded is compared as it is. */
function decodeForLiterals(raw: string): string {
  if (!raw.includes("%")) return raw;
  try {
    return decodeURIComponent(raw);
  } catch {
    return raw;
  }
}

/**
 * Decodes a capture once. One of several segments keeps `%2F` as it came, so that a slash in a segment
 * and a slash between segments stay apart; `fully` lifts that for what `**` matched. Throws `URIError` if
 * it is not percent-encoded UTF-8.
 */
export function decodeCapture({ raw, multi, rest }: Capture, fully = false): string {
  if (!raw.includes("%")) return raw;
  if (!multi) return decodeURIComponent(raw);
  if (!fully || rest === undefined) return decodeButSlashes(raw);
  return decodeButSlashes(raw.slice(0, rest)) + decodeURIComponent(raw.slice(rest));
}

function decodeButSlashes(raw: string): string {
  return raw
    .split(/(%2[Ff])/)
    .map((part, i) => (i % 2 ? part : decodeURIComponent(part)))
    .join("");
}

function emptyNode<T>(): Node<T> {
  return { literals: new Map(), single: undefined, rest: undefined, routes: new Map() };
}
