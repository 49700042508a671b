import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import type { Dispatch } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import { DispatchService, type ReportJobRequestSchema } from "#gen/portolan/jobs/v1/dispatch_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { DeviceType } from "#gen/portolan/streams/v1/resource_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { createFlight, type FlightState } from "./flight.ts";
import { hashOf, type Place } from "./geo.ts";
import { publishSamples, type Sample, watchOrders } from "./links.ts";
import { type Decision, type Desk, decide, type Order } from "./orders.ts";
import { createOutbox } from "./outbox.ts";
import { createBackoff, type ErrorListener, retrying, wait } from "./retry.ts";

/** How to run one simulated dock. */
export interface DockOptions {
  /** Way to the server, with credentials of a device. */
  transport: Transport;
  deviceGroupId: string;
  /** Name for people. */
  name: string;
  /** Where the dock stands. */
  home: Place;
  /** Ends everything when aborted. */
  signal: AbortSignal;
  /** Time between two samples. */
  tickMs?: number;
  /** Simulated seconds in a second. */
  speed?: number;
  /** Least time between two reports of progress. */
  reportMs?: number;
  /** Longest time that one telemetry stream is used. */
  streamMs?: number;
  /** A watch that is silent for so long is taken for broken. */
  silenceMs?: number;
  /** First pause after an error. */
  retryMs?: number;
  /** Makes the weather; by default from the device group. */
  seed?: number;
  /** Told of errors; all of them are got over. */
  onError?: ErrorListener;
}

type Report = MessageInitShape<typeof ReportJobRequestSchema> & { jobId: string; state: JobState };

const CALL_TIMEOUT_MS = 10_000;
const REMEMBERED = 500;

/** Runs one simulated dock with its drone as a client of the server, until the signal aborts. Never throws. */
export async function runDock(options: DockOptions): Promise<void> {
  const { transport, deviceGroupId, home, signal } = options;
  const {
    tickMs = 1000,
    speed = 1,
    reportMs = 2000,
    streamMs = 300_000,
    silenceMs = 30_000,
    retryMs = 500,
  } = options;
  const onError: ErrorListener = options.onError ?? (() => {});
  const [dockId, droneId] = [`${deviceGroupId}-dock`, `${deviceGroupId}-drone`];
  const dispatches = createClient(DispatchService, transport);
  const resources = createClient(ResourceService, transport);
  const jobs = createClient(JobService, transport);
  const call = { signal, timeoutMs: CALL_TIMEOUT_MS };
  const backoff = () => createBackoff(retryMs, Math.max(retryMs, 15_000));
  const retry = <T>(what: string, attempt: () => Promise<T>) =>
    retrying(what, attempt, { signal, backoff: backoff(), onError });

  const flight = createFlight({ home, seed: options.seed ?? hashOf(deviceGroupId) });
  const samples = createOutbox<Sample>(30);
  const reports = createOutbox<Report>(100);
  const decisions = new Map<string, Decision>();
  const outcomes = new Map<string, Report>();
  const acknowledging = new Map<string, Promise<void>>();
  const desk: Desk = { flying: undefined, waiting: undefined, hasEnded: (jobId) => outcomes.has(jobId) };
  let launched = false;
  let reportedAtMs = 0;

  async function register(): Promise<void> {
    const point = { type: "Point", coordinates: [home.lon, home.lat, home.altitudeM] };
    const devices = [
      { deviceId: dockId, name: `${options.name} dock`, type: DeviceType.DOCK },
      { deviceId: droneId, name: `${options.name} drone`, type: DeviceType.DRONE },
    ];
    const request = { deviceGroupId, name: options.name, description: "Simulated", devices, home: point };
    await retry("register", async () => {
      try {
        await resources.registerResource(request, call);
      } catch (error) {
        if (ConnectError.from(error).code !== Code.AlreadyExists) {
          throw error;
        }
      }
    }).catch(() => {});
  }

  /** Jobs that were in the air when an earlier run of this dock ended have nobody left to end them. */
  async function failLostJobs(): Promise<void> {
    const request = { deviceGroupId, status: JobState.INPROGRESS, limit: 100 };
    const page = await retry("list jobs", () => jobs.listJobs(request, call)).catch(() => undefined);
    for (const { jobId } of page?.jobs ?? []) {
      const errorMessage = "The simulated dock was started anew";
      reports.push({ jobId, state: JobState.FAILED, errorReason: "DEVICE_RESTARTED", errorMessage });
    }
  }

  function end(jobId: string, report: Report): void {
    remember(outcomes, jobId, report);
    reports.push(report);
  }

  function apply(decision: Decision): void {
    if (decision.kind === "take") {
      desk.waiting = decision.order;
    } else if (decision.kind === "repeat-outcome") {
      reports.push(outcomes.get(decision.jobId) as Report);
    } else if (decision.kind === "cancel") {
      const { jobId } = decision;
      if (desk.flying?.jobId === jobId) {
        flight.cancel();
      } else {
        desk.waiting = desk.waiting?.jobId === jobId ? undefined : desk.waiting;
        end(jobId, { jobId, state: JobState.CANCELLED });
      }
    }
  }

  async function acknowledge(dispatchId: string, decision: Decision): Promise<void> {
    const rejected = decision.kind === "reject";
    const request = { deviceGroupId, dispatchId, rejected, message: rejected ? decision.message : "" };
    const order = decision.kind === "take" ? decision.order : undefined;
    try {
      const answer = await retry("acknowledge", () => dispatches.acknowledgeDispatch(request, call));
      if (order !== undefined) {
        order.acknowledged = answer !== undefined;
      }
    } catch {
      // The server has taken the order back.
      desk.waiting = desk.waiting === order ? undefined : desk.waiting;
    }
  }

  function receive(dispatch: Dispatch): void {
    const { dispatchId } = dispatch;
    if (acknowledging.has(dispatchId)) {
      return;
    }
    let decision = decisions.get(dispatchId);
    if (decision === undefined) {
      decision = decide(home, desk, dispatch);
      remember(decisions, dispatchId, decision);
      apply(decision);
    }
    const task = acknowledge(dispatchId, decision).finally(() => acknowledging.delete(dispatchId));
    acknowledging.set(dispatchId, task);
  }

  async function report(): Promise<void> {
    for await (const one of reports.drain(signal)) {
      try {
        await retry("report", () => dispatches.reportJob(one, call));
      } catch (error) {
        const code = ConnectError.from(error).code;
        // The server has ended the job, by a time limit say: nobody wants the rest of the flight.
        if (
          desk.flying?.jobId === one.jobId &&
          (code === Code.NotFound || code === Code.FailedPrecondition)
        ) {
          flight.cancel();
        }
      }
    }
  }

  function reportFlight(order: Order, now: FlightState): void {
    const { jobId } = order;
    const { progress } = now;
    if (now.done !== undefined) {
      const state = { completed: JobState.COMPLETED, cancelled: JobState.CANCELLED, failed: JobState.FAILED }[
        now.done
      ];
      const failure = {
        errorReason: now.reason,
        errorMessage: "The battery was low; the drone came back early",
      };
      desk.flying = undefined;
      end(jobId, { jobId, state, progress, ...(now.done === "failed" ? failure : {}) });
      return;
    }
    if (!now.airborne || (launched && performance.now() - reportedAtMs < reportMs)) {
      return;
    }
    const next: Report = { jobId, state: JobState.INPROGRESS, progress };
    const last = reports.last();
    const unsent = last?.jobId === jobId && last.state === JobState.INPROGRESS;
    if (unsent) {
      reports.replaceLast(next);
    } else {
      reports.push(next);
    }
    launched = true;
    reportedAtMs = performance.now();
  }

  function launchWaiting(now: FlightState): void {
    const order = desk.waiting;
    if (order?.acknowledged !== true || desk.flying !== undefined || now.phase !== "docked") {
      return;
    }
    if (now.sample.batteryPercent >= flight.batteryNeededPercent(order.plan)) {
      flight.start(order.plan);
      desk.flying = order;
      desk.waiting = undefined;
      launched = false;
    }
  }

  async function fly(): Promise<void> {
    let tick = 0;
    let lastMs = performance.now();
    let dueMs = lastMs + tickMs;
    let dockState = flight.state().sample.dockState;
    while (!signal.aborted) {
      const nowMs = performance.now();
      // A machine that slept does not make the drone jump.
      flight.step((Math.min(nowMs - lastMs, 5 * tickMs) / 1000) * speed);
      lastMs = nowMs;
      const now = flight.state();
      if (desk.flying !== undefined) {
        reportFlight(desk.flying, now);
      }
      launchWaiting(now);
      const common = { timestamp: timestampNow(), jobId: desk.flying?.jobId ?? "" };
      samples.push({ deviceGroupId, sample: { ...now.sample, ...common, deviceId: droneId } });
      if (tick % 5 === 0 || dockState !== now.sample.dockState) {
        dockState = now.sample.dockState;
        const { weather } = now.sample;
        samples.push({ deviceGroupId, sample: { dockState, weather, ...common, deviceId: dockId } });
      }
      tick++;
      dueMs = Math.max(dueMs, nowMs);
      await wait(Math.max(0, dueMs - performance.now()), signal);
      dueMs += tickMs;
    }
  }

  await register();
  await failLostJobs();
  const link = { transport, deviceGroupId, signal, backoff, onError };
  const loops = [
    watchOrders({ ...link, silenceMs, receive, onUnknownGroup: register }),
    publishSamples({ ...link, samples, streamMs }),
    report(),
    fly(),
  ];
  await Promise.all(loops.map((loop) => loop.catch((error) => onError(error, "sandbox"))));
  await Promise.allSettled(acknowledging.values());
}

/** Keeps an entry of a map that forgets its oldest ones. */
function remember<T>(map: Map<string, T>, key: string, value: T): void {
  map.set(key, value);
  const oldest = map.keys().next().value;
  if (map.size > REMEMBERED && oldest !== undefined) {
    map.delete(oldest);
  }
}
