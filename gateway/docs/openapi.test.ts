import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { readContract } from "./contract.ts";
import { openApiDocuments } from "./openapi.ts";

// A contract of its own, with what our own does not have yet.

const root = join(import.meta.dirname, "../..");

function compile(): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), "portolan-garden-"));
  try {
    cpSync(join(root, ".third-party"), folder, { recursive: true });
    cpSync(join(root, "proto/portolan/options"), join(folder, "portolan/options"), { recursive: true });
    cpSync(join(root, "proto/portolan/common"), join(folder, "portolan/common"), { recursive: true });
    cpSync(join(import.meta.dirname, "testdata/garden.proto"), join(folder, "garden.proto"));
    const buf = join(root, "node_modules/.bin/buf");
    return execFileSync(buf, ["build", "-o", "-"], { cwd: folder, maxBuffer: 64 * 1024 * 1024 });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const about = { version: "1.2.3", description: "A garden", license: "Apache-2.0" };
const documents = openApiDocuments(readContract(compile()), about);
// biome-ignore lint/suspicious/noExplicitAny: the document is read as the JSON it is
const { paths, components, info } = documents.get("platform") as any;
const schemaOf = (name: string) => components.schemas[name];
const namesOf = (parameters: JsonObject[]) => parameters.map((each) => each.name);

it("has a document for each surface and one for all", () => {
  expect([...documents.keys()].sort()).toEqual(["platform", "portolan"]);
  expect(info).toMatchObject({ title: "Portolan: platform", version: "1.2.3" });
});

it("unwraps comments, paragraph by paragraph, and takes the first sentence for the summary", () => {
  const { summary, description } = paths["/v1/beds"].get;
  expect(summary).toBe("Lists beds");
  expect(description).toContain("Lists beds: all of them. More is said here.\nAnd in a second paragraph.");
});

it("leaves out methods of HTTP that OpenAPI cannot say", () => {
  expect(Object.keys(paths["/v1/beds"])).toEqual(["get"]);
});

it("gives each binding an operation of its own", () => {
  expect(paths["/v1/beds"].get.operationId).toBe("GardenService_ListBeds");
  expect(paths["/v1/{parent}/beds"].get.operationId).toBe("GardenService_ListBeds2");
});

it("writes verbs, and variables of nested fields, in the surface's spelling", () => {
  expect(Object.keys(paths)).toContain("/v1/beds/{bed_id}:water");
  expect(Object.keys(paths)).toContain("/v1/beds/{bed.bed_id}");
});

it("flattens nested messages into the query, once, without what a query cannot hold", () => {
  const { parameters } = paths["/v1/beds"].get;
  const names = namesOf(parameters);
  expect(names).toContain("like.main_crop");
  expect(names.filter((name) => String(name).includes("neighbour"))).toEqual([]);
  expect(names.filter((name) => String(name).startsWith("except"))).toEqual([]);
  expect(names).toContain("crops");
  expect(parameters.find((each: JsonObject) => each.name === "like.signs")).toMatchObject({
    style: "deepObject",
  });
  expect(namesOf(paths["/v1/{parent}/beds"].get.parameters)[0]).toBe("parent");
});

it("says which parameters must be there, and by what the contract's rules", () => {
  const { parameters } = paths["/v1/beds"].get;
  expect(parameters.find((each: JsonObject) => each.name === "owner")).toMatchObject({
    required: true,
    schema: { type: "string", format: "email" },
    example: "someone@example.com",
  });
});

it("takes the body of one field and leaves the rest to the query", () => {
  const { requestBody, parameters } = paths["/v1/beds/{bed.bed_id}"].patch;
  expect(requestBody).toMatchObject({ required: true });
  expect(requestBody.content["application/json"].schema.$ref).toBe("#/components/schemas/BedInput");
  expect(namesOf(parameters)).toEqual(["bed.bed_id", "update_mask"]);
});

it("leaves what the path binds out of the body", () => {
  const { schema, example } = paths["/v1/beds/{bed_id}:water"].post.requestBody.content["application/json"];
  expect(Object.keys(schemaOf(schema.$ref.split("/").at(-1)).properties)).toEqual(["litres"]);
  expect(example).toEqual({ litres: 1 });
});

it("lists the fields that are always written as required, and others not", () => {
  const { required, properties } = schemaOf("Bed");
  expect(required.sort()).toEqual(["bed_id", "past_crops", "seal", "seed_count", "signs"]);
  expect(properties).toMatchObject({
    seed_count: { type: "string" },
    weight: { type: ["number", "null"] },
    any_value: {},
    seal: { contentEncoding: "base64" },
    dug_at: { format: "date-time" },
    neighbour: { $ref: "#/components/schemas/Bed" },
  });
  expect(schemaOf("BedInput").properties.rank).toMatchObject({ exclusiveMinimum: 0, exclusiveMaximum: 10 });
  expect(schemaOf("Crop").enum).toEqual(["beans", "leeks"]);
});

it("answers the field of response_body alone", () => {
  const { schema } = paths["/v1/{parent}/beds"].get.responses[200].content["application/json"];
  expect(JSON.stringify(schema)).toContain('"type":"array"');
});

it("knows bodies of any type, both ways", () => {
  const { requestBody, responses } = paths["/v1/beds/{bed_id}/picture"].post;
  expect(Object.keys(requestBody.content)).toEqual(["*/*"]);
  expect(Object.keys(responses[200].content)).toEqual(["*/*"]);
});

it("takes lines or an array where the client streams", () => {
  const { content } = paths["/v1/measurements"].post.requestBody;
  expect(Object.keys(content)).toEqual(["application/x-ndjson", "application/json"]);
  expect(content["application/json"].schema.type).toBe("array");
});

it("marks what is deprecated", () => {
  expect(paths["/v1/beds/{bed_id}:water"].post.deprecated).toBe(true);
  expect(paths["/v1/beds"].get).not.toHaveProperty("deprecated");
});

it("names reasons that are reasons, under the surface's error", () => {
  const { responses } = paths["/v1/beds/{bed_id}:water"].post;
  const { examples, schema } = responses[400].content["application/json"];
  expect(Object.keys(examples)).toContain("RESOURCE_BUSY");
  expect(Object.keys(examples)).not.toContain("FREE_TEXT");
  expect(schema.$ref).toBe("#/components/schemas/PlatformError");
  expect(schemaOf("PlatformError").properties.error.required).toContain("request_id");
});

it("tells what a call costs", () => {
  expect(paths["/v1/beds/{bed.bed_id}"].patch.description).toContain("counts as 5");
});
