import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { JobState } from "#gen/portolan/common/v1/track_pb.js";
import { startDevice } from "#test/support/device.ts";
import { adminKey, root, startTestServer, type TestServer } from "#test/support/gateway.ts";
import { run } from "#test/support/tools.ts";

const generator = join(root, "node_modules/oazapfts/dist/cli.js");
const missing = existsSync(generator) ? "" : " (skipped: oazapfts is not installed)";

/** What somebody writes with the generated client. */
const program = `
import { defaults, jobServiceCreateJob, jobServiceGetJob, jobServiceTrackJob } from "./client.ts";

const [baseUrl = "", apiKey = "", deviceGroupId = ""] = process.argv.slice(2);
defaults.baseUrl = baseUrl;
defaults.headers = { "x-api-key": apiKey };

const created = await jobServiceCreateJob({ name: "Generated", deviceGroupId, priority: 7 });
if (created.status !== 201) throw new Error(created.data.message);
const jobId: string = created.data.job?.jobId ?? "";
console.log(JSON.stringify({ jobId }));

const followed = await jobServiceTrackJob(jobId);
if (followed.status !== 200) throw new Error(followed.data.message);
const states = followed.data.map(({ jobState }) => jobState);
const got = await jobServiceGetJob(jobId);
const unknown = await jobServiceGetJob("job-none");
console.log(JSON.stringify({
  first: states.at(0),
  last: states.at(-1),
  kind: followed.data.at(-1)?.kind,
  priority: got.status === 200 ? got.data.job?.priority : undefined,
  refusal: unknown.status === 404 ? unknown.data.details.reason : undefined,
}));
`;

const tsconfig = {
  compilerOptions: {
    target: "es2024",
    module: "nodenext",
    types: ["node"],
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    allowImportingTsExtensions: true,
  },
};

describe.skipIf(missing)(`a client generated from the OpenAPI document${missing}`, () => {
  let server: TestServer;
  let folder: string;

  beforeAll(async () => {
    server = await startTestServer();
    folder = mkdtempSync(join(tmpdir(), "portolan-client-"));
    symlinkSync(join(root, "node_modules"), join(folder, "node_modules"));
    const document = await (await fetch(`${server.url}/openapi.json`)).text();
    writeFileSync(join(folder, "openapi.json"), document);
    writeFileSync(join(folder, "package.json"), '{"type":"module"}');
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(tsconfig));
    writeFileSync(join(folder, "program.ts"), program);
    const generated = await run(process.execPath, [generator, "openapi.json", "client.ts"], { cwd: folder });
    expect(generated).toMatchObject({ code: 0 });
  });
  afterAll(async () => {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it("has types that its user's program agrees with", async () => {
    const tsc = join(root, "node_modules/.bin/tsc");
    expect(await run(tsc, ["-p", folder], { cwd: folder })).toMatchObject({ code: 0, stdout: "" });
  });

  it("creates a job and follows it to its end", async () => {
    const device = await startDevice(server.grpc(), "generated-dock");
    const args = ["program.ts", server.url, adminKey, device.deviceGroupId];
    const child = spawn(process.execPath, args, { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const next = async () => JSON.parse((await lines.next()).value ?? "null");
    const { jobId } = await next();
    await device.launch(jobId);
    await device.report(jobId, JobState.INPROGRESS, 50);
    await device.report(jobId, JobState.COMPLETED, 100);
    expect(await next()).toMatchObject({
      last: "COMPLETED",
      kind: "FINAL",
      priority: 7,
      refusal: "JOB_NOT_FOUND",
    });
    await device.stop();
  });
});
