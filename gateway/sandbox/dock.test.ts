import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { afterEach, describe, expect, it, vi } from "vitest";
import { DroneState, JobState } from "#gen/portolan/common/v1/track_pb.js";
import { type Dispatch, DispatchCommand, DispatchSchema } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import {
  type AcknowledgeDispatchRequest,
  DispatchService,
  type ReportJobRequest,
} from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { ActionOnArrival, type Job, JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import type { TelemetrySample } from "#gen/portolan/streams/v1/telemetry_pb.js";
import { TelemetryService } from "#gen/portolan/streams/v1/telemetry_service_pb.js";
import { runDock } from "./dock.ts";

const GROUP = "sandbox-dock-1";
const HOME = { lon: 10.14962, lat: 54.33188, altitudeM: 4 };
const WAIT = { timeout: 45_000, interval: 10 };

/** Stands for the server: what it was told, what it tells, and what it breaks. */
function createFakeServer() {
  const fake = {
    registered: [] as string[],
    acknowledged: [] as AcknowledgeDispatchRequest[],
    reports: [] as ReportJobRequest[],
    samples: [] as TelemetrySample[],
    streams: 0,
    watches: 0,
    lost: [] as Job[],
    /** Errors to answer the next calls with, by method. */
    faults: { register: [] as Code[], watch: [] as Code[], acknowledge: [] as Code[], report: [] as Code[] },
    breakTelemetryAfter: 0,
    send: (_: Dispatch) => {},
    dropWatch: () => {},
  };
  const fault = (codes: Code[]) => {
    const code = codes.shift();
    if (code !== undefined) {
      throw new ConnectError("fault", code);
    }
  };
  const transport = createRouterTransport((router) => {
    router.service(ResourceService, {
      registerResource(request) {
        fault(fake.faults.register);
        fake.registered.push(...request.devices.map((device) => device.deviceId));
        return {};
      },
    });
    router.service(JobService, { listJobs: () => ({ jobs: fake.lost }) });
    router.service(TelemetryService, {
      async publishTelemetry(requests) {
        fake.streams++;
        let count = 0n;
        for await (const { sample } of requests) {
          if (sample !== undefined) {
            fake.samples.push(sample);
          }
          count++;
          if (fake.breakTelemetryAfter > 0 && fake.samples.length === fake.breakTelemetryAfter) {
            throw new ConnectError("broken", Code.Unavailable);
          }
        }
        return { accepted: count };
      },
    });
    router.service(DispatchService, {
      async *watchDispatches(_, context) {
        fake.watches++;
        fault(fake.faults.watch);
        const queue: Dispatch[] = [];
        let wake = () => {};
        let dropped = false;
        fake.send = (dispatch) => {
          queue.push(dispatch);
          wake();
        };
        fake.dropWatch = () => {
          dropped = true;
          wake();
        };
        context.signal.addEventListener("abort", () => wake());
        yield {};
        while (!dropped && !context.signal.aborted) {
          const dispatch = queue.shift();
          if (dispatch !== undefined) {
            yield { dispatch };
          } else {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          }
        }
      },
      acknowledgeDispatch(request) {
        fault(fake.faults.acknowledge);
        fake.acknowledged.push(request);
        return {};
      },
      reportJob(request) {
        fault(fake.faults.report);
        fake.reports.push(request);
        return {};
      },
    });
  });
  return { fake, transport };
}

let stop: () => Promise<void> = async () => {};
afterEach(() => stop());

async function startDock(prepare: (fake: ReturnType<typeof createFakeServer>["fake"]) => void = () => {}) {
  const { fake, transport } = createFakeServer();
  prepare(fake);
  const controller = new AbortController();
  const running = runDock({
    transport,
    deviceGroupId: GROUP,
    name: "Kiel",
    home: HOME,
    signal: controller.signal,
    tickMs: 10,
    speed: 250,
    reportMs: 40,
    retryMs: 5,
    streamMs: 200,
  });
  stop = async () => {
    controller.abort();
    await running;
  };
  await vi.waitFor(() => expect(fake.watches).toBeGreaterThan(0), WAIT);
  return fake;
}

function order(
  jobId: string,
  command = DispatchCommand.START,
  coordinates = [10.151, 54.3325, 30],
): Dispatch {
  const job = create(JobSchema, {
    jobId,
    actionOnArrival: ActionOnArrival.HOVER,
    desiredLocation: { type: "Point", coordinates },
  });
  return create(DispatchSchema, { dispatchId: `dispatch-${jobId}-${command}`, command, job });
}

const statesOf = (reports: ReportJobRequest[], jobId: string) =>
  reports.filter((report) => report.jobId === jobId).map((report) => report.state);

describe("dock", () => {
  it("registers, takes an order, flies and reports it, one job after the other", async () => {
    const fake = await startDock();
    expect(fake.registered).toEqual([`${GROUP}-dock`, `${GROUP}-drone`]);
    fake.send(order("job-1"));
    await vi.waitFor(() => expect(statesOf(fake.reports, "job-1")).toContain(JobState.COMPLETED), WAIT);
    fake.send(order("job-2"));
    await vi.waitFor(() => expect(statesOf(fake.reports, "job-2")).toContain(JobState.COMPLETED), WAIT);
    expect(fake.acknowledged.map((one) => one.rejected)).toEqual([false, false]);
    const states = statesOf(fake.reports, "job-1");
    expect(states.length).toBeGreaterThan(2);
    expect(new Set(states.slice(0, -1))).toEqual(new Set([JobState.INPROGRESS]));
    const progress = fake.reports.filter((one) => one.jobId === "job-1").map((one) => one.progress ?? 0);
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
    expect(progress.at(-1)).toBe(100);
    const flying = fake.samples.filter((one) => one.jobId === "job-1").map((one) => one.droneState);
    expect(flying).toContain(DroneState.HOVER);
    expect(fake.streams).toBeGreaterThan(1);
  });

  it("cancels in the air and acknowledges a repeated order without flying again", async () => {
    const fake = await startDock();
    fake.send(order("job-1"));
    await vi.waitFor(() => expect(statesOf(fake.reports, "job-1")).toContain(JobState.INPROGRESS), WAIT);
    fake.send(order("job-1", DispatchCommand.CANCEL));
    await vi.waitFor(() => expect(statesOf(fake.reports, "job-1").at(-1)).toBe(JobState.CANCELLED), WAIT);
    fake.send(order("job-1"));
    await vi.waitFor(() => expect(fake.acknowledged).toHaveLength(3), WAIT);
    expect(fake.acknowledged.every((one) => !one.rejected)).toBe(true);
    expect(statesOf(fake.reports, "job-1").at(-1)).toBe(JobState.CANCELLED);
  });

  it("refuses a second order in flight and a place too far away", async () => {
    const fake = await startDock();
    fake.send(order("job-far", DispatchCommand.START, [11.15, 54.33]));
    await vi.waitFor(() => expect(fake.acknowledged).toHaveLength(1), WAIT);
    expect(fake.acknowledged[0]).toMatchObject({ rejected: true, message: expect.stringContaining("km") });
    fake.send(order("job-1"));
    await vi.waitFor(() => expect(statesOf(fake.reports, "job-1")).toContain(JobState.INPROGRESS), WAIT);
    fake.send(order("job-2"));
    await vi.waitFor(() => expect(fake.acknowledged).toHaveLength(3), WAIT);
    expect(fake.acknowledged[2]).toMatchObject({ rejected: true, message: "The drone is busy with job-1" });
  });

  it("gets over errors of every call and of the streams", async () => {
    const { Unavailable, Internal, DeadlineExceeded } = Code;
    const fake = await startDock((server) => {
      Object.assign(server.faults, {
        register: [Unavailable, Code.Unauthenticated, Code.AlreadyExists],
        watch: [Unavailable, Internal, Code.NotFound],
        acknowledge: [Unavailable, DeadlineExceeded],
        report: [Unavailable, Internal],
      });
      server.breakTelemetryAfter = 7;
    });
    // Not known to the server: the dock registers once more.
    await vi.waitFor(() => expect(fake.registered).toHaveLength(2), WAIT);
    await vi.waitFor(() => expect(fake.watches).toBe(4), WAIT);
    fake.dropWatch();
    await vi.waitFor(() => expect(fake.watches).toBe(5), WAIT);
    fake.send(order("job-1"));
    await vi.waitFor(() => expect(statesOf(fake.reports, "job-1")).toContain(JobState.COMPLETED), WAIT);
    expect(statesOf(fake.reports, "job-1")[0]).toBe(JobState.INPROGRESS);
    expect(fake.samples.length).toBeGreaterThan(15);
  });

  it("turns back when the server has ended the job, and fails jobs that an earlier run lost", async () => {
    const fake = await startDock((server) => {
      server.lost = [create(JobSchema, { jobId: "job-lost" })];
    });
    await vi.waitFor(() => expect(fake.reports).toHaveLength(1), WAIT);
    expect(fake.reports[0]).toMatchObject({
      jobId: "job-lost",
      state: JobState.FAILED,
      errorReason: "DEVICE_RESTARTED",
    });
    fake.faults.report.push(Code.FailedPrecondition);
    fake.send(order("job-1"));
    await vi.waitFor(() => expect(statesOf(fake.reports, "job-1")).toContain(JobState.CANCELLED), WAIT);
  });
});
