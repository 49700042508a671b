import type { ConnectError } from "@connectrpc/connect";
import { type Compression, compressionNegotiate } from "@connectrpc/connect/protocol";
import { wireOptions } from "../connect/lane.ts";

/** The codings of a call. */
export interface Codings {
  readonly request: Compression | null;
  readonly response: Compression | null;
  /** Set if the client uses a coding that is not known here. */
  readonly error?: ConnectError | undefined;
}

const none: Codings = { request: null, response: null };

/** What few clients send in many spellings need not be parsed again for every call. */
const known = new Map<string, Codings>();
const knownSize = 1000;

/** Agrees on codings, from the one that the client uses and those that it accepts. */
export function negotiate(used: string | null, accepted: string | null, acceptHeader: string): Codings {
  if (used === null && accepted === null) return none;
  const key = `${used}\n${accepted}`;
  const found = known.get(key);
  if (found) return found;
  const codings = compressionNegotiate(wireOptions.acceptCompression, used, accepted, acceptHeader);
  // An error is made for one call.
  if (!codings.error && known.size < knownSize) known.set(key, codings);
  return codings;
}
