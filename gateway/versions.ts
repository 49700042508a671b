import type { DescMethod } from "@bufbuild/protobuf";
import { VersionService } from "#gen/portolan/meta/v1/version_service_pb.js";
import type { Deprecation, Version, Versions } from "#gen/portolan/options/v1/version_pb.js";
import { fail } from "#kernel/errors.ts";
import { dayMs, deprecationOf, endOfDayMs, mediaTypeOf, versionedSurfaces } from "#services/meta/versions.ts";
import {
  type Capture,
  type Incoming,
  mediaType,
  preferences,
  type Route,
  type RouteAnswer,
  rulesOf,
  splitTarget,
  type TranscoderOptions,
} from "./rest/index.ts";
import { isBelow, surfaceOf } from "./surfaces.ts";

/** The header that names a version, in requests and answers. */
export const versionHeader = "API-Version";

/** Where the support matrix is to be read. */
const matrixPath = rulesOf(VersionService.method.listVersions)[0]?.template ?? "";

/**
 * Gives each REST request the version that its URL, `API-Version` or media type asks for, and tells in
 * the answer which it was and what of it is deprecated.
 */
export const versionSelection: Required<Pick<TranscoderOptions, "onRoute" | "otherPaths">> = {
  onRoute(req, route, captures) {
    const { versions, noticeOfBinding, noticeOfRpc } = termsOf(route);
    const answer: RouteAnswer = versions ? select(versions, req) : {};
    const served = versions?.versions.find(({ name }) => name === answer.headers?.[versionHeader]);
    const notice = noticeOfBinding?.(captures) ?? noticeOfRpc ?? (served && noticeOfVersion(served));
    return notice ? { ...answer, headers: { ...answer.headers, ...notice } } : answer;
  },

  *otherPaths(req, path) {
    const surfaces = [...versionedSurfaces.values()];
    if (surfaces.some((versions) => prefixesOf(versions).some((prefix) => isBelow(path, prefix)))) return;
    const askedOf = (versions: Versions) => askedByHeader(req) ?? askedByAccept(versions, req).version;
    const serving = (versions: Versions) => servedBy(versions).includes(askedOf(versions) ?? "");
    // Where the version is not to be had, the path is still found, to be refused for that reason.
    for (const wanted of [true, false]) {
      for (const versions of surfaces.filter((each) => serving(each) === wanted)) {
        const asked = askedOf(versions);
        if (asked === undefined) continue;
        const served = versions.versions.filter((version) => version.path !== "");
        const from = served.findIndex(({ name }) => name === asked);
        const upTo = from < 0 ? served : served.slice(0, from + 1);
        for (const version of upTo.reverse()) yield version.path + path;
      }
    }
  },
};

/** What the contract says of a binding: options are slow to read. */
interface Terms {
  readonly versions: Versions | undefined;
  readonly noticeOfBinding: ((captures: readonly Capture[]) => Notice) | undefined;
  readonly noticeOfRpc: Notice | undefined;
}

type Notice = Readonly<Record<string, string>>;

const known = new WeakMap<Route, Terms>();

function termsOf(route: Route): Terms {
  const there = known.get(route);
  if (there) return there;
  const { method, template } = route;
  const deprecation = deprecationOf(method, template);
  const terms: Terms = {
    versions: versionedSurfaces.get(surfaceOf(method, template)),
    noticeOfBinding: deprecation && ((captures) => noticeOf(deprecation, captures)),
    noticeOfRpc: noticeOfMethod(method),
  };
  known.set(route, terms);
  return terms;
}

/** The headers that tell of the deprecation of an RPC as a whole, for every protocol. */
export function noticeOfMethod(method: DescMethod): Notice | undefined {
  const deprecation = deprecationOf(method);
  return deprecation && noticeOf(deprecation, []);
}

/** The version of a request, or why it cannot have one. */
function select(versions: Versions, req: Incoming): RouteAnswer {
  const vary = versions.vendorMediaType ? [versionHeader, "Accept"] : [versionHeader];
  const byAccept = askedByAccept(versions, req);
  const asked = [
    { by: "the URL", version: askedByUrl(versions, req) },
    { by: versionHeader, version: askedByHeader(req) },
    { by: "Accept", version: byAccept.version },
    { by: "Content-Type", version: askedByContentType(versions, req) },
  ].filter((each): each is { by: string; version: string } => each.version !== undefined);

  const served = servedBy(versions);
  const unknown = asked.find(({ version }) => !served.includes(version));
  if (unknown) {
    const supported = versions.versions.filter(({ name }) => served.includes(name));
    const names = supported.map((version) => mediaTypeOf(versions, version) ?? version.name).reverse();
    const message = `${unknown.by} asks for version ${unknown.version}, which is not supported`;
    const metadata = { version: unknown.version, supported_versions: names.join(",") };
    return { vary, error: fail("UNSUPPORTED_VERSION", { message, metadata }) };
  }
  const [first, ...others] = asked;
  const other = others.find(({ version }) => version !== first?.version);
  if (first && other) {
    const message = `${first.by} asks for version ${first.version}, ${other.by} for ${other.version}`;
    return { vary, error: fail("VERSION_CONFLICT", { message }) };
  }
  const version = first?.version ?? versions.defaultVersion;
  return { vary, headers: { [versionHeader]: version }, jsonType: byAccept.type };
}

const servedBy = ({ versions }: Versions): string[] =>
  versions.filter(({ path }) => path !== "").map(({ name }) => name);

const prefixesOf = ({ versions, unversionedPaths }: Versions): string[] =>
  [...versions.map(({ path }) => path), ...unversionedPaths].filter((prefix) => prefix !== "");

function askedByUrl({ versions }: Versions, req: Incoming): string | undefined {
  const { path } = splitTarget(req.url ?? "/");
  return versions.find((version) => version.path !== "" && isBelow(path, version.path))?.name;
}

/** `v2`, also for `2`; what is no version is given as it came, to be refused. */
function askedByHeader(req: Incoming): string | undefined {
  const header = req.headers[versionHeader.toLowerCase()];
  if (typeof header !== "string" || header.trim() === "") return undefined;
  const [, number] = /^\s*v?(\d{1,9})\s*$/i.exec(header) ?? [];
  return number === undefined ? header.trim().slice(0, 64) : `v${Number(number)}`;
}

/**
 * The vendor media type that the client likes best. One that is not served counts only if the client
 * takes nothing else.
 */
function askedByAccept(versions: Versions, req: Incoming): { version?: string; type?: string } {
  if (!versions.vendorMediaType) return {};
  const served = servedBy(versions);
  let refused: string | undefined;
  for (const { name, weight } of preferences(req.headers.accept)) {
    if (weight === 0) continue;
    const version = vendorVersion(versions, name);
    if (version === undefined) return {};
    if (served.includes(version)) return { version, type: name };
    refused ??= version;
  }
  return refused === undefined ? {} : { version: refused };
}

function askedByContentType(versions: Versions, req: Incoming): string | undefined {
  return vendorVersion(versions, mediaType(req.headers["content-type"] ?? "").type);
}

function vendorVersion({ vendorMediaType }: Versions, type: string): string | undefined {
  const [before = "", after = ""] = vendorMediaType.split("{version}");
  const isVendor = before !== "" && type.startsWith(before) && type.endsWith(after);
  return isVendor ? type.slice(before.length, type.length - after.length) : undefined;
}

const noticeOf = ({ since, sunset, note, successor }: Deprecation, captures: readonly Capture[]): Notice =>
  noticeFor(since, sunset, note, linkTo(successor, captures));

function noticeOfVersion({ name, deprecatedSince, sunset }: Version) {
  if (!deprecatedSince) return undefined;
  const until = sunset ? ` and may stop working after ${sunset}` : "";
  const note = `version ${name} is deprecated${until}`;
  return noticeFor(deprecatedSince, sunset, note, `<${matrixPath}>; rel="deprecation"`);
}

/** A link to what replaces a binding; its variables are those of the binding. */
function linkTo(successor: string, captures: readonly Capture[]): string | undefined {
  if (!successor) return undefined;
  const target = successor.replace(/\{([\w.]+)\}/g, (whole, name) => {
    return captures.find(({ field }) => field === name)?.raw ?? whole;
  });
  return /[{}<>\s]/.test(target) ? undefined : `<${target}>; rel="successor-version"`;
}

/** RFC 9745, RFC 8594, RFC 8288 and the old Warning of RFC 7234, which some clients show. */
function noticeFor(since: string, sunset: string, note: string, link: string | undefined) {
  return {
    Deprecation: `@${dayMs(since) / 1000}`,
    ...(sunset && { Sunset: new Date(endOfDayMs(sunset)).toUTCString() }),
    ...(link && { Link: link }),
    Warning: `299 - "${note.replace(/["\\]/g, "\\$&")}"`,
  };
}
