import { ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BadRequestSchema } from "#gen/google/rpc/error_details_pb.js";
import { JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { reasonOf } from "../errors.ts";
import { listFieldsOf } from "./field.ts";
import { parseFilter } from "./filter.ts";
import { parseSort } from "./sort.ts";

const fields = listFieldsOf(JobSchema);
const limits = { maxTerms: 6, maxDepth: 2 };
const parse = (json: unknown) => parseFilter(JSON.stringify(json), fields, limits);

/** The reason of the failure, the place and the reason there. */
function failure(work: () => unknown) {
  try {
    work();
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    const [violation] = error.findDetails(BadRequestSchema)[0]?.fieldViolations ?? [];
    return [reasonOf(error), violation?.field, violation?.reason];
  }
  throw new Error("it did not fail");
}

describe("a filter", () => {
  it("is the same in its long and short forms, by any name of a field and any spelling of a value", () => {
    const queued = { kind: "compare", field: "status", op: "eq", value: 2 };
    for (const json of [
      { status: "QUEUED" },
      { status: { eq: "queued" } },
      { status: "JOB_STATE_QUEUED" },
      { status: 2 },
      { status: { eq: "2" } },
    ]) {
      expect(parse(json)).toEqual(queued);
    }
    expect(parse({ status: "IN_PROGRESS" })).toEqual(parse({ status: "INPROGRESS" }));
    expect(parse({ device_group_id: "a" })).toEqual(parse({ deviceGroupId: "a" }));
    expect(parse({ priority: { in: "1,2" } })).toEqual(parse({ priority: [1, 2] }));
    expect(parse({ priority: { gte: "5", lt: 9 } })).toEqual(
      parse({ and: [{ priority: { gte: 5 } }, { priority: { lt: "9" } }] }),
    );
    expect(parse({ scheduledAt: null })).toEqual(parse({ scheduledAt: { exists: "false" } }));
    expect(parse({ scheduledAt: { ne: null } })).toEqual(parse({ scheduledAt: { exists: true } }));
    expect(parse({ createdAt: { gt: "2026-01-31T13:00:00+01:00" } })).toEqual(
      parse({ createdAt: { gt: "2026-01-31T12:00:00.000Z" } }),
    );
  });

  it("is none when there is nothing to filter by", () => {
    expect([parse({}), parseFilter("", fields, limits)]).toEqual([undefined, undefined]);
  });

  it.each<[string, string, string, string]>([
    ["what is not JSON", "status=QUEUED", "filter", "NOT_JSON"],
    ["a list", "[]", "filter", "WRONG_TYPE"],
    ["a field that the resource does not have", '{"colour":1}', "filter.colour", "UNKNOWN_FIELD"],
    ["a field that is not declared", '{"progress":{"gt":1}}', "filter.progress", "UNKNOWN_FIELD"],
    ["a field that hides in objects' own names", '{"__proto__":1}', "filter.__proto__", "UNKNOWN_FIELD"],
    ["an operator that there is not", '{"status":{"like":"Q"}}', "filter.status.like", "UNKNOWN_OPERATOR"],
    [
      "an operator that hides in objects' own names",
      '{"status":{"constructor":"Q"}}',
      "filter.status.constructor",
      "UNKNOWN_OPERATOR",
    ],
    [
      "a search in a field without one",
      '{"jobId":{"contains":"a"}}',
      "filter.jobId.contains",
      "UNKNOWN_OPERATOR",
    ],
    ["a prefix of a number", '{"priority":{"prefix":"1"}}', "filter.priority.prefix", "UNKNOWN_OPERATOR"],
    [
      "a text for a number",
      '{"or":[{"status":"QUEUED"},{"priority":{"gte":"x"}}]}',
      "filter.or[1].priority.gte",
      "WRONG_TYPE",
    ],
    ["a fraction for an integer", '{"priority":1.5}', "filter.priority", "WRONG_TYPE"],
    ["an integer that no column holds", '{"priority":99999999999}', "filter.priority", "WRONG_TYPE"],
    ["a number for a text", '{"name":1}', "filter.name", "WRONG_TYPE"],
    ["a text that no column holds", '{"name":"a\\u0000b"}', "filter.name", "WRONG_TYPE"],
    ["an object for a value", '{"name":{"eq":{}}}', "filter.name.eq", "WRONG_TYPE"],
    ["null for a value", '{"priority":{"gt":null}}', "filter.priority.gt", "WRONG_TYPE"],
    ["a state that there is not", '{"status":["QUEUED","FLYING"]}', "filter.status[1]", "WRONG_TYPE"],
    ["a time that is none", '{"createdAt":{"lt":"yesterday"}}', "filter.createdAt.lt", "WRONG_TYPE"],
    ["no values", '{"status":[]}', "filter.status", "WRONG_TYPE"],
    ["no operators", '{"status":{}}', "filter.status", "WRONG_TYPE"],
    ["no alternatives", '{"or":[]}', "filter.or", "WRONG_TYPE"],
    ["an empty alternative", '{"or":[{}]}', "filter.or[0]", "WRONG_TYPE"],
    ["the negation of nothing", '{"not":{}}', "filter.not", "WRONG_TYPE"],
    ["a negation of a value", '{"not":1}', "filter.not", "WRONG_TYPE"],
    [
      "more levels than the contract allows",
      '{"not":{"not":{"not":{"name":"a"}}}}',
      "filter.not.not.not",
      "TOO_DEEP",
    ],
    [
      "more comparisons than the contract allows",
      '{"priority":[1,2,3,4],"name":"a","status":["QUEUED","FAILED"]}',
      "filter.status",
      "TOO_MANY_TERMS",
    ],
  ])("refuses %s", (_, text, field, reason) => {
    expect(failure(() => parseFilter(text, fields, limits))).toEqual(["INVALID_FILTER", field, reason]);
  });
});

it("takes or refuses every JSON there is, and fails in no other way", () => {
  const keys = [
    "and",
    "or",
    "not",
    "name",
    "priority",
    "status",
    "createdAt",
    "eq",
    "in",
    "exists",
    "prefix",
    "x",
  ];
  const { json } = fc.letrec((tie) => ({
    json: fc.oneof(
      { maxDepth: 4 },
      fc.constantFrom(null, true, "QUEUED", "1", 3, -1.5, "2026-01-31T12:00:00Z"),
      fc.jsonValue({ maxDepth: 1 }),
      fc.array(tie("json"), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom(...keys), tie("json"), { maxKeys: 3 }),
    ),
  }));
  let taken = 0;
  fc.assert(
    fc.property(json, (value) => {
      const text = JSON.stringify(value);
      try {
        parseFilter(text, fields, limits);
        taken++;
      } catch {
        expect(failure(() => parseFilter(text, fields, limits))[0]).toBe("INVALID_FILTER");
      }
    }),
    { numRuns: 2000 },
  );
  expect(taken).toBeGreaterThan(0);
});

describe("an order", () => {
  it("ends with the id, in the direction of the key before it", () => {
    const keys = (text: string) =>
      parseSort(text, fields, "job_id").map(({ field, descending }) => (descending ? "-" : "") + field);
    expect(keys("-priority,createdAt")).toEqual(["-priority", "created_at", "job_id"]);
    expect(keys(" name , - device_group_id")).toEqual(["name", "-device_group_id", "-job_id"]);
    expect(keys("-jobId,name")).toEqual(["-job_id", "name"]);
  });

  it.each([
    ["progress", "UNKNOWN_FIELD"],
    ["", "UNKNOWN_FIELD"],
    ["name,,priority", "UNKNOWN_FIELD"],
    ["--name", "UNKNOWN_FIELD"],
    ["name,-name", "REPEATED_FIELD"],
    ["deviceGroupId,device_group_id", "REPEATED_FIELD"],
    ["name,priority,status,created_at,updated_at", "TOO_MANY_FIELDS"],
  ])('refuses "%s"', (text, reason) => {
    expect(failure(() => parseSort(text, fields, "job_id"))).toEqual(["INVALID_SORT", "sort", reason]);
  });
});
