import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import {
  type HealthCheckRequest,
  type HealthCheckResponseSchema,
  type Health as HealthService,
  HealthCheckResponse_ServingStatus as Status,
} from "#gen/grpc/health/v1/health_pb.js";

/** The health of the server and its services, as told to clients of grpc.health.v1. */
export interface HealthState {
  /** The implementation of grpc.health.v1.Health. */
  readonly impl: ServiceImpl<typeof HealthService>;
  /**
   * Sets the status of one service; "" is the whole server. Without a name it sets the server and
   * every service. A name not seen before becomes known. Has no effect after `shutdown`.
   */
  setServing(serving: boolean, service?: string): void;
  /** Turns everything to NOT_SERVING for good and ends open Watch streams once they have told so. */
  shutdown(): void;
}

/** One open Watch stream: the statuses it has yet to send. */
interface Watcher {
  readonly service: string;
  readonly pending: Status[];
  last: Status | undefined;
  wake: () => void;
}

const MAX_LISTED = 100;
/** A client that does not read must not grow memory: the oldest unsent changes are dropped. */
const MAX_PENDING = 32;

/** Creates the health service for the named services, all SERVING, and for the whole server (""). */
export function createHealth(serviceNames: string[]): HealthState {
  const statuses = new Map<string, Status>(["", ...serviceNames].map((name) => [name, Status.SERVING]));
  const watchers = new Set<Watcher>();
  let down = false;

  function push(watcher: Watcher): void {
    const status = statuses.get(watcher.service) ?? Status.SERVICE_UNKNOWN;
    if (status === watcher.last) return;
    watcher.last = status;
    if (watcher.pending.push(status) > MAX_PENDING) watcher.pending.shift();
  }

  function set(names: Iterable<string>, status: Status): void {
    for (const name of names) statuses.set(name, status);
    for (const watcher of watchers) {
      push(watcher);
      watcher.wake();
    }
  }

  async function* watch(
    request: HealthCheckRequest,
    { signal }: Pick<HandlerContext, "signal">,
  ): AsyncGenerator<MessageInitShape<typeof HealthCheckResponseSchema>> {
    const watcher: Watcher = { service: request.service, pending: [], last: undefined, wake: () => {} };
    const onAbort = () => watcher.wake();
    signal.addEventListener("abort", onAbort);
    watchers.add(watcher);
    push(watcher);
    try {
      while (!signal.aborted) {
        const status = watcher.pending.shift();
        if (status !== undefined) {
          yield { status };
        } else if (down) {
          return;
        } else {
          await new Promise<void>((resolve) => {
            watcher.wake = resolve;
          });
        }
      }
    } finally {
      watchers.delete(watcher);
      signal.removeEventListener("abort", onAbort);
    }
  }

  return {
    impl: {
      check({ service }) {
        const status = statuses.get(service);
        if (status === undefined) throw new ConnectError(`unknown service "${service}"`, Code.NotFound);
        return { status };
      },
      watch,
      list() {
        if (statuses.size > MAX_LISTED) {
          throw new ConnectError(`more than ${MAX_LISTED} services, use Check`, Code.ResourceExhausted);
        }
        return {
          statuses: Object.fromEntries([...statuses].map(([name, status]) => [name, { status }])),
        };
      },
    },
    setServing(serving, service) {
      if (down) return;
      set(
        service === undefined ? [...statuses.keys()] : [service],
        serving ? Status.SERVING : Status.NOT_SERVING,
      );
    },
    shutdown() {
      down = true;
      set([...statuses.keys()], Status.NOT_SERVING);
    },
  };
}
