import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { Http2SessionManager } from "@connectrpc/connect-node";
import { expect, it } from "vitest";
import { AuditOutcome } from "#gen/portolan/identity/v1/audit_log_pb.js";
import { AuditLogService } from "#gen/portolan/identity/v1/audit_log_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { adminKey, grpcTransport, type SpawnedServer, spawnServer } from "../support/gateway.ts";
import { random } from "../support/random.ts";

const rounds = Number(process.env.PORTOLAN_CRASH_ROUNDS ?? 5);
const writers = 8;

/** After so many seconds, and five rounds, the rest is left out and the report says so. */
const budgetS = Number(process.env.PORTOLAN_CRASH_SECONDS ?? Number.POSITIVE_INFINITY);

/** Starts that a stalled machine delays are no fault of the server; a hang is. */
const slowestStartMs = 120_000;

const scheduledAt = { seconds: 4_000_000_000n };

function clients(server: SpawnedServer) {
  const sessions = new Http2SessionManager(server.url);
  const transport = grpcTransport(server.url, adminKey, sessions);
  return {
    jobs: createClient(JobService, transport),
    resources: createClient(ResourceService, transport),
    logs: createClient(AuditLogService, transport),
    close: () => sessions.abort(),
  };
}

/** The ids of all jobs by name; a name that occurs twice has two. */
async function idsByName({ jobs }: ReturnType<typeof clients>): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  for (let pageToken = ""; ; ) {
    const page = await jobs.listJobs({ limit: 100, pageToken });
    for (const { name, jobId } of page.jobs) found.set(name, [...(found.get(name) ?? []), jobId]);
    pageToken = page.nextPageToken;
    if (!pageToken) return found;
  }
}

/** The jobs that the audit log says were made, sorted. */
async function auditedJobs({ logs }: ReturnType<typeof clients>): Promise<string[]> {
  const ids: string[] = [];
  const filter = { action: "CreateJob", outcome: AuditOutcome.SUCCEEDED, pageSize: 1000 };
  for (let pageToken = ""; ; ) {
    const page = await logs.listAuditLogs({ ...filter, pageToken });
    ids.push(...page.auditLogs.filter(({ replayed }) => !replayed).map(({ resourceId }) => resourceId));
    pageToken = page.nextPageToken;
    if (!pageToken) return ids.sort();
  }
}

it(`${rounds} times kill -9 under write load lose and double nothing that was acknowledged`, {
  timeout: 120_000 + rounds * 60_000,
}, async () => {
  const dataDir = mkdtempSync(join(tmpdir(), "portolan-crash-"));
  const next = random("PORTOLAN_CRASH_SEED");
  const acknowledged = new Map<string, string>();
  const unsure = new Map<string, string>();
  const starts: number[] = [];
  let server = await spawnServer({ PORTOLAN_DATA_DIR: dataDir });

  try {
    const beganMs = performance.now();
    for (let round = 0; round < rounds; round++) {
      if (round >= 5 && performance.now() - beganMs > budgetS * 1000) break;
      const client = clients(server);
      const deviceGroupId = `crash-dock-${round}`;
      await client.resources.registerResource({ deviceGroupId, name: deviceGroupId });
      const target = acknowledged.size + 10 + next(30);
      let killed = false;
      let count = 0;
      await Promise.all(
        Array.from({ length: writers }, async () => {
          while (!killed) {
            const key = `round-${round}-job-${count++}`;
            const headers = { "idempotency-key": key };
            const request = { name: key, deviceGroupId, scheduledAt };
            unsure.set(key, deviceGroupId);
            try {
              const { job } = await client.jobs.createJob(request, { headers });
              acknowledged.set(key, job?.jobId ?? "");
              unsure.delete(key);
            } catch (error) {
              // Only the kill may break a call.
              if (!killed) throw error;
              return;
            }
            if (acknowledged.size < target || killed) continue;
            killed = true;
            void server.kill("SIGKILL");
          }
        }),
      );
      expect((await server.exited).signal).toBe("SIGKILL");
      client.close();

      server = await spawnServer({ PORTOLAN_DATA_DIR: dataDir });
      starts.push(server.startMs);
      const after = clients(server);
      const found = await idsByName(after);
      for (const [key, jobId] of acknowledged) expect([key, found.get(key)]).toEqual([key, [jobId]]);
      for (const [key, group] of unsure) {
        const present = found.get(key) ?? [];
        expect(present.length).toBeLessThanOrEqual(1);
        const headers = { "idempotency-key": key };
        const request = { name: key, deviceGroupId: group, scheduledAt };
        const { job } = await after.jobs.createJob(request, { headers });
        if (present[0]) expect(job?.jobId).toBe(present[0]);
        acknowledged.set(key, job?.jobId ?? "");
      }
      unsure.clear();
      const settled = await idsByName(after);
      expect(settled.size).toBe(acknowledged.size);
      for (const [key, jobId] of acknowledged) expect([key, settled.get(key)]).toEqual([key, [jobId]]);
      // Every job that was made has its audit row, no row tells of a job that was not, and the chain holds.
      expect(await auditedJobs(after)).toEqual([...acknowledged.values()].sort());
      expect(await after.logs.verifyAuditLogs({})).toMatchObject({ valid: true });
      after.close();
    }
  } finally {
    await server.kill();
    rmSync(dataDir, { recursive: true, force: true });
  }
  const slowest = Math.max(...starts);
  console.log(
    `${starts.length} of ${rounds} kills, ${acknowledged.size} jobs, slowest restart ${Math.round(slowest)} ms from the start of the process`,
  );
  expect(slowest).toBeLessThan(slowestStartMs);
});
