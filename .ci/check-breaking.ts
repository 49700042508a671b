/**
 * Fails when a contract breaks its clients, compared with the newest release tag. Before the first
 * release there is nothing to break.
 */
import { execFileSync } from "node:child_process";

const git = (...args: string[]) => execFileSync("git", args, { encoding: "utf8" }).trim();

const tag = git("tag", "--list", "v*", "--sort=-version:refname").split("\n")[0];
if (tag) {
  execFileSync("buf", ["breaking", "proto", "--against", `.git#tag=${tag},subdir=proto`], {
    stdio: "inherit",
  });
  console.log(`contracts do not break ${tag}`);
} else {
  console.log("no release yet: nothing to break");
}
