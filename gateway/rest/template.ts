/** One segment of a template: a decoded literal, `*` (exactly one segment) or `**` (any number of them). */
export type Segment =
  | { readonly kind: "literal"; readonly text: string }
  | { readonly kind: "single" }
  | { readonly kind: "rest" };

/** A variable and the segments it holds: `start` up to, not including, `end`. */
export interface Variable {
  /** The dotted path of a request field. */
  readonly field: string;
  readonly start: number;
  readonly end: number;
  /** Whether it holds anything but exactly one segment: then `%2F` is left as it came. */
  readonly multi: boolean;
}

/** A parsed `google.api.http` path template. */
export interface Template {
  readonly text: string;
  readonly segments: readonly Segment[];
  readonly variables: readonly Variable[];
  /** What follows the colon of the last segment, decoded, or the empty string. */
  readonly verb: string;
}

const LITERAL = /^(?:[A-Za-z0-9\-._~!$&'()+,;=:@]|%[0-9A-Fa-f]{2})+$/;
const FIELD_PATH = /^[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*$/;

/**
 * Parses a path template by the grammar in `google/api/http.proto`. Throws an `Error` that quotes the
 * template and says what is wrong with it.
 */
export function parseTemplate(text: string): Template {
  const fail = (why: string): never => {
    throw new Error(`invalid path template "${text}": ${why}`);
  };
  if (!text.startsWith("/")) fail("it must start with a slash");

  const { path, verb } = splitVerb(text);
  if (verb !== undefined && !LITERAL.test(verb)) fail(`":${verb}" is not a verb`);

  const segments: Segment[] = [];
  const variables: Variable[] = [];
  const add = (part: string): void => {
    if (segments.at(-1)?.kind === "rest") fail('"**" must be the last segment');
    if (part === "*") segments.push({ kind: "single" });
    else if (part === "**") segments.push({ kind: "rest" });
    else if (part === "") fail("it has an empty segment");
    else if (LITERAL.test(part)) segments.push({ kind: "literal", text: decodeLiteral(part, fail) });
    else fail(`"${part}" is not a segment`);
  };

  let rest = path.slice(1);
  if (rest === "" && verb !== undefined) fail("a verb needs a segment before it");
  while (rest !== "") {
    if (rest.startsWith("{")) {
      const close = rest.indexOf("}");
      if (close < 0) fail("a brace is not closed");
      const inner = rest.slice(1, close);
      const equals = inner.indexOf("=");
      const field = equals < 0 ? inner : inner.slice(0, equals);
      if (!FIELD_PATH.test(field)) fail(`"${field}" is not a field path`);
      if (variables.some((v) => v.field === field)) fail(`"${field}" is bound twice`);
      const start = segments.length;
      for (const part of (equals < 0 ? "*" : inner.slice(equals + 1)).split("/")) add(part);
      const end = segments.length;
      variables.push({ field, start, end, multi: end - start > 1 || segments[start]?.kind === "rest" });
      rest = rest.slice(close + 1);
    } else {
      const slash = rest.indexOf("/");
      const part = slash < 0 ? rest : rest.slice(0, slash);
      add(part);
      rest = rest.slice(part.length);
    }
    if (rest === "") break;
    if (!rest.startsWith("/")) fail("a variable must be followed by a slash, a verb or the end");
    rest = rest.slice(1);
    if (rest === "") fail("it ends with a slash");
  }
  return { text, segments, variables, verb: verb === undefined ? "" : decodeLiteral(verb, fail) };
}

/** Splits at the first colon of the last segment; colons inside braces belong to no verb. */
function splitVerb(text: string): { path: string; verb: string | undefined } {
  const from = Math.max(text.lastIndexOf("}"), text.lastIndexOf("/"));
  const colon = text.indexOf(":", from);
  return colon < 0
    ? { path: text, verb: undefined }
    : { path: text.slice(0, colon), verb: text.slice(colon + 1) };
}

function decodeLiteral(part: string, fail: (why: string) => never): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return fail(`"${part}" is not percent-encoded UTF-8`);
  }
}
