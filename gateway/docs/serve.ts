import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import type { JsonObject } from "@bufbuild/protobuf";
import type { Request, Response } from "../connect/lane.ts";
import { asyncApiAt, isOwnPageHere, openApiAt, originOf, postmanAt } from "./origin.ts";

/** The documents of the contract and the page to explore it with. */
export interface Documents {
  /** Serves the request; false, with nothing written, if it is for something else. */
  serve(request: Request, response: Response): boolean;
  /**
   * Gives the explorer a key to call with. It is told to pages on this machine only, see
   * `isOwnPageHere`; whoever can open one may use it, so it must reach nothing of value.
   */
  offerKey(offer: { apiKey: string; tenantId: string }): void;
}

const gen = join(import.meta.dirname, "../../gen");
const page = join(import.meta.dirname, "explorer");
const swaggerUi = dirname(createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"));

/** The files of the explorer, by their name under /docs. Nothing else is read from these folders. */
const pageFiles: Record<string, readonly [path: string, type: string]> = {
  "": [join(page, "index.html"), "text/html; charset=utf-8"],
  "explorer.css": [join(page, "explorer.css"), "text/css; charset=utf-8"],
  "explorer.js": [join(page, "explorer.js"), "text/javascript; charset=utf-8"],
  "favicon-32x32.png": [join(swaggerUi, "favicon-32x32.png"), "image/png"],
  "swagger-ui.css": [join(swaggerUi, "swagger-ui.css"), "text/css; charset=utf-8"],
  "swagger-ui-bundle.js": [join(swaggerUi, "swagger-ui-bundle.js"), "text/javascript; charset=utf-8"],
  "swagger-ui-standalone-preset.js": [
    join(swaggerUi, "swagger-ui-standalone-preset.js"),
    "text/javascript; charset=utf-8",
  ],
};

/** What the page may do: run its own scripts and call its own origin. */
const pagePolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** How long a browser may use a file of the explorer without asking, in seconds. */
const pageMaxAgeS = 3600;

/** Most renderings kept: the Host header, of which each depends, is the client's to choose. */
const renderingsKept = 64;

/** From what size on a body is compressed, in bytes. */
const compressFrom = 1024;

interface Rendering {
  readonly type: string;
  readonly body: Buffer;
  readonly gzip: Buffer | undefined;
  readonly etag: string;
}

/** Makes the documents at their addresses; they are read when first asked for. */
export function createDocuments(): Documents {
  const documents = documentPaths();
  const renderings = new Map<string, Rendering>();
  let offered: { apiKey: string; tenantId: string } | undefined;

  function rendering(key: string, make: () => { type: string; body: Buffer }): Rendering {
    const known = renderings.get(key);
    if (known) return known;
    const { type, body } = make();
    const gzip = body.length >= compressFrom && type !== "image/png" ? gzipSync(body) : undefined;
    const etag = `W/"${createHash("sha256").update(body).digest("base64url").slice(0, 27)}"`;
    if (renderings.size >= renderingsKept) renderings.delete(renderings.keys().next().value as string);
    const made = { type, body, gzip, etag };
    renderings.set(key, made);
    return made;
  }

  function find(path: string, request: Request): { found: Rendering; cacheControl: string } | undefined {
    const document = documents.get(path);
    if (document) {
      const origin = originOf(request);
      const found = rendering(`${path} ${origin}`, () => jsonBody(document(origin)));
      return { found, cacheControl: "no-cache" };
    }
    const file = pageFile(path);
    if (!file) return undefined;
    const [name, type] = file;
    const found = rendering(name, () => ({ type, body: readFileSync(name) }));
    return { found, cacheControl: type.startsWith("text/html") ? "no-cache" : `max-age=${pageMaxAgeS}` };
  }

  function settings(request: Request): JsonObject {
    return {
      documents: [...documents.keys()]
        .filter((path) => path === "/openapi.json" || path.startsWith("/openapi/"))
        .map((url) => ({ url, name: url === "/openapi.json" ? "Everything" : basename(url, ".json") })),
      ...(offered && isOwnPageHere(request) && offered),
    };
  }

  return {
    serve(request, response) {
      const path = request.url?.split("?", 1)[0] ?? "";
      const isSettings = path === "/docs/settings.json";
      if (!isSettings && !documents.has(path) && !pageFile(path)) return false;
      request.resume();
      response.setHeader("x-content-type-options", "nosniff");
      if (path.startsWith("/docs")) response.setHeader("content-security-policy", pagePolicy);
      if (request.method !== "GET" && request.method !== "HEAD") {
        response.setHeader("allow", "GET, HEAD");
        response.statusCode = 405;
        response.end();
      } else if (isSettings) {
        response.setHeader("cache-control", "no-store");
        response.setHeader("content-type", "application/json");
        response.end(request.method === "HEAD" ? "" : JSON.stringify(settings(request)));
      } else {
        const { found, cacheControl } = find(path, request) as NonNullable<ReturnType<typeof find>>;
        response.setHeader("cache-control", cacheControl);
        send(request, response, found);
      }
      return true;
    },
    offerKey({ apiKey, tenantId }) {
      offered = { apiKey, tenantId };
    },
  };
}

function pageFile(path: string): readonly [string, string] | undefined {
  const [, name] = /^\/docs(?:\/([\w.-]*))?$/.exec(path) ?? [undefined, undefined];
  if (path === "/docs") return pageFiles[""];
  return name !== undefined && Object.hasOwn(pageFiles, name) ? pageFiles[name] : undefined;
}

/** The address of each document, with what makes it for an origin. */
function documentPaths(): Map<string, (origin: string | undefined) => JsonObject> {
  const document = (file: string, at: (document: JsonObject, origin: string) => JsonObject) => {
    let read: JsonObject | undefined;
    return (origin: string | undefined) => {
      read ??= JSON.parse(readFileSync(join(gen, file), "utf8")) as JsonObject;
      return origin ? at(read, origin) : read;
    };
  };
  const whole = document("openapi/portolan.json", openApiAt);
  const postman = document("postman.json", postmanAt);
  const surfaces = readdirSync(join(gen, "openapi")).filter((name) => name !== "portolan.json");
  return new Map([
    ["/openapi.json", whole],
    ["/api/v1/openapi", whole],
    ...surfaces.map((name) => [`/openapi/${name}`, document(`openapi/${name}`, openApiAt)] as const),
    ["/asyncapi.json", document("asyncapi.json", asyncApiAt)],
    ["/postman.json", postman],
    ["/api/v1/postman", postman],
  ]);
}

const jsonBody = (document: JsonObject) => ({
  type: "application/json",
  body: Buffer.from(JSON.stringify(document)),
});

function send(request: Request, response: Response, { type, body, gzip, etag }: Rendering): void {
  response.setHeader("etag", etag);
  response.setHeader("vary", "Accept-Encoding, Host, X-Forwarded-Proto");
  if (request.headers["if-none-match"]?.split(/\s*,\s*/).includes(etag)) {
    response.statusCode = 304;
    response.end();
    return;
  }
  const coded = gzip && /\bgzip\b(?!\s*;\s*q=0(?:\.0*)?(?:,|$))/i.test(acceptEncoding(request));
  const bytes = coded ? gzip : body;
  response.setHeader("content-type", type);
  if (coded) response.setHeader("content-encoding", "gzip");
  response.setHeader("content-length", bytes.length);
  // Over HTTP/1.1 and HTTP/2 alike; their types differ in `end`.
  (response as { end(chunk?: Uint8Array): unknown }).end(request.method === "HEAD" ? undefined : bytes);
}

const acceptEncoding = ({ headers }: Request): string => String(headers["accept-encoding"] ?? "");
