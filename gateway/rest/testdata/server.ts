import http from "node:http";
import http2 from "node:http2";
import net, { type AddressInfo } from "node:net";
import type { Transcoder } from "../index.ts";

/** A transcoder behind a port, over both versions of HTTP. */
export interface Served {
  /** Sends a request and gives status, headers and text. The path goes out as it is. */
  send(
    method: string,
    path: string,
    options?: { headers?: object; body?: string | Uint8Array },
  ): Promise<Answer>;
  readonly port: number;
  readonly http2Port: number;
  close(): Promise<void>;
}

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly bytes: Buffer;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests read what they sent
  readonly json: any;
}

/** Serves a transcoder on loopback ports. */
export async function serve(transcoder: Transcoder): Promise<Served> {
  const listener = async (req: http.IncomingMessage, res: http.ServerResponse) => {
    if (!(await transcoder.handle(req, res))) transcoder.notFound(req, res);
  };
  const server = http.createServer({ keepAliveTimeout: 120_000 }, listener);
  const server2 = http2.createServer((req, res) => {
    void transcoder.handle(req, res).then((found) => found || transcoder.notFound(req, res));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  await new Promise<void>((resolve) => server2.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const { port: http2Port } = server2.address() as AddressInfo;
  const agent = new http.Agent({ keepAlive: true });
  return {
    port,
    http2Port,
    send: (method, path, { headers = {}, body } = {}) =>
      new Promise((resolve, reject) => {
        const req = http.request({ agent, port, host: "127.0.0.1", method, path, headers: { ...headers } });
        req.on("error", reject);
        req.on("response", (res) => {
          const chunks: Buffer[] = [];
          res.on("data", (chunk) => chunks.push(chunk));
          res.on("error", reject);
          res.on("end", () => {
            const bytes = Buffer.concat(chunks);
            const text = bytes.toString();
            resolve({
              status: res.statusCode ?? 0,
              headers: res.headers,
              bytes,
              text,
              get json() {
                return JSON.parse(text);
              },
            });
          });
        });
        req.end(body);
      }),
    async close() {
      agent.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      server2.close();
    },
  };
}

/** Writes bytes to a port and gives all that comes back. */
export function exchangeRaw(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, "127.0.0.1", () => socket.write(text));
    let answer = "";
    socket.on("data", (chunk) => {
      answer += chunk.toString();
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(answer));
  });
}
