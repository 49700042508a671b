import { Code, ConnectError } from "@connectrpc/connect";
import type { Compression } from "@connectrpc/connect/protocol";
import { compressedFlag, envelopeDecompress } from "@connectrpc/connect/protocol";
import { wireOptions } from "../connect/lane.ts";

const { readMaxBytes, compressMinBytes } = wireOptions;

/** The length of what precedes a message: a byte of flags and the size in four. */
const headBytes = 5;

/** A message, or the end of a stream, as it travels in gRPC, gRPC-Web and Connect streams. */
export interface Envelope {
  readonly flags: number;
  readonly data: Uint8Array;
}

/** Cuts envelopes out of a body as it arrives. Nothing is set aside for bytes that are only announced. */
export class EnvelopeReader {
  #chunks: Uint8Array[] = [];
  #size = 0;
  #wanted = headBytes;

  /**
   * The envelopes that the chunk completes.
   * @throws ConnectError for one that is announced to be larger than allowed
   */
  push(chunk: Uint8Array): Envelope[] {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    const envelopes: Envelope[] = [];
    while (this.#size >= this.#wanted) {
      const all = this.#join();
      const length = all.readUInt32BE(1);
      if (length > readMaxBytes) throw tooLarge(length);
      this.#wanted = headBytes + length;
      if (this.#size < this.#wanted) break;
      // A copy of its own, so that a message does not keep what came with it in memory.
      envelopes.push({
        flags: all[0] as number,
        data: Uint8Array.from(all.subarray(headBytes, this.#wanted)),
      });
      this.#chunks = [all.subarray(this.#wanted)];
      this.#size -= this.#wanted;
      this.#wanted = headBytes;
    }
    return envelopes;
  }

  /** Whether the body so far ends within an envelope. */
  get incomplete(): boolean {
    return this.#size > 0;
  }

  #join(): Buffer {
    const [first] = this.#chunks;
    const all = this.#chunks.length === 1 ? asBuffer(first as Uint8Array) : Buffer.concat(this.#chunks);
    this.#chunks = [all];
    return all;
  }
}

/** The error for a message of so many bytes; without a number it is told while more is coming. */
export function tooLarge(length?: number): ConnectError {
  const size = length === undefined ? "message size" : `message size ${length}`;
  return new ConnectError(
    `${size} is larger than configured readMaxBytes ${readMaxBytes}`,
    Code.ResourceExhausted,
  );
}

/** The data of an envelope, unpacked if it is compressed. */
export function open(envelope: Envelope, coding: Compression | null): Uint8Array | Promise<Uint8Array> {
  if ((envelope.flags & compressedFlag) === 0) return envelope.data;
  return envelopeDecompress(envelope as never, coding, readMaxBytes).then(({ data }) => data);
}

/** An envelope around the data, which is compressed if there is a coding and it is worth it. */
export function seal(flags: number, data: Uint8Array, coding: Compression | null): Buffer | Promise<Buffer> {
  if (!coding || data.length < compressMinBytes) return frame(flags, data);
  return coding.compress(data as never).then((packed) => frame(flags | compressedFlag, packed));
}

/** An envelope around the data as it is. */
export function frame(flags: number, data: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(headBytes + data.length);
  bytes[0] = flags;
  bytes.writeUInt32BE(data.length, 1);
  bytes.set(data, headBytes);
  return bytes;
}

const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
