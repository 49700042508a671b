import { create } from "@bufbuild/protobuf";
import { createContextValues, createHandlerContext, type HandlerContext } from "@connectrpc/connect";
import { beforeAll, expect, it } from "vitest";
import { CredentialKind } from "#gen/portolan/identity/v1/audit_log_pb.js";
import { JobSchema } from "#gen/portolan/jobs/v1/job_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { onEachEngine } from "#test/support/databases.ts";
import { auditMigrations } from "./audit-store.ts";
import { callInfo } from "./call.ts";
import type { Database } from "./database.ts";
import { createBus, eventMigrations } from "./events.ts";
import { createTransactions, type Kernel } from "./kernel.ts";
import { migrate } from "./migrate.ts";
import { replayMigrations } from "./replay.ts";

onEachEngine((test) => {
  let database: Database;
  let kernel: Pick<Kernel, "mutate">;
  let count = 0;
  const job = create(JobSchema, { jobId: "job-1", name: "before" });

  beforeAll(async () => {
    database = test().open();
    await migrate(database, [...eventMigrations, ...replayMigrations, ...auditMigrations]);
    kernel = createTransactions(
      database,
      createBus(() => {}),
    );
  });

  /** A call of a tenant of its own, as the gate hands it to the handler of an audited RPC. */
  function newCall(isAudited = true): { context: HandlerContext; effects(): Promise<[number, number]> } {
    const tenantId = `tenant-${count++}`;
    const contextValues = createContextValues().set(callInfo, {
      requestId: "r",
      remoteAddress: "",
      slot: 0,
      principal: {
        tenantId,
        subject: "key-1",
        role: Role.ADMIN,
        credential: CredentialKind.API_KEY,
        permissions: new Set<string>(),
      },
      ...(isAudited && {
        audit: {
          service: "portolan.jobs.v1.JobService",
          action: "UpdateJob",
          resource_type: "jobs",
          protocol: "grpc",
          resourceId: "job-1",
          replayed: false,
          settled: false,
        },
      }),
    });
    const context = createHandlerContext({
      service: JobService,
      method: JobService.method.updateJob,
      protocolName: "grpc",
      requestMethod: "POST",
      url: "http://test",
      contextValues,
    });
    const rows = (table: "outbox" | "audit_logs") =>
      database.read.selectFrom(table).select("tenant_id").where("tenant_id", "=", tenantId).execute();
    return {
      context,
      effects: async () => [(await rows("outbox")).length, (await rows("audit_logs")).length],
    };
  }

  /** Runs a mutation whose effect is an event, and tells how many effects and rows there are. */
  async function mutate(
    work: (tx: Parameters<Parameters<Kernel["mutate"]>[1]>[0]) => void,
    isAudited = true,
  ): Promise<{ error: unknown; effects: [number, number] }> {
    const { context, effects } = newCall(isAudited);
    const { tenantId = "" } = context.values.get(callInfo).principal ?? {};
    const error = await kernel
      .mutate(context, async (tx) => {
        await tx.emit({ tenantId, type: "job.updated", subject: "job-1", timeMs: 1 }, JobSchema, job);
        work(tx);
      })
      .then(
        () => undefined,
        (thrown) => thrown,
      );
    return { error, effects: await effects() };
  }

  it("commits the row of a mutation with its effect", async () => {
    const stated = await mutate((tx) => tx.changing(JobSchema, "jobId", job)({ ...job, name: "after" }));
    expect(stated).toEqual({ error: undefined, effects: [1, 1] });
  });

  it("commits nothing of an audited mutation that does not state what it changes, or only begins to", async () => {
    for (const forget of [
      () => {},
      (tx: { changing: CallableFunction }) => tx.changing(JobSchema, "jobId", job),
    ]) {
      const { error, effects } = await mutate(forget as never);
      expect((error as Error).message).toContain("UpdateJob does not state what it changes");
      expect(effects).toEqual([0, 0]);
    }
  });

  it("commits nothing of a mutation that states two resources, or fails after it has stated one", async () => {
    const twice = await mutate((tx) => {
      tx.changing(JobSchema, "jobId", job)();
      tx.changing(JobSchema, "jobId", job)();
    });
    expect((twice.error as Error).message).toContain("second change");
    expect(twice.effects).toEqual([0, 0]);
    const failing = await mutate((tx) => {
      tx.changing(JobSchema, "jobId", job)();
      throw new Error("no");
    });
    expect(failing.effects).toEqual([0, 0]);
  });

  it("leaves no row of a change of degree, and of a call that is not audited", async () => {
    expect((await mutate((tx) => tx.minor())).effects).toEqual([1, 0]);
    expect((await mutate((tx) => tx.changing(JobSchema, "jobId", job)(job), false)).effects).toEqual([1, 0]);
  });
});
