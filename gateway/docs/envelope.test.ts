import { create, type DescField, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { type Dialect, rulesOf } from "../rest/index.ts";
import { envelopeSchema } from "./envelope.ts";

/** The schema of an envelope, with the names of what it wraps in place of the schemas. */
function schemaWith(method: Parameters<typeof rulesOf>[0], envelope: Dialect["envelope"], message = {}) {
  const [rule] = rulesOf(method);
  if (!rule) throw new Error("the method has no binding");
  return envelopeSchema({ ...(envelope && { envelope }) }, rule, create(method.output, message), {
    body: (extra) => ({ is: "body", ...(extra && { extra }) }),
    field: ({ name }: DescField) => ({ is: name }),
    nameOf: ({ jsonName }) => jsonName,
  });
}

const { listJobs, getJob } = JobService.method;
const part = (body: JsonValue, name: string): JsonValue => (body as JsonObject)[name] ?? null;

it("of no envelope is that of the body", () => {
  expect(schemaWith(getJob, undefined)).toEqual({ is: "body" });
  expect(schemaWith(getJob, (body) => body)).toEqual({ is: "body" });
});

it("has what is put beside the body's own", () => {
  expect(schemaWith(getJob, (body) => ({ ok: true, ...(body as JsonObject) }))).toEqual({
    is: "body",
    extra: { ok: { type: "boolean", const: true } },
  });
});

it("has the body where it is put", () => {
  expect(schemaWith(getJob, (body) => ({ data: body, meta: { pages: 2 } }))).toEqual({
    type: "object",
    properties: {
      data: { is: "body" },
      meta: { type: "object", properties: { pages: { type: "integer" } }, required: ["pages"] },
    },
    required: ["data", "meta"],
  });
});

it("has parts of the body where they are put", () => {
  expect(schemaWith(listJobs, (body) => ({ data: part(body, "jobs") }))).toMatchObject({
    properties: { data: { is: "jobs" } },
  });
  expect(schemaWith(getJob, (body) => ({ data: part(body, "job") }))).toMatchObject({
    properties: { data: { is: "job" } },
  });
});

it("has the list of a response_body where it is put", () => {
  const { listApiKeys } = ApiKeyService.method;
  expect(schemaWith(listApiKeys, (body) => ({ data: body }))).toMatchObject({
    properties: { data: { is: "body" } },
  });
});

it("requires what an empty response has too", () => {
  const envelope: Dialect["envelope"] = (body, response) => {
    const { nextPageToken } = response as unknown as { nextPageToken: string };
    return { data: part(body, "jobs"), ...(nextPageToken && { next: nextPageToken }) };
  };
  expect(schemaWith(listJobs, envelope, { nextPageToken: "t" })).toMatchObject({
    properties: { data: { is: "jobs" }, next: { type: "string" } },
    required: ["data"],
  });
});
