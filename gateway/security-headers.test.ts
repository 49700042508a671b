import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, it } from "vitest";
import { setSecurityHeaders } from "./security-headers.ts";

/** The headers of an answer to a request with this content type. */
async function headersOf(type: string, isTls: boolean, policy?: string): Promise<Headers> {
  const server = createServer((request, response) => {
    setSecurityHeaders(request, response, isTls);
    if (policy) response.setHeader("content-security-policy", policy);
    response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { headers } = await fetch(url, { headers: { "content-type": type } });
  server.close();
  return headers;
}

it("asks for TLS for a year where there is TLS, and nowhere else", async () => {
  expect((await headersOf("application/json", true)).get("strict-transport-security")).toBe(
    "max-age=31536000",
  );
  expect((await headersOf("application/json", false)).get("strict-transport-security")).toBeNull();
});

it("lets a page set a policy of its own", async () => {
  const headers = await headersOf("text/html", false, "default-src 'self'");
  expect(headers.get("content-security-policy")).toBe("default-src 'self'");
  expect(headers.get("x-content-type-options")).toBe("nosniff");
});

it("leaves out gRPC alone, not gRPC-Web", async () => {
  expect((await headersOf("application/grpc+proto", true)).get("x-content-type-options")).toBeNull();
  expect((await headersOf("application/grpc-web+proto", true)).get("x-content-type-options")).toBe("nosniff");
});
