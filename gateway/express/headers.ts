import type { IncomingHttpHeaders } from "node:http";

/** Header fields as Node takes and gives them. */
export type Fields = Record<string, string | string[] | undefined>;

/** Names and values that need no normalising: all others are left to Headers. */
const plainName = /^[\w-]+$/;
const plainValue = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;

/**
 * Headers at the price of the object behind them. What nearly every call does (`get`, `has`, and
 * `set` of plain text) works on Node's own fields; anything else first turns them into Headers,
 * once, and from then on goes there.
 */
export class LazyHeaders implements Headers {
  #fields: Fields;
  #headers: Headers | undefined;
  #changed = false;

  /** Names are in lower case. The fields are not written to, but copied before they are. */
  constructor(fields: Fields | IncomingHttpHeaders) {
    this.#fields = fields as Fields;
  }

  /** Whether anything else than plain reading has been done. */
  get touched(): boolean {
    return this.#changed || this.#headers !== undefined;
  }

  /** Adds every field to those that Node is to send. */
  copyTo(target: Fields): void {
    if (!this.#headers) {
      Object.assign(target, this.#fields);
      return;
    }
    for (const [name, value] of this.#headers) {
      const other = target[name];
      target[name] = name === "set-cookie" && other !== undefined ? [other, value].flat() : value;
    }
  }

  get(name: string): string | null {
    if (this.#headers || !plainName.test(name)) return this.#real().get(name);
    const value = this.#fields[name.toLowerCase()];
    if (typeof value === "string") return value;
    return Array.isArray(value) ? value.join(", ") : null;
  }

  has(name: string): boolean {
    return this.get(name) !== null;
  }

  set(name: string, value: string): void {
    if (this.#headers || !plainName.test(name) || !plainValue.test(value)) this.#real().set(name, value);
    else this.#own()[name.toLowerCase()] = value;
  }

  append(name: string, value: string): void {
    this.#real().append(name, value);
  }

  delete(name: string): void {
    this.#real().delete(name);
  }

  getSetCookie(): string[] {
    return this.#real().getSetCookie();
  }

  forEach(visit: (value: string, name: string, headers: Headers) => void): void {
    for (const [name, value] of this.#real()) visit(value, name, this);
  }

  entries() {
    return this.#real().entries();
  }

  keys() {
    return this.#real().keys();
  }

  values() {
    return this.#real().values();
  }

  [Symbol.iterator]() {
    return this.#real()[Symbol.iterator]();
  }

  #own(): Fields {
    if (!this.#changed) this.#fields = { ...this.#fields };
    this.#changed = true;
    return this.#fields;
  }

  #real(): Headers {
    if (this.#headers) return this.#headers;
    this.#headers = new Headers();
    for (const [name, value] of Object.entries(this.#fields)) {
      if (value === undefined || name.startsWith(":")) continue;
      for (const one of [value].flat()) this.#headers.append(name, one);
    }
    return this.#headers;
  }
}
