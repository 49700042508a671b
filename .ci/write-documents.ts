/**
 * Writes the OpenAPI, AsyncAPI and Postman documents of the contract and its error reasons into a
 * folder, `gen` if none is given. Needs `.third-party/`, and generated code that is fresh.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import { asyncApiDocument } from "../gateway/docs/asyncapi.ts";
import { readContract } from "../gateway/docs/contract.ts";
import { openApiDocuments, wholeName } from "../gateway/docs/openapi.ts";
import { postmanCollection } from "../gateway/docs/postman.ts";
import { reasonsPage } from "../gateway/docs/reasons.ts";

const [out = "gen"] = process.argv.slice(2);
const about = JSON.parse(readFileSync("package.json", "utf8"));
const contract = readContract(buildImage());

const openApi = openApiDocuments(contract, about);
for (const [name, document] of openApi) write(`openapi/${name}.json`, document);
write("asyncapi.json", asyncApiDocument(contract, about));
write("postman.json", postmanCollection(openApi.get(wholeName) as JsonObject));

writeFileSync(join(out, "reasons.md"), reasonsPage(contract));

function write(path: string, document: JsonObject): void {
  const target = join(out, path);
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, `${JSON.stringify(document, null, 2)}\n`);
}

/** The contract with its comments, which generated code leaves out. */
function buildImage(): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), "portolan-image-"));
  try {
    const image = join(folder, "contract.binpb");
    execFileSync("buf", ["build", "--output", image], { stdio: "inherit" });
    return readFileSync(image);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
