// Connect's own Node adapter with a handler that yields a message of the same size once a second.
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { create } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import {
  Health,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as Status,
} from "#gen/grpc/health/v1/health_pb.js";

const message = create(HealthCheckResponseSchema, { status: Status.SERVING });
// Filled up with a field that the contract does not have, to the size of a small track update.
message.$unknown = [
  {
    no: 15,
    wireType: WireType.LengthDelimited,
    data: new BinaryWriter().bytes(new Uint8Array(115)).finish(),
  },
];
const waiting = new Set<() => void>();
setInterval(() => {
  const woken = [...waiting];
  waiting.clear();
  for (const wake of woken) wake();
}, 1000);
const routes = (router: ConnectRouter) => {
  router.service(Health, {
    async *watch() {
      for (;;) {
        yield message;
        await new Promise<void>((resolve) => waiting.add(resolve));
      }
    },
  });
};
const server = http2.createServer(
  { settings: { maxConcurrentStreams: 1000 } },
  connectNodeAdapter({ routes }) as never,
);
server.listen(0, "127.0.0.1", () =>
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
);
