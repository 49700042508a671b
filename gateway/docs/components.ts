import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { isObject } from "./infer.ts";

/** The components that paths refer to, and those that these refer to in turn. */
export function reachable(paths: JsonObject, components: JsonObject): JsonObject {
  const wanted = new Set<string>();
  const add = (section: string, name: string): void => {
    if (wanted.has(`${section}/${name}`)) return;
    wanted.add(`${section}/${name}`);
    visit((components[section] as JsonObject)[name] as JsonValue);
  };
  const visit = (json: JsonValue): void => {
    if (Array.isArray(json)) for (const each of json) visit(each);
    else if (isObject(json)) {
      for (const [key, value] of Object.entries(json)) {
        if (key === "$ref" && typeof value === "string") {
          const [, , section = "", name = ""] = value.split("/");
          add(section, name);
        } else if (key === "security") {
          const schemes = (value as JsonObject[]).flatMap((each) => Object.keys(each));
          for (const name of schemes) add("securitySchemes", name);
        } else visit(value);
      }
    }
  };
  visit(paths);
  const sections = Object.entries(components).map(([section, all]) => {
    const used = Object.entries(all as JsonObject).filter(([name]) => wanted.has(`${section}/${name}`));
    return [section, Object.fromEntries(used)];
  });
  return Object.fromEntries(sections);
}

/** The object with its keys in order. */
export const sorted = (json: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(json).sort(([a], [b]) => (a < b ? -1 : 1)));
