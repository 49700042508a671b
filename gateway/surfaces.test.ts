import { create, type JsonValue } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { JobService, ListJobsResponseSchema } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { dialectOf, dialectOfPath } from "./surfaces.ts";

const { listJobs, getJob, deleteJob } = JobService.method;
const wrap = dialectOfPath("/v1/agents").envelope as NonNullable<ReturnType<typeof dialectOf>["envelope"]>;
const response = (fields: object = {}) => create(ListJobsResponseSchema, fields);

it("puts the resources of the platform's lists under data, with the pagination of its document", () => {
  const pageInfo = { page: 2, pageSize: 20, totalItems: 45, totalPages: 3, hasNext: true, hasPrevious: true };
  const body: JsonValue = { jobs: [{ job_id: "job-1" }], count: 1, next_page_token: "t" };
  expect(wrap(body, response({ pageInfo, nextPageToken: "t" }), listJobs)).toEqual({
    data: [{ job_id: "job-1" }],
    pagination: { page: 2, per_page: 20, total: 45, pages: 3, next_page_token: "t" },
  });
  expect(wrap(body, response(), listJobs)).toEqual({ data: [{ job_id: "job-1" }], pagination: {} });
});

it("puts one resource, or an answer that holds none, under data", () => {
  const other = create(getJob.output);
  expect(wrap({ job: { job_id: "job-1" } }, other, getJob)).toEqual({ data: { job_id: "job-1" } });
  expect(wrap({ message: "gone" }, create(deleteJob.output), deleteJob)).toEqual({
    data: { message: "gone" },
  });
});

it("puts success beside the fleet's own fields", () => {
  expect(dialectOf(listJobs, "/v3/jobs").envelope?.({ jobs: [], count: 0 }, response(), listJobs)).toEqual({
    success: true,
    jobs: [],
    count: 0,
  });
});
