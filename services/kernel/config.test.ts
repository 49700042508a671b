import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { ConfigError, describeSettings, readConfig } from "./config.ts";
import { readPlans } from "./plans.ts";

const problemsOf = (env: Record<string, string>) => {
  try {
    readConfig(env);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message.split("\n");
  }
  return [];
};

it("has a default for everything", () => {
  expect(readConfig({})).toEqual({
    port: 8080,
    host: "127.0.0.1",
    dataDir: ".data",
    databaseUrl: undefined,
    adminApiKey: undefined,
    sandbox: true,
    auditDays: 400,
    plans: readPlans(),
    maxCallsInFlight: 10_000,
    maxLoopDelayMs: 500,
    express: true,
    logLevel: "info",
    accessLog: false,
    metrics: { readers: "loopback", token: undefined },
    corsOrigins: [],
    otel: {},
    tls: undefined,
  });
});

it("reads every setting, and takes an empty one for unset", () => {
  const env = {
    PORT: "0",
    HOST: "::1",
    PORTOLAN_DATA_DIR: "/data",
    PORTOLAN_DATABASE_URL: "postgresql://db/x",
    PORTOLAN_ADMIN_API_KEY: "sk_12345",
    PORTOLAN_SANDBOX: "off",
    PORTOLAN_LOG_LEVEL: "",
    PORTOLAN_API_KEY: "a client's",
    PATH: "/bin",
  };
  expect(readConfig(env)).toMatchObject({
    port: 0,
    host: "::1",
    dataDir: "/data",
    databaseUrl: "postgresql://db/x",
    adminApiKey: "sk_12345",
    sandbox: false,
    logLevel: "info",
  });
});

it.each([
  ["PORT", "70000"],
  ["PORT", "http"],
  ["PORT", "-1"],
  ["PORT", "1.5"],
  ["PORTOLAN_DATABASE_URL", "mysql://db"],
  ["PORTOLAN_ADMIN_API_KEY", "short"],
  ["PORTOLAN_SANDBOX", "yes"],
  ["PORTOLAN_LOG_LEVEL", "loud"],
  ["PORTOLAN_DATA_DIRECTORY", "/data"],
  ["PORTOLAN_PLANS", "/no/such/file"],
  ["PORTOLAN_MAX_CALLS", "0"],
  ["PORTOLAN_MAX_LOOP_DELAY", "soon"],
])("refuses %s=%s and names the variable", (name, value) => {
  const problems = problemsOf({ [name]: value });
  expect(problems).toHaveLength(1);
  expect(problems[0]).toMatch(new RegExp(`^${name}: .`));
});

it("tells all problems at once", () => {
  expect(problemsOf({ PORT: "x", PORTOLAN_SANDBOX: "x", PORTOLAN_NONSENSE: "x" })).toHaveLength(3);
});

it("reads certificate and key from files, and wants both", () => {
  const folder = mkdtempSync(join(tmpdir(), "portolan-config-"));
  try {
    const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
    writeFileSync(cert, "CERT");
    writeFileSync(key, "KEY");
    const { tls } = readConfig({ PORTOLAN_TLS_CERT: cert, PORTOLAN_TLS_KEY: key });
    expect([String(tls?.cert), String(tls?.key)]).toEqual(["CERT", "KEY"]);
    expect(problemsOf({ PORTOLAN_TLS_CERT: cert })).toEqual([expect.stringContaining("both or neither")]);
    const missing = join(folder, "missing.pem");
    expect(problemsOf({ PORTOLAN_TLS_CERT: cert, PORTOLAN_TLS_KEY: missing })[0]).toMatch(
      /^PORTOLAN_TLS_KEY: .*ENOENT/,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it("describes every setting with its default", () => {
  const text = describeSettings();
  for (const name of ["PORT", "HOST", "PORTOLAN_DATABASE_URL", "PORTOLAN_TLS_KEY"])
    expect(text).toContain(`  ${name} `);
  expect(text).toMatch(/PORTOLAN_SANDBOX .*\(default on\)/);
  expect(text).toMatch(/ {2}PORT .*\(default 8080\)/);
});
