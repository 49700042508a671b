// node:http2 by hand: one tick a second, the same bytes written to every stream.
import http2 from "node:http2";
import type { AddressInfo } from "node:net";

const payload = Buffer.alloc(125, 1);
payload.writeUInt8(0, 0);
payload.writeUInt32BE(120, 1);
const headers = { ":status": 200, "content-type": "application/grpc" };
const streams = new Set<http2.ServerHttp2Stream>();
const server = http2.createServer({ settings: { maxConcurrentStreams: 1000 } });
server.on("stream", (stream: http2.ServerHttp2Stream) => {
  stream.resume();
  stream.respond(headers);
  stream.write(payload);
  streams.add(stream);
  stream.once("close", () => streams.delete(stream));
  stream.on("error", () => {});
});
setInterval(() => {
  for (const stream of streams) stream.write(payload);
}, 1000);
server.listen(0, "127.0.0.1", () =>
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
);
