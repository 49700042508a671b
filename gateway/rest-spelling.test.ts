import { create } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { expect, it } from "vitest";
import { BadRequestSchema } from "#gen/google/rpc/error_details_pb.js";
import { CreateJobRequestSchema } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { fail, reasonOf } from "#kernel/errors.ts";
import { validate } from "./gate/validate.ts";
import { namesIn, spellError, spellPath } from "./rest-spelling.ts";

it.each([
  ["desired_location.coordinates[0]", "desiredLocation.coordinates[0]"],
  ["desired_location", "desiredLocation"],
  ["device_group_id", "deviceGroupId"],
  ['metadata["device_group_id"]', 'metadata["device_group_id"]'],
  ["no_field.of_it", "no_field.of_it"],
  ["", ""],
])("spells %s as bodies do", (path, spelled) => {
  expect(spellPath(CreateJobRequestSchema, path, namesIn(false))).toBe(spelled);
  expect(spellPath(CreateJobRequestSchema, path, namesIn(true))).toBe(path);
});

it("spells the fields of a broken rule, in the message too, and leaves other errors alone", () => {
  const thrown = (() => {
    try {
      validate(CreateJobRequestSchema, create(CreateJobRequestSchema, { name: "x" }));
    } catch (error) {
      return error as ConnectError;
    }
    throw new Error("it is valid");
  })();
  thrown.metadata.set("x-kept", "yes");
  const spelled = spellError(thrown, namesIn(false));
  expect(spelled.rawMessage).toBe(thrown.rawMessage.replace("device_group_id", "deviceGroupId"));
  expect(spelled.rawMessage).toMatch(/^deviceGroupId: /);
  expect(spelled.findDetails(BadRequestSchema)[0]?.fieldViolations[0]).toMatchObject({
    field: "deviceGroupId",
    reason: "STRING_MIN_LEN",
  });
  expect([spelled.code, reasonOf(spelled), spelled.metadata.get("x-kept")]).toEqual([
    thrown.code,
    "VALIDATION_ERROR",
    "yes",
  ]);
  expect(thrown.findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field).toBe("device_group_id");
  const other = fail("INVALID_SORT", { violations: [{ field: "device_group_id", description: "" }] });
  expect(spellError(other, namesIn(false))).toBe(other);
});
