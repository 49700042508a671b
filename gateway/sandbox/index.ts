import type { Interceptor } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { runDock } from "./dock.ts";
import type { Place } from "./geo.ts";
import { type ErrorListener, wait } from "./retry.ts";

/** How to run the simulated fleet. */
export interface SandboxOptions {
  /** Where the server listens, such as `http://127.0.0.1:8080`. */
  baseUrl: string;
  /** An API key that may act as a device. */
  apiKey: string;
  /** Certificate of the server in PEM, when it uses TLS; trusted as it is, whatever name it bears. */
  certificate?: string | Buffer;
  /** How many docks; 3 when not given. */
  count?: number;
  /** Ends the fleet when aborted. */
  signal?: AbortSignal;
  /** Told of errors; all of them are got over. */
  onError?: ErrorListener;
}

/** A running simulated fleet. */
export interface Sandbox {
  /** The device groups, `sandbox-dock-1` and so on. */
  deviceGroupIds: string[];
  /** Ends the fleet; resolves once its connections are closed. */
  stop(): Promise<void>;
}

const HARBOURS: readonly { name: string; home: Place }[] = [
  { name: "Ljubljana", home: { lon: 14.50561, lat: 46.0427, altitudeM: 292 } },
  { name: "Lisbon harbour", home: { lon: -9.15783, lat: 38.70256, altitudeM: 6 } },
  { name: "Kiel harbour", home: { lon: 10.14962, lat: 54.33188, altitudeM: 4 } },
];
const STAGGER_MS = 350;

/** Starts simulated docks that work as ordinary API clients over gRPC. The server need not be up yet. */
export function startSandbox(options: SandboxOptions): Sandbox {
  const ending = new AbortController();
  const { signal } = ending;
  const abort = () => ending.abort();
  if (options.signal?.aborted) {
    abort();
  }
  options.signal?.addEventListener("abort", abort, { once: true });
  const authenticate: Interceptor = (next) => (request) => {
    request.header.set("x-api-key", options.apiKey);
    return next(request);
  };
  // The fleet lives beside the server and reaches it by address, for which no certificate is made.
  const tls = { ca: options.certificate, allowPartialTrustChain: true, checkServerIdentity: () => undefined };
  const sessionManager = new Http2SessionManager(
    options.baseUrl,
    { pingIntervalMs: 20_000 },
    options.certificate === undefined ? {} : tls,
  );
  const transport = createGrpcTransport({
    baseUrl: options.baseUrl,
    interceptors: [authenticate],
    sessionManager,
  });

  const deviceGroupIds = Array.from({ length: options.count ?? 3 }, (_, i) => `sandbox-dock-${i + 1}`);
  const docks = deviceGroupIds.map(async (deviceGroupId, i) => {
    await wait(i * STAGGER_MS, signal);
    const { name, home } = placeOf(i);
    return runDock({ transport, deviceGroupId, name, home, signal, onError: options.onError });
  });
  const stopped = Promise.all(docks).then(() => {
    options.signal?.removeEventListener("abort", abort);
    sessionManager.abort();
  });

  return {
    deviceGroupIds,
    stop() {
      abort();
      return stopped;
    },
  };
}

/** Docks beyond the named places stand about a kilometre and a half from the one before. */
function placeOf(index: number): { name: string; home: Place } {
  const harbour = HARBOURS[index % HARBOURS.length] as (typeof HARBOURS)[number];
  const round = Math.floor(index / HARBOURS.length);
  const { lon, lat, altitudeM } = harbour.home;
  return {
    name: round === 0 ? harbour.name : `${harbour.name} ${round + 1}`,
    home: { lon: lon + 0.02 * (round % 40), lat: lat + 0.02 * Math.floor(round / 40), altitudeM },
  };
}
