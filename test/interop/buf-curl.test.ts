import { spawn } from "node:child_process";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { type Device, startDevice } from "../support/device.ts";
import { adminKey, root, startTestServer, type TestServer, until } from "../support/gateway.ts";
import { run } from "../support/tools.ts";

const buf = join(root, "node_modules/.bin/buf");
const dock = "buf-dock";

// A start of buf and its reflection round trips take seconds on a slow machine.
const timeout = 120_000;

describe.each(["grpc", "grpcweb", "connect"])(
  "buf curl over %s, with the schema by reflection",
  (protocol) => {
    let server: TestServer;
    let device: Device;
    let jobId: string;

    beforeAll(async () => {
      server = await startTestServer();
      device = await startDevice(server.grpc(), dock);
      const jobs = createClient(JobService, server.grpc());
      jobId = (await jobs.createJob({ name: "Survey", deviceGroupId: dock })).job?.jobId ?? "";
    });

    afterAll(async () => {
      await device?.stop();
      await server?.stop();
    });

    const args = (method: string, body: unknown) => [
      "curl",
      "--http2-prior-knowledge",
      "--protocol",
      protocol,
      "-H",
      `x-api-key: ${adminKey}`,
      "-d",
      JSON.stringify(body),
      `${server.url}/portolan.jobs.v1.JobService/${method}`,
    ];

    it("calls a unary RPC", { timeout }, async () => {
      const { code, stdout, stderr } = await run(buf, args("GetJob", { job_id: jobId }));
      expect(stderr).toBe("");
      expect(code).toBe(0);
      expect(JSON.parse(stdout).job).toMatchObject({ jobId, name: "Survey", deviceGroupId: dock });
    });

    it("shows an error with its reason", { timeout }, async () => {
      const { code, stderr } = await run(buf, args("GetJob", { job_id: "job-none" }));
      expect(code).not.toBe(0);
      const error = JSON.parse(stderr);
      expect(error).toMatchObject({ code: "not_found", message: "Job not found" });
      const types = error.details.map((detail: { type: string }) => detail.type);
      expect(types).toEqual(expect.arrayContaining(["google.rpc.ErrorInfo", "google.rpc.RequestInfo"]));
    });

    it("follows a job to its end", { timeout }, async () => {
      const child = spawn(buf, args("TrackJob", { job_id: jobId }), { stdio: ["ignore", "pipe", "pipe"] });
      let text = "";
      let errors = "";
      child.stdout.on("data", (chunk) => {
        text += chunk;
      });
      child.stderr.on("data", (chunk) => {
        errors += chunk;
      });
      const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
      const updates = () =>
        [...text.matchAll(/"sequence": "(\d+)"/g)].map(([, sequence]) => Number(sequence));
      await until(async () => updates().length >= 3 || child.exitCode !== null);
      await createClient(JobService, server.grpc()).cancelJob({ jobId });
      expect(await ended, errors).toBe(0);
      expect(text).toContain(`"jobId": "${jobId}"`);
      expect(text).toContain('"kind": "TRACK_KIND_FINAL"');
      expect(updates()).toEqual([...new Set(updates())].sort((a, b) => a - b));
      expect(updates().length).toBeGreaterThan(3);
    });
  },
);
