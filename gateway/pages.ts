import type { Request, Response } from "./connect/lane.ts";

/** Serves one path beside the calls; asked by HEAD it may write a body, which is not sent. */
export type Page = (request: Request, response: Response) => Promise<void> | void;

const methods = ["GET", "HEAD", "OPTIONS"] as const;

/** What is at fixed paths, for GET and HEAD. */
export interface Pages {
  /** Serves a path, and answers 405 to other methods; undefined if there is no such page. */
  at(path: string): Page | undefined;
  /** The HTTP methods of a path; undefined if there is no such page. */
  allow(path: string): readonly string[] | undefined;
}

/** Pages by path. */
export function createPages(pages: Readonly<Record<string, Page>>): Pages {
  const all = new Map(Object.entries(pages).map(([path, page]) => [path, forReading(path, page)]));
  return {
    at: (path) => all.get(path),
    allow: (path) => (all.has(path) ? methods : undefined),
  };
}

const forReading =
  (path: string, page: Page): Page =>
  (request, response) => {
    request.resume();
    if (request.method === "GET" || request.method === "HEAD") return page(request, response);
    response.setHeader("allow", methods.join(", "));
    const message = `${request.method} is not a method of ${path}`;
    sendJson(response, 405, { error: "METHOD_NOT_ALLOWED", message });
  };

/** Answers with JSON that is true of this moment alone. */
export function sendJson(response: Response, status: number, body: unknown): void {
  response.statusCode = status;
  response.setHeader("content-type", "application/json");
  response.setHeader("cache-control", "no-store");
  response.end(JSON.stringify(body));
}
