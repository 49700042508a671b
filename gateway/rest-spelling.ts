import type { DescField, DescMessage, JsonObject, JsonValue, Message } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { BadRequestSchema } from "#gen/google/rpc/error_details_pb.js";
import { cutOf, type FieldTree } from "./gate/sparse.ts";
import { rootOf } from "./gate/validate.ts";

/** How REST writes a field's name. */
type NameOf = (field: DescField) => string;

/** The names of bodies: as in the contract, or their JSON form. */
export const namesIn =
  (protoNames: boolean): NameOf =>
  (field) =>
    protoNames ? field.name : field.jsonName;

/** A field path of the contract, such as `desired_location.coordinates[0]`, as bodies spell it. */
export function spellPath(root: DescMessage, path: string, nameOf: NameOf): string {
  let message: DescMessage | undefined = root;
  return path.replaceAll(/\[[^\]]*\]|[^.[\]]+/g, (segment) => {
    const field: DescField | undefined =
      message?.field[segment] ?? message?.fields.find((f) => f.name === segment);
    if (!field) return segment;
    message = field.message;
    return nameOf(field);
  });
}

/** The error with its field paths spelled as in bodies, where they are spelled as in the contract. */
export function spellError(error: ConnectError, nameOf: NameOf): ConnectError {
  const root = rootOf(error);
  if (!root) return error;
  let message = error.rawMessage;
  const violations = error.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) =>
    fieldViolations.map((violation) => {
      const field = spellPath(root, violation.field, nameOf);
      if (violation.field && message.startsWith(`${violation.field}: `)) {
        message = field + message.slice(violation.field.length);
      }
      return { ...violation, field };
    }),
  );
  const details = error.details.map((detail) =>
    "desc" in detail && detail.desc.typeName === BadRequestSchema.typeName
      ? { ...detail, value: { fieldViolations: violations } }
      : detail,
  );
  const spelled = new ConnectError(message, error.code, error.metadata, undefined, error.cause);
  spelled.details = details as typeof error.details;
  return spelled;
}

/**
 * The body of a response without the fields that the caller has not asked for. Bodies carry fields
 * that are not set, so that their absence from the message is not enough.
 */
export function cutBody(body: JsonValue, response: Message, nameOf: NameOf): JsonValue {
  const cut = cutOf(response);
  if (!cut) return body;
  const name = nameOf(cut.subject);
  // With a `response_body` the body is the resource, or the list of them.
  if (isObject(body) && body[name] !== undefined)
    return { ...body, [name]: prune(body[name], cut.tree, nameOf) };
  return Array.isArray(body) ? prune(body, cut.tree, nameOf) : body;
}

function prune(json: JsonValue, tree: FieldTree, nameOf: NameOf): JsonValue {
  if (Array.isArray(json)) return json.map((each) => prune(each, tree, nameOf));
  if (!isObject(json)) return json;
  const kept: JsonObject = {};
  for (const [field, branch] of tree) {
    const value = json[nameOf(field)];
    if (value === undefined) continue;
    kept[nameOf(field)] = branch ? prune(value, branch, nameOf) : value;
  }
  return kept;
}

const isObject = (json: JsonValue): json is JsonObject =>
  typeof json === "object" && json !== null && !Array.isArray(json);
