import { Code as RpcCode } from "#gen/google/rpc/code_pb.js";

/** Upper bounds of the duration buckets, in seconds. */
export const bucketBounds = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
] as const;

/** Durations of the calls that ended with one status. */
export class Durations {
  /** One for each bound and a last one for what lies above, not cumulated. */
  readonly buckets = new Array<number>(bucketBounds.length + 1).fill(0);
  sum = 0;

  /** Adds a duration in seconds. */
  add(seconds: number): void {
    let at = 0;
    while (at < bucketBounds.length && seconds > (bucketBounds[at] as number)) at++;
    this.buckets[at] = (this.buckets[at] as number) + 1;
    this.sum += seconds;
  }
}

/** What is counted of one method over one protocol: plain numbers, found once and added to. */
export class Tally {
  /** `package.Service/Method`, or `_OTHER` for what is no method. */
  readonly method: string;
  readonly protocol: string;
  /** Whether its calls are streams. */
  isStream = false;
  openStreams = 0;
  messagesSent = 0;
  /** By status name; those of a method that was never reached are not here. */
  readonly durations = new Map<string, Durations>();
  /** Failures by status name and reason. */
  readonly errors = new Map<string, Map<string, number>>();

  constructor(method: string, protocol: string) {
    this.method = method;
    this.protocol = protocol;
  }

  opened(): void {
    this.isStream = true;
    this.openStreams += 1;
  }

  ended(status: string, seconds: number): void {
    if (this.isStream) this.openStreams -= 1;
    const durations = this.durations.get(status) ?? new Durations();
    this.durations.set(status, durations);
    durations.add(seconds);
  }

  failed(status: string, reason: string): void {
    const reasons = this.errors.get(status) ?? new Map<string, number>();
    this.errors.set(status, reasons);
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  }
}

/** Every tally of a server, each made when it is first asked for. */
export class Tallies {
  readonly #all = new Map<string, Map<string, Tally>>();

  of(method: string, protocol: string): Tally {
    return this.#all.get(method)?.get(protocol) ?? this.#make(method, protocol);
  }

  *[Symbol.iterator](): Iterator<Tally> {
    for (const byProtocol of this.#all.values()) yield* byProtocol.values();
  }

  #make(method: string, protocol: string): Tally {
    const tally = new Tally(method, protocol);
    const byProtocol = this.#all.get(method) ?? new Map<string, Tally>();
    this.#all.set(method, byProtocol.set(protocol, tally));
    return tally;
  }
}

/** The name of a status code, such as `NOT_FOUND`. */
export const statusName = (code: number): string => RpcCode[code] ?? "UNKNOWN";
