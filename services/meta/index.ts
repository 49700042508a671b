import type { DescService } from "@bufbuild/protobuf";
import { VersionService } from "#gen/portolan/meta/v1/version_service_pb.js";
import { type ServiceModule, serve } from "#kernel/kernel.ts";
import { createVersionService } from "./version-service.ts";

/** What the server tells about itself; `services` gives those that it speaks. */
export function createMeta(services: () => Iterable<DescService>): ServiceModule {
  return { services: [serve(VersionService, createVersionService(services))], migrations: [] };
}
