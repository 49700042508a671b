import { existsSync, readFileSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { join, normalize, sep } from "node:path";
import { root } from "./gateway.ts";

/** Where the browser is that tests run. */
export const chromiumPath = process.env.PORTOLAN_TEST_CHROMIUM || "/usr/bin/chromium";

/** Why there is no browser; empty if there is one. */
export const browserMissing = existsSync(chromiumPath) ? "" : `there is no ${chromiumPath}`;

const packages = [
  "@bufbuild/protobuf",
  "@bufbuild/protovalidate",
  "@connectrpc/connect",
  "@connectrpc/connect-web",
];

/**
 * Serves an empty page that has the generated clients and their library, as a bundle would:
 * `load("@connectrpc/connect")` imports in the page, where a test's own `import` does not reach.
 */
export async function servePage(): Promise<{ origin: string; stop(): void }> {
  const html = `<!doctype html><title>A page</title><link rel="icon" href="data:,">
    <script type="importmap">${JSON.stringify({ imports: importMap() })}</script>
    <script>window.load = (name) => import(name)</script>`;
  const server = http.createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://page").pathname;
    if (path === "/") response.setHeader("content-type", "text/html").end(html);
    else {
      const file = normalize(join(root, path));
      const isPublic = ["node_modules", "gen"].some((folder) => file.startsWith(join(root, folder) + sep));
      if (!isPublic || !existsSync(file)) response.writeHead(404).end();
      else response.setHeader("content-type", "text/javascript").end(readFileSync(file));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    stop: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** Bare names of modules and the paths where the page finds them. */
function importMap(): Record<string, string> {
  const imports: Record<string, string> = {};
  for (const name of packages) {
    const folder = join("node_modules", name);
    const { exports } = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"));
    for (const [entry, target] of Object.entries<{ import?: string }>(exports)) {
      if (target.import) imports[join(name, entry)] = `/${join(folder, target.import)}`;
    }
  }
  return imports;
}
