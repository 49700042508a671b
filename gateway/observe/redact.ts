import { type DescField, type DescMessage, type DescService, getOption } from "@bufbuild/protobuf";
import { aliases, secret } from "#gen/portolan/options/v1/policy_pb.js";

/** Headers and query parameters that carry credentials. */
const credentialNames = [
  "authorization",
  "proxy-authorization",
  "x-api-key",
  "cookie",
  "set-cookie",
  "token",
  "access_token",
];

const hidden = "[redacted]";

/** Secrets that tell themselves by their form: our own (see newSecret), tokens, bearer credentials. */
const forms = /\b(?:sk_[\w-]{8,}|share-[0-9a-z]{20,}|eyJ[\w-]+\.[\w-]+\.[\w-]*)|\bBearer\s+[^\s"\\,;]+/gi;

/** The password of an address such as `postgres://user:password@host`. */
const password = /(\w:\/\/[^\s:/@"]*:)[^\s/@"]+(?=@)/g;

/** Takes secrets out of text before it is written anywhere. */
export class Redactor {
  readonly #names = new Set(credentialNames);
  readonly #values = new Set<string>();
  #named = namedValue(this.#names);

  /** Hides the values of the fields that the contracts mark `secret`, by whatever name they go. */
  hideFieldsOf(services: Iterable<DescService>): void {
    for (const field of secretFields(services)) {
      const { name, jsonName, localName } = field;
      for (const each of [name, jsonName, localName, ...getOption(field, aliases)]) this.#names.add(each);
    }
    this.#named = namedValue(this.#names);
  }

  /** Hides a value wherever it stands. */
  hideValue(value: string | undefined): void {
    if (value) this.#values.add(value);
  }

  /** The text without secrets: JSON, query strings, headers and prose alike. */
  redact(text: string): string {
    let clean = text.replace(this.#named, hideValue).replace(forms, hidden).replace(password, `$1${hidden}`);
    for (const value of this.#values) clean = clean.replaceAll(value, hidden);
    return clean;
  }
}

/** The redactor of the process: what must not be written is the same for all who write. */
export const redactor = new Redactor();

/** Every field marked `secret` in the requests and responses of the services. */
export function secretFields(services: Iterable<DescService>): Set<DescField> {
  const found = new Set<DescField>();
  const visited = new Set<DescMessage>();
  const visit = (message: DescMessage | undefined): void => {
    if (!message || visited.has(message)) return;
    visited.add(message);
    for (const field of message.fields) {
      if (getOption(field, secret)) found.add(field);
      visit(field.message);
    }
  };
  for (const { methods } of services) {
    for (const { input, output } of methods) {
      visit(input);
      visit(output);
    }
  }
  return found;
}

/** Matches `name: value` in JSON, also in JSON within a string, in query strings and in headers. */
function namedValue(names: Iterable<string>): RegExp {
  const key = [...names].map((name) => name.replaceAll(/\W/g, "\\$&")).join("|");
  const quoted = String.raw`(")(?:[^"\\]|\\.)*`;
  const quotedWithin = String.raw`(\\+")(?:(?!\4).)*`;
  const bare = String.raw`(?:(?:Bearer|Basic)\s+)?[^\s"\\,;&}\]]+`;
  return new RegExp(
    String.raw`((?<![\w-])(?:${key})(\\*"?)\s*[:=]\s*\[?)(?:${quoted}|${quotedWithin}|${bare})`,
    "gi",
  );
}

/** What stands in for a match; a number in JSON becomes a string, so that the line stays JSON. */
function hideValue(_: string, key: string, keyQuote: string, quote?: string, quoteWithin?: string): string {
  const opening = quote ?? quoteWithin;
  return opening === undefined ? `${key}${keyQuote}${hidden}${keyQuote}` : `${key}${opening}${hidden}`;
}
