import { create, type JsonValue } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { JobService, ListJobsResponseSchema } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Surface } from "#gen/portolan/options/v1/surface_pb.js";
import { fail } from "#kernel/errors.ts";
import { dialectOf, dialectOfPath, surfaceDialect } from "./surfaces.ts";

const { listJobs, getJob, deleteJob } = JobService.method;
const wrap = dialectOfPath("/v1/agents").envelope as NonNullable<ReturnType<typeof dialectOf>["envelope"]>;
const info = { requestId: "request-1" };
const response = (fields: object = {}) => create(ListJobsResponseSchema, fields);

it("puts the resources of the platform's lists under data, with the pagination of its document", () => {
  const pageInfo = { page: 2, pageSize: 20, totalItems: 45, totalPages: 3, hasNext: true, hasPrevious: true };
  const body: JsonValue = { jobs: [{ job_id: "job-1" }], count: 1, next_page_token: "t" };
  expect(wrap(body, response({ pageInfo, nextPageToken: "t" }), listJobs, info)).toEqual({
    data: [{ job_id: "job-1" }],
    pagination: { page: 2, per_page: 20, total: 45, pages: 3, next_page_token: "t" },
  });
  expect(wrap(body, response(), listJobs, info)).toEqual({ data: [{ job_id: "job-1" }], pagination: {} });
});

it("puts one resource, or an answer that holds none, under data", () => {
  const other = create(getJob.output);
  expect(wrap({ job: { job_id: "job-1" } }, other, getJob, info)).toEqual({ data: { job_id: "job-1" } });
  expect(wrap({ message: "gone" }, create(deleteJob.output), deleteJob, info)).toEqual({
    data: { message: "gone" },
  });
});

it("puts success beside the fleet's own fields", () => {
  expect(
    dialectOf(listJobs, "/v3/jobs").envelope?.({ jobs: [], count: 0 }, response(), listJobs, info),
  ).toEqual({
    success: true,
    jobs: [],
    count: 0,
  });
});

describe("the release surface", () => {
  const release = surfaceDialect(Surface.RELEASE);
  const timestamp = expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/);
  const meta = { requestId: "request-1", timestamp };

  it("puts a list under data, and where it stands beside the id and the time of the request", () => {
    const pageInfo = {
      page: 2,
      pageSize: 20,
      totalItems: 45,
      totalPages: 3,
      hasNext: true,
      hasPrevious: true,
    };
    const body = { jobs: [{ jobId: "job-1" }], count: 1 };
    expect(release.envelope?.(body, response({ pageInfo }), listJobs, info)).toEqual({
      success: true,
      data: [{ jobId: "job-1" }],
      meta: { pagination: pageInfo, ...meta },
    });
  });

  it("puts one resource under data", () => {
    const body = { job: { jobId: "job-1" } };
    expect(release.envelope?.(body, create(getJob.output), getJob, info)).toEqual({
      success: true,
      data: { jobId: "job-1" },
      meta,
    });
    expect(release.envelopeVaries).toBe(true);
  });

  it("tells errors as its document does", () => {
    const violations = [{ field: "name", description: "is missing", reason: "REQUIRED" }];
    const error = fail("VALIDATION_ERROR", { message: "name: is missing", violations });
    expect(release.errorBody?.(error, { httpStatus: 400, ...info })).toEqual({
      success: false,
      error: {
        code: "VALIDATION_ERROR",
        message: "name: is missing",
        validationErrors: [{ field: "name", message: "is missing", code: "REQUIRED" }],
      },
      meta,
    });
  });
});

describe("a status that a document gives otherwise", () => {
  const conditional = false;
  it.each([
    ["RELEASE", "ILLEGAL_JOB_STATE", 422],
    ["RELEASE", "VALIDATION_ERROR", undefined],
    ["PLATFORM", "VALIDATION_ERROR", 422],
    ["PLATFORM", "MALFORMED_REQUEST", undefined],
    ["FLEET", "VALIDATION_ERROR", undefined],
    ["FLEET", "ETAG_MISMATCH", 412],
    ["INTEGRATION", "MESSAGE_TOO_LARGE", 413],
  ] as const)("on %s, %s", (surface, reason, status) => {
    expect(surfaceDialect(Surface[surface]).errorStatus?.(fail(reason), { conditional })).toBe(status);
  });
});
