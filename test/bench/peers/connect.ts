// Connect's own Node adapter with a handler that does nothing.
import http from "node:http";
import http2 from "node:http2";
import net, { type AddressInfo } from "node:net";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { Health, HealthCheckResponse_ServingStatus as Status } from "#gen/grpc/health/v1/health_pb.js";

const routes = (router: ConnectRouter) => {
  router.service(Health, { check: () => ({ status: Status.SERVING }) });
};
const handler = connectNodeAdapter({ routes });
const servers = { http1: http.createServer(handler), http2: http2.createServer(handler as never) };
const server = net.createServer((socket) => {
  socket.setNoDelay(true);
  socket.once("readable", () => {
    const head: Buffer | null = socket.read();
    if (!head) return;
    socket.unshift(head);
    (head.toString("latin1", 0, 3) === "PRI" ? servers.http2 : servers.http1).emit("connection", socket);
  });
});
server.listen(0, "127.0.0.1", () =>
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
);
