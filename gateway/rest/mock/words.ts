import { ScalarType } from "@bufbuild/protobuf";
import type { Hints } from "./hints.ts";

/** The time of all examples. */
export const NOW_SECONDS = 1_769_860_800n;

/** What an example is made for. */
export interface Setting {
  /** The field's name in the contract. */
  readonly name: string;
  /** The name of the message it is a field of, such as `Job`. */
  readonly owner: string;
  /** Which of several alike it is, from 0. */
  readonly index: number;
}

const FORMATS: Record<string, (index: number) => string> = {
  email: (i) => `ada${i + 1}@example.com`,
  hostname: () => "example.com",
  address: () => "example.com",
  ip: (i) => `192.0.2.${i + 1}`,
  ipv4: (i) => `192.0.2.${i + 1}`,
  ipv6: (i) => `2001:db8::${i + 1}`,
  ipPrefix: () => "192.0.2.0/24",
  ipv4Prefix: () => "192.0.2.0/24",
  ipv6Prefix: () => "2001:db8::/32",
  ipWithPrefixlen: () => "192.0.2.1/24",
  ipv4WithPrefixlen: () => "192.0.2.1/24",
  ipv6WithPrefixlen: () => "2001:db8::1/32",
  hostAndPort: () => "example.com:8080",
  uri: (i) => `https://example.com/${i + 1}`,
  uriRef: (i) => `/${i + 1}`,
  uuid: (i) => `00000000-0000-4000-8000-${String(i + 1).padStart(12, "0")}`,
  tuuid: (i) => `00000000000040008000${String(i + 1).padStart(12, "0")}`,
  ulid: (i) => `01KGABCDEFGHJKMNPQRSTVWX${String(i + 10).padStart(2, "0")}`,
};

type Words = (setting: Setting) => string;
const format = (name: string) => (setting: Setting) =>
  (FORMATS[name] as (index: number) => string)(setting.index);

/** By the end of a field's name; the first that fits. */
const TEXTS: readonly (readonly [RegExp, Words])[] = [
  // An empty token is how a list says that it is at its end.
  [/(^|_)(page|sync|cursor)_token$|^next_page|^cursor$/, () => ""],
  [/(^|_)request_id$|(^|_)uuid$/, format("uuid")],
  [/^id$/, ({ owner, index }) => `${kebab(owner)}-${index + 1}`],
  [/_id$|_ids$/, ({ name, index }) => `${kebab(name.replace(/_ids?$/, ""))}-${index + 1}`],
  [/(^|_)e?mail$/, format("email")],
  [/(^|_)(phone|mobile)(_number)?$/, ({ index }) => `+1555010${index}`],
  [/(^|_)(url|uri|link|href|website|webhook|endpoint)s?$/, format("uri")],
  [/(^|_)(host|hostname|domain)$/, format("hostname")],
  [/(^|_)ip(_address)?$/, format("ip")],
  [/(^|_)(token|secret|password|key)$/, () => "example-secret"],
  [/(^|_)(etag|revision)$/, ({ index }) => String(index + 1)],
  [/(^|_)version$/, ({ index }) => `1.${index}.0`],
  [/(^|_)(language|locale)(_code)?$/, () => "en"],
  [/(^|_)currency(_code)?$/, () => "EUR"],
  [/(^|_)(country|region)_code$|(^|_)country$/, () => "CH"],
  [/(^|_)time_?zone$/, () => "Europe/Zurich"],
  [/(^|_)city$/, () => "Zurich"],
  [/(^|_)street$/, () => "Example Street 1"],
  [/(^|_)colou?r$/, () => "#3366cc"],
  [/(^|_)(mime|content|media)_type$/, () => "text/plain"],
  [/(^|_)date$/, () => "2026-01-31"],
  [/(^|_)(time|timestamp|_at)$|_at$/, () => "2026-01-31T12:00:00Z"],
  [/(^|_)(first|given)_name$/, () => "Ada"],
  [/(^|_)(last|family)_name$/, () => "Lovelace"],
  [/^(name|title|label|display_name)$/, ({ owner, index }) => `${spaced(owner)} ${index + 1}`],
  [
    /(^|_)(description|summary|message|text|comment|note|details?|reason)$/,
    ({ name }) => `An example ${spacedName(name)}`,
  ],
  [/(^|_)username$/, () => "ada"],
];

/** A string for a field. */
export function exampleText(setting: Setting, hints: Hints): string {
  const known = TEXTS.find(([ending]) => ending.test(setting.name))?.[1](setting);
  const byFormat = hints.format === undefined ? undefined : FORMATS[hints.format]?.(setting.index);
  const plain = byFormat ?? known ?? spacedName(setting.name);
  const word = `example-${setting.index + 1}`;
  const candidates = [plain, hints.prefix + plain, word, "example", "a1", "A1", "1", "123456", "AB"];
  const fits = (text: string) =>
    text.length >= hints.minLength &&
    text.length <= hints.maxLength &&
    text.startsWith(hints.prefix) &&
    !hints.notIn.includes(text) &&
    (hints.pattern?.test(text) ?? true);
  const sized = candidates.map((text) => text.slice(0, hints.maxLength).padEnd(hints.minLength, "x"));
  return candidates.find(fits) ?? sized.find(fits) ?? (sized[0] as string);
}

/** By the end of a field's name; the first that fits. */
const NUMBERS: readonly (readonly [RegExp, number])[] = [
  [/(^|_)lat(itude)?(_deg)?$/, 47.3769],
  [/(^|_)(lon|lng|longitude)(_deg)?$/, 8.5417],
  [/(^|_)(altitude|elevation|height)(_m)?$/, 120],
  [/(^|_)(percent|percentage|progress|battery)$/, 42],
  [/(^|_)(ratio|fraction|confidence|probability)$/, 0.42],
  [/(^|_)(heading|bearing|course)(_deg)?$/, 90],
  [/(^|_)speed/, 12],
  [/(^|_)port$/, 8080],
  [/(^|_)year$/, 2026],
  [/(^|_)(price|amount|cost)$/, 10],
  [/(^|_)(count|size|total|quantity)$|^(total|num|number)_/, 2],
  [/_ms$|_millis$/, 1500],
  [/_(seconds|secs|s)$/, 90],
  [/(^|_)bytes$/, 1024],
  [/(^|_)(http_)?status(_code)?$/, 200],
];

/** A number for a field, whole where its type wants that. */
export function exampleNumber(setting: Setting, hints: Hints, type: ScalarType): number {
  const isWhole = type !== ScalarType.DOUBLE && type !== ScalarType.FLOAT;
  const isCounter = /(^|_)(sequence|seq|index|number|position|attempt|page)$/.test(setting.name);
  const known = isCounter ? undefined : NUMBERS.find(([ending]) => ending.test(setting.name))?.[1];
  const plain = known ?? setting.index + 1;
  const limited = Math.min(Math.max(plain, hints.min ?? -Infinity), hints.max ?? Infinity);
  return isWhole ? Math.round(limited) : limited;
}

/** A bool for a field: what is exceptional is false. */
export function exampleBool({ name }: Setting): boolean {
  return !/delete|disable|archiv|has_more|dry_run|validate_only|error|fail|expire|revoke|truncated/.test(
    name,
  );
}

function kebab(name: string): string {
  return spaced(name).replaceAll(" ", "-").toLowerCase();
}

function spaced(name: string): string {
  return name.replace(/([a-z0-9])([A-Z])/g, "$1 $2").replaceAll("_", " ");
}

function spacedName(name: string): string {
  return name.replaceAll("_", " ");
}
