import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { fail } from "#kernel/errors.ts";

const derive = promisify(scrypt) as (pin: string, salt: Buffer, length: number) => Promise<Buffer>;

/** The stored form of a PIN. */
export async function hashPin(pin: string): Promise<string> {
  const salt = randomBytes(16);
  return `${salt.toString("hex")}:${(await derive(pin, salt, 32)).toString("hex")}`;
}

/** Wrong PINs that a share takes in a window. A PIN has so few digits that guesses must be rationed. */
const attempts = 5;
const windowMs = 5 * 60_000;

/** Checks PINs and locks a share for a while after too many wrong ones. */
export function createPinGuard(nowMs: () => number) {
  const wrong = new Map<string, { count: number; until: number }>();
  return async function check(shareCode: string, pinHash: string, pin: string): Promise<void> {
    if (!pinHash) return;
    const now = nowMs();
    for (const [code, { until }] of wrong) if (until <= now) wrong.delete(code);
    const tally = wrong.get(shareCode);
    if (tally && tally.count >= attempts) {
      throw fail("SHARE_PIN_LOCKED", { retryAfterMs: tally.until - now });
    }
    if (!pin) throw fail("SHARE_PIN_REQUIRED");
    // Counted before the slow comparison, so that parallel guesses are counted too.
    const entry = tally ?? { count: 0, until: now + windowMs };
    entry.count += 1;
    wrong.set(shareCode, entry);
    const [salt = "", hash = ""] = pinHash.split(":");
    const given = await derive(pin, Buffer.from(salt, "hex"), 32);
    if (!timingSafeEqual(given, Buffer.from(hash, "hex"))) throw fail("SHARE_PIN_INVALID");
    wrong.delete(shareCode);
  };
}
