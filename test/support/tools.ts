import { execFile, spawnSync } from "node:child_process";

/** Whether a program is there and runs. */
export const has = (program: string, ...args: string[]): boolean =>
  spawnSync(program, args, { stdio: "ignore", timeout: 120_000 }).status === 0;

/** What a program printed and how it ended. */
export interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end; a bad exit code is a result, not an error. */
export function run(
  program: string,
  args: string[],
  options: { cwd?: string; input?: string; signal?: AbortSignal } = {},
): Promise<Run> {
  return new Promise((resolve, reject) => {
    const { input, ...rest } = options;
    const child = execFile(
      program,
      args,
      { maxBuffer: 64 * 1024 * 1024, ...rest },
      (error, stdout, stderr) => {
        if (error && typeof error.code === "string") reject(error);
        else resolve({ code: error ? Number(error.code ?? -1) : 0, stdout, stderr });
      },
    );
    if (input !== undefined) child.stdin?.end(input);
  });
}
