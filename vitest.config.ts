import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts", "services/**/*.test.ts", "gateway/**/*.test.ts"],
    globalSetup: "test/support/postgres.ts",
    // A stalled machine must not fail a test: what has to be quick is measured where it matters.
    testTimeout: 240_000,
    hookTimeout: 240_000,
    pool: "forks",
    // Servers, followers and crashes are timed against a clock: one file at a time has the machine.
    fileParallelism: false,
    isolate: false,
  },
});
