import { hash } from "node:crypto";
import { type DescField, type DescMessage, type Message, ScalarType } from "@bufbuild/protobuf";

const TAG = /^(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"$/;
/** Not a hyphen, which is common within tags. */
const BEFORE_DETAIL = ";";

/** What stands for some bytes in a tag: 128 bits of their SHA-256. */
export function digestOf(data: Uint8Array): string {
  return hash("sha256", data, "base64url").slice(0, 22);
}

/** A tag of a resource as a header has it: with quotes, and escaped where a tag cannot hold a character. */
export function quoted(tag: string): string {
  return TAG.test(tag) ? tag : `"${tag.replace(/[^!#$&-:<-~]+/g, encodeURIComponent)}"`;
}

/** The tag of one representation of a resource: a strong tag is for one sequence of bytes only. */
export function narrowed(tag: string, by: string): string {
  return tag.startsWith("W/") ? tag : `${tag.slice(0, -1)}${BEFORE_DETAIL}${by}"`;
}

/** The tag of a resource, without quotes, by that of any of its representations. */
function bareTag(tag: string): string {
  const [bare = ""] = tag.slice(1, -1).split(BEFORE_DETAIL, 1);
  try {
    return decodeURIComponent(bare);
  } catch {
    return bare;
  }
}

/** Finds the string field `etag` of a message. */
export function etagField(message: DescMessage | undefined): DescField | undefined {
  const field = message?.fields.find((f) => f.name === "etag");
  return field?.fieldKind === "scalar" && field.scalar === ScalarType.STRING ? field : undefined;
}

/** Where a response has the tag of its resource. */
export interface TagPlace {
  /** The names that lead to it. */
  readonly path: readonly string[];
  /** Whether there is anything else in the response, which may change while the tag does not. */
  readonly hasOther: boolean;
}

/**
 * Finds the `etag` of responses: that of the response, or of the only message it holds. Where a field is
 * the response body, that of the field.
 */
export function tagPlace(output: DescMessage, responseBody: DescField | undefined): TagPlace | undefined {
  const own = etagField(output);
  if (own && !own.oneof && !responseBody) return { path: [own.localName], hasOther: false };
  const messages = responseBody ? [responseBody] : output.fields.filter((f) => f.message);
  const [only] = messages;
  if (messages.length !== 1 || only?.fieldKind !== "message" || only.oneof) return undefined;
  const field = etagField(only.message);
  if (!field || field.oneof) return undefined;
  return { path: [only.localName, field.localName], hasOther: !responseBody && output.fields.length > 1 };
}

/** The tag in its place in a response, with quotes; undefined if there is none. */
export function tagIn(response: Message, { path }: TagPlace): string | undefined {
  let value: unknown = response;
  for (const name of path) value = (value as Record<string, unknown> | undefined)?.[name];
  return typeof value === "string" && value !== "" ? quoted(value) : undefined;
}

/** Whether a client that sent `If-None-Match` has the representation with this tag. */
export function hasTag(ifNoneMatch: string, tag: string): boolean {
  if (ifNoneMatch.trim() === "*") return true;
  const opaque = (one: string) => one.replace(/^W\//, "");
  return tagsOf(ifNoneMatch)?.some((one) => opaque(one) === opaque(tag)) ?? false;
}

/**
 * The resource tag that an `If-Match` header demands; undefined for `*`, null if it is not one tag. A weak
 * tag is kept as it came, since it never matches.
 */
export function demandedTag(ifMatch: string): string | undefined | null {
  if (ifMatch.trim() === "*") return undefined;
  const tags = tagsOf(ifMatch);
  if (tags?.length !== 1) return null;
  const [tag = ""] = tags;
  return tag.startsWith("W/") ? tag : bareTag(tag);
}

/** The tags of a list; undefined if it is malformed. */
function tagsOf(header: string): string[] | undefined {
  const tags = header.match(/(?:W\/)?"[^"]*"/g) ?? [];
  const rest = header.replace(/(?:W\/)?"[^"]*"/g, "");
  return tags.length > 0 && /^[\s,]*$/.test(rest) ? tags : undefined;
}

/** Whether what was last modified then has not changed since, for a client that asks by date. */
export function isUnmodified(ifModifiedSince: string, lastModified: unknown): boolean {
  const modified = typeof lastModified === "string" ? Date.parse(lastModified) : Number.NaN;
  return modified <= Date.parse(ifModifiedSince);
}

/** Whether a range still belongs to what the client has a part of. */
export function isSameForRange(ifRange: string | undefined, tag: string, lastModified: unknown): boolean {
  if (ifRange === undefined) return true;
  return ifRange.endsWith('"') ? ifRange === tag && !tag.startsWith("W/") : ifRange === lastModified;
}

/** A part of some bytes, both ends included. */
export interface Range {
  readonly first: number;
  readonly last: number;
}

/**
 * The single range of bytes a `Range` header asks for: "none" if it lies outside, undefined if the header
 * is to be ignored, as it is when malformed, of another unit, or of several ranges.
 */
export function rangeOf(header: string, size: number): Range | "none" | undefined {
  const match = /^\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*$/i.exec(header);
  if (!match) return undefined;
  const [, from = "", to = ""] = match;
  if (from === "" && to === "") return undefined;
  if (from === "") {
    const length = Math.min(Number(to), size);
    return length === 0 ? "none" : { first: size - length, last: size - 1 };
  }
  const first = Number(from);
  const last = to === "" ? size - 1 : Number(to);
  if (to !== "" && last < first) return undefined;
  return first >= size ? "none" : { first, last: Math.min(last, size - 1) };
}
