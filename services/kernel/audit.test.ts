import { createHash } from "node:crypto";
import { create, fromJson } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { CreateApiKeyResponseSchema } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { ShareSchema } from "#gen/portolan/shares/v1/share_pb.js";
import { digestOf, fingerprint, idOf } from "./audit.ts";

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

it("digests proto3 JSON with sorted keys and no whitespace", () => {
  const job = create(JobSchema, { jobId: "job-1", name: "é", priority: 3 });
  expect(digestOf(JobSchema, job)).toBe(sha256('{"jobId":"job-1","name":"é","priority":3}'));
  expect(digestOf(JobSchema, undefined)).toBe("");
});

it("digests maps and structs alike, whatever the order of their keys", () => {
  const of = (metadata: Record<string, unknown>) =>
    digestOf(JobSchema, fromJson(JobSchema, { jobId: "job-1", metadata } as never));
  expect(of({ a: 1, b: { x: [1, 2], y: null } })).toBe(of({ b: { y: null, x: [1, 2] }, a: 1 }));
  expect(of({ a: [1, 2] })).not.toBe(of({ a: [2, 1] }));
});

it("leaves secrets out of digests, and the message as it was", () => {
  const of = (secret: string) => create(CreateApiKeyResponseSchema, { apiKey: { id: "key-1" }, secret });
  const answer = of("sk_one");
  expect(digestOf(CreateApiKeyResponseSchema, answer)).toBe(
    digestOf(CreateApiKeyResponseSchema, of("sk_two")),
  );
  expect(answer.secret).toBe("sk_one");
});

it("shows an id, and of an id that is a secret its fingerprint", () => {
  expect(idOf(JobSchema, create(JobSchema, { jobId: "job-1" }), "jobId")).toBe("job-1");
  const share = create(ShareSchema, { shareCode: "share-abc" });
  expect(idOf(ShareSchema, share, "shareCode")).toBe(fingerprint("share-abc"));
  expect(fingerprint("share-abc")).toBe(`sha256:${sha256("share-abc").slice(0, 16)}`);
});
