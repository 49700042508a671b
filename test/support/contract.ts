import { globSync } from "node:fs";
import { join } from "node:path";
import type { DescFile, DescMethod, DescService } from "@bufbuild/protobuf";
import { root } from "./gateway.ts";

/** Every service of ours, read from what is generated, so that a new one is not forgotten. */
export async function allServices(): Promise<DescService[]> {
  const services: DescService[] = [];
  for (const path of globSync("gen/portolan/**/*_pb.js", { cwd: root }).sort()) {
    const module: Record<string, unknown> = await import(join(root, path));
    for (const value of Object.values(module)) {
      if (isFile(value)) services.push(...value.services);
    }
  }
  return services;
}

/** Every method of ours. */
export async function allMethods(): Promise<DescMethod[]> {
  return (await allServices()).flatMap((service) => service.methods);
}

const isFile = (value: unknown): value is DescFile =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === "file";
