import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import {
  createFileRegistry,
  type DescMessage,
  type DescService,
  type FileRegistry,
  fromBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";

const root = join(import.meta.dirname, "../../..");

/** Compiles protos, by file name, against `google/api`. Slow: once per test file. */
export function compile(files: Record<string, string>): FileRegistry {
  const dir = mkdtempSync(join(tmpdir(), "rest-"));
  try {
    cpSync(join(root, ".third-party/google"), join(dir, "google"), { recursive: true });
    writeFileSync(join(dir, "buf.yaml"), "version: v2\n");
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(dir, name)), { recursive: true });
      writeFileSync(join(dir, name), text);
    }
    const buf = join(root, "node_modules/.bin/buf");
    const set = execFileSync(buf, ["build", ".", "-o", "-", "--as-file-descriptor-set"], {
      cwd: dir,
      maxBuffer: 64 * 1024 * 1024,
    });
    return createFileRegistry(fromBinary(FileDescriptorSetSchema, set));
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** A message of a registry. */
export function messageOf(registry: FileRegistry, typeName: string): DescMessage {
  const message = registry.getMessage(typeName);
  if (!message) throw new Error(`no message ${typeName}`);
  return message;
}

/** A service of a registry. */
export function serviceOf(registry: FileRegistry, typeName: string): DescService {
  const service = registry.getService(typeName);
  if (!service) throw new Error(`no service ${typeName}`);
  return service;
}
