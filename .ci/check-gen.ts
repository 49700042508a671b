/**
 * Fails when `gen/` is not what the contracts generate: it is generated again into a folder of its
 * own and compared file by file.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";

const fresh = mkdtempSync(join(tmpdir(), "portolan-gen-"));
try {
  execFileSync("buf", ["generate", "--output", fresh], { stdio: "inherit" });
  execFileSync(process.execPath, [".ci/write-documents.ts", join(fresh, "gen")], { stdio: "inherit" });
  const stale = compare(join(fresh, "gen"), "gen");
  for (const line of stale) console.error(line);
  if (stale.length > 0) {
    console.error("gen/ is stale: run `npm run generate` and commit the result");
    process.exitCode = 1;
  } else {
    console.log("gen/ is fresh");
  }
} finally {
  rmSync(fresh, { recursive: true, force: true });
}

function compare(expected: string, actual: string): string[] {
  const wanted = filesIn(expected);
  const present = filesIn(actual);
  return [
    ...[...wanted.keys()].filter((path) => !present.has(path)).map((path) => `missing  ${path}`),
    ...[...present.keys()].filter((path) => !wanted.has(path)).map((path) => `surplus  ${path}`),
    ...[...wanted]
      .filter(([path, text]) => present.has(path) && present.get(path) !== text)
      .map(([path]) => `differs  ${path}`),
  ];
}

function filesIn(folder: string): Map<string, string> {
  const paths = readdirSync(folder, { recursive: true, encoding: "utf8" }).map((path) => join(folder, path));
  const files = paths.filter((path) => statSync(path).isFile());
  return new Map(files.map((path) => [relative(folder, path), readFileSync(path, "utf8")]));
}
