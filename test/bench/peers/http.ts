// node:http without anything.
import http from "node:http";
import type { AddressInfo } from "node:net";

const server = http.createServer((_, response) => {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ hello: "world" }));
});
server.listen(0, "127.0.0.1", () =>
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
);
