import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Device, flying, startDevice } from "../support/device.ts";
import { adminKey, root, startTestServer, type TestServer } from "../support/gateway.ts";
import { run } from "../support/tools.ts";

const dock = "python-dock";

interface Tools {
  readonly python: string;
  /** The compiler of the stubs, with its first arguments. */
  readonly protoc: readonly string[];
}

const output = (program: string, ...args: string[]): string | undefined => {
  const { status, stdout } = spawnSync(program, args, { encoding: "utf8" });
  return status === 0 ? stdout.trim() : undefined;
};

/** Whether a protoc knows `optional` in proto3 without being asked, as from 3.15 on. */
function isRecent(protoc: readonly string[]): boolean {
  const [program = "", ...args] = protoc;
  const [, major = 0, minor = 0] = /(\d+)\.(\d+)/.exec(output(program, ...args, "--version") ?? "") ?? [];
  return Number(major) > 3 || (Number(major) === 3 && Number(minor) >= 15);
}

/** The first Python that has grpcio, and grpcio-tools or, where that is old, protoc with its plugin. */
function findTools(): Tools | undefined {
  const pythons = [process.env.PYTHON ?? "python3", "/usr/bin/python3"];
  const plugin = output("which", "grpc_python_plugin");
  for (const python of pythons.filter((each) => output(each, "-c", "import grpc") !== undefined)) {
    const compilers = [
      [python, "-m", "grpc_tools.protoc"],
      ...(plugin ? [["protoc", `--plugin=protoc-gen-grpc_python=${plugin}`]] : []),
    ];
    const protoc = compilers.find(isRecent);
    if (protoc) return { python, protoc };
  }
  return undefined;
}

const tools = findTools();

const script = `
import sys
import grpc
from google.rpc import error_details_pb2, status_pb2
from portolan.common.v1 import track_pb2
from portolan.jobs.v1 import job_service_pb2, job_service_pb2_grpc
from portolan.streams.v1 import telemetry_pb2, telemetry_service_pb2, telemetry_service_pb2_grpc

address, key, group = sys.argv[1:]
metadata = (("x-api-key", key),)
channel = grpc.insecure_channel(address)
jobs = job_service_pb2_grpc.JobServiceStub(channel)
telemetry = telemetry_service_pb2_grpc.TelemetryServiceStub(channel)

request = job_service_pb2.CreateJobRequest(name="From Python", device_group_id=group, priority=4)
job = jobs.CreateJob(request, metadata=metadata).job
print("created", job.name, job.priority)

try:
    jobs.GetJob(job_service_pb2.GetJobRequest(job_id="job-none"), metadata=metadata)
except grpc.RpcError as error:
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    print("error", error.code().name, info.domain, info.reason)

def samples():
    for battery in (90, 89, 88):
        sample = telemetry_pb2.TelemetrySample(battery_percent=battery)
        yield telemetry_service_pb2.PublishTelemetryRequest(device_group_id=group, sample=sample)

print("published", telemetry.PublishTelemetry(samples(), metadata=metadata).accepted)

last = 0
count = 0
for update in jobs.TrackJob(job_service_pb2.TrackJobRequest(job_id=job.job_id), metadata=metadata):
    assert update.sequence > last
    last = update.sequence
    count += 1
    if count == 3:
        jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.job_id), metadata=metadata)
print("final", track_pb2.TrackKind.Name(update.kind), track_pb2.JobState.Name(update.job_state), update.battery_percent)

try:
    for update in jobs.TrackJob(job_service_pb2.TrackJobRequest(job_id=sys.argv[3]), metadata=metadata):
        pass
except grpc.RpcError as error:
    print("missing", error.code().name)
`;

describe.skipIf(!tools)(
  `Python's grpcio with stubs from the contracts${tools ? "" : " (grpcio or its tools are missing)"}`,
  () => {
    let server: TestServer;
    let device: Device;
    let stubs: string;

    beforeAll(async () => {
      stubs = mkdtempSync(join(tmpdir(), "portolan-python-"));
      const protos = (folder: string) =>
        readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).filter((file) =>
          file.endsWith(".proto"),
        );
      const out = [`--python_out=${stubs}`, `--grpc_python_out=${stubs}`];
      const files = [...protos("proto"), ...protos(".third-party")];
      const [program = "", ...first] = tools?.protoc ?? [];
      // Debian's protoc comes without descriptor.proto; google-gax has it.
      const wellKnown = "node_modules/google-gax/build/protos";
      const args = [...first, "-I", "proto", "-I", ".third-party", "-I", wellKnown, ...out, ...files];
      const { code, stderr } = await run(program, args, { cwd: root });
      if (code !== 0) throw new Error(stderr);
      server = await startTestServer();
      device = await startDevice(server.grpc(), dock);
      await device.publish(flying(dock, "", [14.5, 46.04, 300]));
    });

    afterAll(async () => {
      await device?.stop();
      await server?.stop();
      if (stubs) rmSync(stubs, { recursive: true, force: true });
    });

    it("calls, streams both ways, and reads error details", async () => {
      const address = new URL(server.url).host;
      const { code, stdout, stderr } = await run(
        tools?.python ?? "",
        ["-c", script, address, adminKey, dock],
        { cwd: stubs },
      );
      if (code !== 0) throw new Error(stderr);
      expect(stdout.trim().split("\n")).toEqual([
        "created From Python 4",
        "error NOT_FOUND portolan JOB_NOT_FOUND",
        "published 3",
        "final TRACK_KIND_FINAL JOB_STATE_CANCELLED 88.0",
        "missing NOT_FOUND",
      ]);
    });
  },
);
