import { type DescMethod, type DescService, getOption } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { http } from "#gen/google/api/annotations_pb.js";
import type { VersionService } from "#gen/portolan/meta/v1/version_service_pb.js";
import { dayMs, deprecationsIn, endOfDayMs, mediaTypeOf, versionedSurfaces } from "./versions.ts";

/** Handlers of VersionService; `services` gives those that the server speaks. */
export function createVersionService(
  services: () => Iterable<DescService>,
): ServiceImpl<typeof VersionService> {
  return {
    listVersions: () => ({
      surfaces: [...versionedSurfaces].map(([surface, versions]) => ({
        surface,
        defaultVersion: versions.defaultVersion,
        versions: versions.versions.map((version) => ({
          version: version.name,
          path: version.path,
          served: version.path !== "",
          status: version.status,
          supportLevel: version.supportLevel,
          mediaType: mediaTypeOf(versions, version) ?? "",
          features: version.features,
          ...times(version.deprecatedSince, version.sunset),
        })),
      })),
      deprecations: deprecationsIn(services()).map(({ method, deprecation }) => ({
        rpc: `${method.parent.typeName}.${method.name}`,
        method: deprecation.path && httpMethodOf(method, deprecation.path),
        path: deprecation.path,
        successor: deprecation.successor,
        note: deprecation.note,
        ...times(deprecation.since, deprecation.sunset),
      })),
    }),
  };
}

function times(since: string, sunset: string) {
  return {
    ...(since && { deprecatedAt: timestampFromMs(dayMs(since)) }),
    ...(sunset && { sunsetAt: timestampFromMs(endOfDayMs(sunset)) }),
  };
}

/** The HTTP method of the binding with this path. */
function httpMethodOf(method: DescMethod, path: string): string {
  const rule = getOption(method, http);
  for (const { pattern } of [rule, ...rule.additionalBindings]) {
    if (pattern.case === "custom" && pattern.value.path === path) return pattern.value.kind;
    if (pattern.case !== "custom" && pattern.value === path) return pattern.case?.toUpperCase() ?? "";
  }
  throw new Error(`${method.parent.typeName}.${method.name} has no binding ${path} to deprecate`);
}
