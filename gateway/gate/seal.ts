import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes } from "node:crypto";

const [ivBytes, tagBytes] = [12, 16];

/** Keeps bytes so that only who knows a secret can read them. */
export interface Seal {
  /** What the secret is known by, without telling it. */
  readonly name: string;
  /** A digest that cannot be compared without the secret. */
  digest(data: Uint8Array): string;
  close(data: Uint8Array): Uint8Array;
  /** @throws Error if the bytes were sealed with another secret, or altered */
  open(sealed: Uint8Array): Uint8Array;
}

/** The seal of a secret: AES-256-GCM under a key derived from it. */
export function createSeal(secret: string): Seal {
  const derive = (use: string) => createHmac("sha256", use).update(secret).digest();
  const key = derive("portolan seal");
  return {
    name: createHash("sha256").update(secret).digest("hex"),
    digest: (data) => createHmac("sha256", derive("portolan digest")).update(data).digest("hex"),
    close(data) {
      const iv = randomBytes(ivBytes);
      const cipher = createCipheriv("aes-256-gcm", key, iv);
      return Buffer.concat([iv, cipher.update(data), cipher.final(), cipher.getAuthTag()]);
    },
    open(sealed) {
      const bytes = Buffer.from(sealed);
      const decipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(0, ivBytes));
      decipher.setAuthTag(bytes.subarray(bytes.length - tagBytes));
      const text = bytes.subarray(ivBytes, bytes.length - tagBytes);
      return Buffer.concat([decipher.update(text), decipher.final()]);
    },
  };
}
