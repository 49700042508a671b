import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "#kernel/config.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { adminKey, ensureKey } from "#services/identity/index.ts";

/**
 * Sees to it that there is an administrator's key: the one that is set, or the one generated on
 * first start, which is kept in the data folder.
 * @returns the key; undefined if it was generated with another data folder and cannot be known
 */
export async function openAdminKey(kernel: Kernel, config: Config): Promise<string | undefined> {
  const file = join(config.dataDir, "admin-api-key");
  const known = config.adminApiKey ?? readIfThere(file);
  const secret = await ensureKey(kernel, adminKey, known);
  if (secret && !known) {
    mkdirSync(config.dataDir, { recursive: true });
    writeFileSync(file, `${secret}\n`, { mode: 0o600 });
  }
  return secret;
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8").trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}
