import {
  type DescEnumValue,
  type DescMethod,
  type DescService,
  getOption,
  hasOption,
} from "@bufbuild/protobuf";
import { type Surface, SurfaceSchema } from "#gen/portolan/options/v1/surface_pb.js";
import {
  type Deprecation,
  deprecations as deprecationsOption,
  type Version,
  type Versions,
  versions as versionsOption,
} from "#gen/portolan/options/v1/version_pb.js";

/** The surfaces that have versions, in the order of the contract. */
export const versionedSurfaces: ReadonlyMap<Surface, Versions> = new Map(
  SurfaceSchema.values
    .filter((value) => hasOption(value, versionsOption))
    .map((value) => [value.number as Surface, checked(value, getOption(value, versionsOption))]),
);

/** The media type of a version; undefined if the surface has none of its own. */
export function mediaTypeOf({ vendorMediaType }: Versions, { name }: Pick<Version, "name">) {
  return vendorMediaType ? vendorMediaType.replace("{version}", name) : undefined;
}

/** What a method's contract says to be deprecated of it; of a binding with this path, or of it as a whole. */
export function deprecationOf(method: DescMethod, path = ""): Deprecation | undefined {
  return getOption(method, deprecationsOption).find((deprecation) => deprecation.path === path);
}

/** Everything deprecated of some services. */
export function deprecationsIn(services: Iterable<DescService>) {
  return [...services].flatMap(({ methods }) =>
    methods.flatMap((method) =>
      getOption(method, deprecationsOption).map((deprecation) => ({ method, deprecation })),
    ),
  );
}

/**
 * The beginning of a day, as options give it, in Unix milliseconds.
 * @throws Error if it is no day, so that a slip in a contract shows at start
 */
export function dayMs(day: string): number {
  const ms = /^\d{4}-\d\d-\d\d$/.test(day) ? Date.parse(`${day}T00:00:00Z`) : Number.NaN;
  if (Number.isNaN(ms)) throw new Error(`"${day}" is not a day`);
  return ms;
}

/** The end of a day, in Unix milliseconds: what may stop after a day still works on it. */
export const endOfDayMs = (day: string): number => dayMs(day) + 24 * 60 * 60 * 1000 - 1000;

function checked({ name }: DescEnumValue, versions: Versions): Versions {
  const names = versions.versions.map((version) => version.name);
  if (!names.includes(versions.defaultVersion)) throw new Error(`${name}: the default version is none`);
  for (const version of names) {
    if (!/^v\d+$/.test(version)) throw new Error(`${name}: "${version}" is not a version`);
  }
  return versions;
}
