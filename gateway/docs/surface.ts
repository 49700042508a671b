import type { DescMethod } from "@bufbuild/protobuf";
import { SurfaceSchema } from "#gen/portolan/options/v1/surface_pb.js";
import { Spelling } from "../rest/index.ts";
import { dialectOf, surfaceOf } from "../surfaces.ts";
import type { Contract } from "./contract.ts";

/** One REST dialect as the documents speak of it. */
export interface DocumentedSurface {
  /** In lower case, as in `/openapi/fleet.json`. */
  readonly name: string;
  /** In front of component names that would be ambiguous without it, such as `Fleet`. */
  readonly prefix: string;
  readonly description: string;
  readonly spelling: Spelling;
}

/** Finds the surface of a binding; one object for each surface. */
export function createSurfaces({
  registry,
  comment,
}: Contract): (method: DescMethod, template: string) => DocumentedSurface {
  const known = new Map<number, DocumentedSurface>();
  const described = registry.getEnum(SurfaceSchema.typeName);
  return (method, template) => {
    const number = surfaceOf(method, template);
    const there = known.get(number);
    if (there) return there;
    const name = number === 0 ? "plain" : (SurfaceSchema.value[number]?.localName ?? "").toLowerCase();
    const value = described?.value[number];
    const surface: DocumentedSurface = {
      name,
      prefix: name.charAt(0).toUpperCase() + name.slice(1),
      description: value ? comment(value) : "",
      spelling: new Spelling(dialectOf(method, template), registry),
    };
    known.set(number, surface);
    return surface;
  };
}
