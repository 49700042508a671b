// Follows a server stream many times over raw HTTP/2, in a process of its own, and reports how many
// messages came and how late. It walks frame headers and reads nothing else, so that what is
// measured is the server: one process takes in 100 000 messages a second and more.
//   follower.ts URL PATH HEADERS_JSON BODY_BASE64 CONNECTIONS STREAMS SECONDS
import net from "node:net";
import { quantile } from "./table.ts";

const [url = "", path = "", headersJson = "{}", body64 = "", ...numbers] = process.argv.slice(2);
const [connections = 1, streams = 1, seconds = 10] = numbers.map(Number);
const { hostname, port, host } = new URL(url);
const body = Buffer.from(body64, "base64");

/** What a stream of a connection has shown. */
interface Stream {
  count: number;
  /** Arrival of the last message, in milliseconds. */
  lastMs: number;
}
const lateness: number[] = [];
let received = 0;
let closed = 0;
let measuring = false;

/** A string literal of HPACK (RFC 7541, section 5.2), not compressed. */
function literal(text: string): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length = [127];
  let rest = bytes.length - 127;
  for (; rest >= 128; rest >>= 7) length.push((rest & 127) | 128);
  return Buffer.concat([Buffer.from([...length, rest]), bytes]);
}

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const headerBlock = Buffer.concat(
  Object.entries({
    ":method": "POST",
    ":scheme": "http",
    ":path": path,
    ":authority": host,
    ...(JSON.parse(headersJson) as Record<string, string>),
  }).map(([name, value]) => Buffer.concat([Buffer.from([0]), literal(name), literal(value)])),
);

/** Windows as wide as they go: the client never holds the server up. */
const opening = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  frame(4, 0, 0, Buffer.from([0, 4, 0x7f, 0xff, 0xff, 0xff])),
  frame(8, 0, 0, Buffer.from([0x7f, 0xff, 0, 0])),
]);

function connect(index: number): void {
  const states = new Map<number, Stream>();
  const socket = net.connect(Number(port), hostname);
  socket.setNoDelay(true);
  const opened: Buffer[] = [opening];
  for (let each = 0; each < streams; each++) {
    const id = 2 * each + 1;
    states.set(id, { count: 0, lastMs: 0 });
    opened.push(frame(1, 4, id, headerBlock), frame(0, 1, id, body));
  }
  socket.write(Buffer.concat(opened));
  let rest: Buffer = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    const now = performance.timeOrigin + performance.now();
    let data = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    let at = 0;
    while (data.length - at >= 9) {
      const length = data.readUIntBE(at, 3);
      if (data.length - at < 9 + length) break;
      const type = data[at + 3];
      const flags = data[at + 4] ?? 0;
      const id = data.readUInt32BE(at + 5);
      if (type === 0 && length > 0) arrived(states.get(id), now);
      if (type === 3 || ((type === 0 || type === 1) && flags & 1)) closed++;
      if (type === 4 && !(flags & 1)) socket.write(frame(4, 1, 0, Buffer.alloc(0)));
      if (type === 6 && !(flags & 1)) socket.write(frame(6, 1, 0, data.subarray(at + 9, at + 9 + length)));
      if (type === 7) closed += streams;
      at += 9 + length;
    }
    data = data.subarray(at);
    rest = data.length > 0 ? Buffer.from(data) : Buffer.alloc(0);
  });
  socket.on("error", (error) => {
    console.error(`connection ${index}: ${error.message}`);
    process.exit(1);
  });
  socket.on("close", () => process.exit(1));
}

/** Each message is due a second after the one before: what it comes later than that is its lateness. */
function arrived(stream: Stream | undefined, nowMs: number): void {
  if (!stream) return;
  stream.count++;
  if (measuring) {
    received++;
    if (stream.count > 2) lateness.push(Math.abs(nowMs - stream.lastMs - 1000));
  }
  stream.lastMs = nowMs;
}

// Not all at once, so that the server's accept queue does not overflow.
for (let index = 0; index < connections; index++) {
  connect(index);
  if (index % 20 === 19) await new Promise((resolve) => setTimeout(resolve, 10));
}
process.stdin.once("data", () => {
  measuring = true;
  setTimeout(() => {
    const sorted = Float64Array.from(lateness).sort();
    const report = {
      received,
      expected: connections * streams * seconds,
      closed,
      p50: quantile(sorted, 0.5),
      p99: quantile(sorted, 0.99),
    };
    console.log(JSON.stringify(report));
    process.exit(0);
  }, seconds * 1000);
});
console.log("open");
