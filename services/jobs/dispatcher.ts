import { durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { DispatchCommand } from "#gen/portolan/jobs/v1/dispatch_pb.js";
import type { Job } from "#gen/portolan/jobs/v1/job_pb.js";
import type { Queries } from "#kernel/database.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { createChanges } from "./changes.ts";
import { dueMs, expiryMs, groupsToLookAt, jobsToLookAt, lookSize, startedJobs } from "./line.ts";
import { jobsOf } from "./store.ts";

/** How long a running job's devices may be silent before it fails, in milliseconds. */
export const offlineMs = 60_000;

/** How long a device has to confirm the cancellation of a running job, in milliseconds. */
export const cancelConfirmMs = 15_000;

/** How long after it took a job a device may stay on the ground before it is told again, in milliseconds. */
export const launchMs = 120_000;

/** What is to be done with one job now. */
export type Decision =
  | { readonly job: Job; readonly do: "queue" | "start" | "cancel" }
  | { readonly job: Job; readonly do: "fail"; readonly reason: string; readonly message: string };

/** What the dispatcher knows of a device group. */
export interface GroupFacts {
  readonly nowMs: number;
  readonly online: boolean;
  /** When the group was last heard, in Unix milliseconds; the start of the server if never. */
  readonly heardMs: number;
  /** Ids of the jobs whose START the group has been given, and may still be about to follow. */
  readonly started: ReadonlySet<string>;
}

/** Decides on the open jobs of one device group: what is due, what has taken too long, what goes next. */
export function decide(jobs: readonly Job[], facts: GroupFacts): Decision[] {
  const { nowMs } = facts;
  const decisions: Decision[] = [];
  const inLine: Job[] = [];
  let busy = false;
  for (const job of jobs) {
    const fail = (reason: string, message: string) => decisions.push({ job, do: "fail", reason, message });
    if (job.status === JobState.INPROGRESS) {
      const startedMs = job.startedAt ? timestampMs(job.startedAt) : nowMs;
      const maxMs = job.maxDuration ? durationMs(job.maxDuration) : Number.POSITIVE_INFINITY;
      const askedMs = job.cancelRequestedAt && timestampMs(job.cancelRequestedAt);
      if (askedMs && nowMs - askedMs >= cancelConfirmMs) decisions.push({ job, do: "cancel" });
      else if (nowMs - startedMs >= maxMs) fail("JOB_TIMEOUT", "The job took longer than max_duration");
      else if (nowMs - Math.max(facts.heardMs, startedMs) >= offlineMs) {
        fail("DEVICE_OFFLINE", `No device was heard for ${offlineMs / 1000} seconds`);
      } else busy = true;
      continue;
    }
    if (dueMs(job) > nowMs) continue;
    if (nowMs >= (expiryMs(job) ?? Number.POSITIVE_INFINITY)) {
      fail("DISPATCH_TIMEOUT", "No device took the job within queue_timeout");
      continue;
    }
    if (job.status === JobState.PENDING) decisions.push({ job, do: "queue" });
    if (facts.started.has(job.jobId)) busy = true;
    inLine.push(job);
  }
  // Jobs come oldest first and the sort is stable, so that equal priorities keep their order.
  const next = inLine.sort((a, b) => b.priority - a.priority)[0];
  if (next && !busy && facts.online) decisions.push({ job: next, do: "start" });
  return decisions;
}

/** Carries jobs forward: on every event that may matter, and once a second for what time brings. */
export function createDispatcher(kernel: Kernel) {
  const changes = createChanges(kernel);
  const bornMs = kernel.nowMs();
  const wanted = new Map<string, { tenantId: string; deviceGroupId: string }>();
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  let stopped = false;

  /** Looks at a group soon. */
  function look(tenantId: string, deviceGroupId: string): void {
    wanted.set(`${tenantId}\n${deviceGroupId}`, { tenantId, deviceGroupId });
    running ??= run();
  }

  async function run(): Promise<void> {
    while (wanted.size > 0 && !stopped) {
      const [key, group] = wanted.entries().next().value as [
        string,
        { tenantId: string; deviceGroupId: string },
      ];
      wanted.delete(key);
      await settle(group.tenantId, group.deviceGroupId).catch((err) =>
        kernel.log.error({ err, ...group }, "jobs of a device group were not looked at"),
      );
    }
    running = undefined;
  }

  async function settle(tenantId: string, deviceGroupId: string): Promise<void> {
    const { presence } = kernel;
    const decisions = async (queries: Queries) => {
      const nowMs = kernel.nowMs();
      const started = await startedJobs(queries, tenantId, deviceGroupId, nowMs - launchMs);
      const ids = await jobsToLookAt(queries, tenantId, deviceGroupId, nowMs);
      const jobs = await jobsOf(tenantId, queries).all([...new Set([...started, ...ids])]);
      return decide(jobs, {
        nowMs,
        online: presence.online(tenantId, deviceGroupId),
        heardMs: presence.lastHeard(tenantId, deviceGroupId) ?? bornMs,
        started: new Set(started),
      });
    };
    // Most looks find nothing to do: only then is the writer left alone.
    const found = await decisions(kernel.database.read);
    if (found.length === 0) return;
    // There may be more than were looked at.
    if (found.length >= lookSize) look(tenantId, deviceGroupId);
    await kernel.write(async (tx) => {
      for (const decision of await decisions(tx.queries)) {
        const { job } = decision;
        if (decision.do === "queue") await changes.move(tx, tenantId, job, JobState.QUEUED);
        if (decision.do === "start") await changes.order(tx, tenantId, job, DispatchCommand.START);
        if (decision.do === "cancel") await changes.move(tx, tenantId, job, JobState.CANCELLED);
        if (decision.do === "fail") await changes.move(tx, tenantId, job, JobState.FAILED, decision);
      }
    });
  }

  async function lookAtAll(): Promise<void> {
    for (const row of await groupsToLookAt(kernel.database.read, kernel.nowMs()))
      look(row.tenant_id, row.device_group_id);
  }

  return {
    look,
    start(): void {
      timer = setInterval(() => {
        lookAtAll().catch((err) => kernel.log.error({ err }, "open jobs were not looked at"));
      }, 1_000);
    },
    async stop(): Promise<void> {
      stopped = true;
      clearInterval(timer);
      await running;
    },
  };
}
