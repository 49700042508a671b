import { randomBytes, randomFillSync } from "node:crypto";

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz";

/** A sortable id: the prefix, a dash and a UUID of version 7 (RFC 9562, section 5.7). */
export function newId(prefix: string, nowMs = Date.now()): string {
  const bytes = new Uint8Array(16);
  randomFillSync(bytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, Math.floor(nowMs / 0x10000));
  view.setUint16(4, nowMs % 0x10000);
  bytes[6] = 0x70 | ((bytes[6] as number) & 0x0f);
  bytes[8] = 0x80 | ((bytes[8] as number) & 0x3f);
  const hex = Buffer.from(bytes).toString("hex");
  const uuid = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join(
    "-",
  );
  return `${prefix}-${uuid}`;
}

/** A secret that cannot be guessed: the prefix and `bits` random bits in Crockford base 32. */
export function newSecret(prefix: string, bits = 160): string {
  const digits = Math.ceil(bits / 5);
  return prefix + Array.from(randomBytes(digits), (byte) => alphabet[byte & 31]).join("");
}
