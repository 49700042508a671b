import { existsSync } from "node:fs";
import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type SpawnedServer, spawnServer } from "#test/support/gateway.ts";

const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const missing = existsSync(executablePath) ? "" : ` (skipped: ${executablePath} is not there)`;

describe.skipIf(missing)(`the API explorer in a browser${missing}`, () => {
  let server: SpawnedServer;
  let browser: Browser;
  let page: Page;
  const complaints: string[] = [];
  const requests: string[] = [];

  beforeAll(async () => {
    server = await spawnServer({ PORTOLAN_SANDBOX: "on" });
    browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
    page = await browser.newPage();
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) complaints.push(message.text());
    });
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("request", (request) => requests.push(request.url()));
    await page.goto(`${server.url}/docs`);
    await page.waitForSelector("#operations-JobService-JobService_ListJobs");
  });
  afterAll(async () => {
    await browser?.close();
    await server?.kill("SIGTERM");
  });

  /** Executes an operation as it stands on the page; gives the status and body of the answer. */
  async function execute(operation: string): Promise<{ status: string; body: string }> {
    const block = page.locator(`#operations-${operation}`);
    await block.locator(".opblock-summary").first().click();
    await block.locator("button.execute").click();
    const response = block.locator(".live-responses-table tbody tr").first();
    const status = await response.locator(".response-col_status").innerText();
    return { status: status.trim(), body: await response.locator("pre").first().innerText() };
  }

  it("lists jobs with the key that it comes with", async () => {
    const { status, body } = await execute("JobService-JobService_ListJobs");
    expect(status).toBe("200");
    expect(JSON.parse(body)).toMatchObject({ success: true, count: 0 });
  });

  it("creates a job from the example of the document", async () => {
    const { status, body } = await execute("JobService-JobService_CreateJob");
    expect(status).toBe("201");
    expect(JSON.parse(body).job).toMatchObject({ deviceGroupId: "sandbox-dock-1" });
  });

  it("has a key that does not reach the administrator's tenant", async () => {
    const { status } = await execute("ApiKeyService-ApiKeyService_ListApiKeys");
    expect(status).toBe("403");
  });

  it("asks nobody but its own server, and nothing is wrong with the page", () => {
    const elsewhere = requests.filter((url) => !url.startsWith(server.url) && !url.startsWith("data:"));
    expect(elsewhere).toEqual([]);
    // The refusal above is in the console too.
    expect(complaints.filter((text) => !text.includes("status of 403"))).toEqual([]);
  });
});
