// node:http2 without anything: reads the request and answers with the same bytes every time.
import http2 from "node:http2";
import type { AddressInfo } from "node:net";

const reply = Buffer.from([0, 0, 0, 0, 2, 8, 1]);
const headers = { ":status": 200, "content-type": "application/grpc" };
const server = http2.createServer();
server.on("stream", (stream: http2.ServerHttp2Stream) => {
  stream.resume();
  stream.once("end", () => {
    stream.respond(headers, { waitForTrailers: true });
    stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(reply);
  });
});
server.listen(0, "127.0.0.1", () =>
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
);
