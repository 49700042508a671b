import { type DescField, type JsonValue, ScalarType } from "@bufbuild/protobuf";
import { base64Encode } from "@bufbuild/protobuf/wire";
import { isHttpBody, isLeaf } from "./fields.ts";
import { type Bound, bindParts, leafJson, type Parameter, type Part } from "./query.ts";
import type { Field, Plan, Spelling } from "./spelling.ts";

/** One file of a form. */
export interface FormFile {
  readonly name: string;
  readonly contentType: string;
  readonly data: Uint8Array;
}

/** The parts of a form, in the order they came. */
export interface Form {
  readonly files: readonly FormFile[];
  readonly texts: readonly Parameter[];
}

const MOST_PARTS = 1000;

/** Parses multipart/form-data; undefined if it is malformed or has more than 1000 parts. */
export async function parseForm(bytes: Uint8Array, contentType: string): Promise<Form | undefined> {
  const files: FormFile[] = [];
  const texts: Parameter[] = [];
  try {
    const response = new globalThis.Response(bytes as Uint8Array<ArrayBuffer>, {
      headers: { "content-type": contentType },
    });
    for (const [name, value] of await response.formData()) {
      if (typeof value === "string") texts.push([name, value]);
      else files.push({ name, contentType: value.type, data: new Uint8Array(await value.arrayBuffer()) });
    }
  } catch {
    return undefined;
  }
  return files.length + texts.length > MOST_PARTS ? undefined : { files, texts };
}

/** Whether a field can hold a file: bytes, or a `google.api.HttpBody`. */
export function canHoldFile(field: DescField): boolean {
  return field.scalar === ScalarType.BYTES || isHttpBody(field.message);
}

/** Binds the parts of a form to a message as JSON; a message as a text is JSON. */
export function bindForm(spelling: Spelling, plan: Plan, form: Form): Bound {
  const parts = [...form.files.map(filePart), ...form.texts.map((text) => textPart(spelling, text))];
  return bindParts(spelling, plan, parts, () => false);
}

function filePart({ name, contentType, data }: FormFile): Part {
  return {
    name,
    problem: ({ fields }) => (canHoldFile((fields.at(-1) as Field).desc) ? undefined : "cannot hold a file"),
    json: ({ desc }) => {
      const text = base64Encode(data);
      return isHttpBody(desc.message) ? { contentType, data: text } : text;
    },
  };
}

function textPart(spelling: Spelling, [name, text]: Parameter): Part {
  return {
    name,
    problem: ({ fields, mapKey }) =>
      fields.at(-1)?.desc.fieldKind === "map" && mapKey === undefined
        ? "is a map: give a key in brackets"
        : undefined,
    json: (field) => (isLeaf(field.desc) ? leafJson(field, text) : messageJson(spelling, field, text)),
  };
}

const NO_MESSAGE: JsonValue = [];

function messageJson(spelling: Spelling, { desc }: Field, text: string): JsonValue {
  try {
    const json = JSON.parse(text) as JsonValue;
    return desc.message ? spelling.read(desc.message, json) : json;
  } catch {
    return NO_MESSAGE;
  }
}
