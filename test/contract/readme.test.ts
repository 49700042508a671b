import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { describeSettings } from "#kernel/config.ts";

const readme = readFileSync(join(import.meta.dirname, "../../README.md"), "utf8");

it("lists the settings as --help does", () => {
  expect(readme).toContain(describeSettings().trimEnd());
});
