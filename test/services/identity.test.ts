import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { decodeJwt, generateKeyPair, SignJWT } from "jose";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ApiKeyService } from "#gen/portolan/identity/v1/api_key_service_pb.js";
import { TokenService } from "#gen/portolan/identity/v1/token_service_pb.js";
import { JobService } from "#gen/portolan/jobs/v1/job_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { ResourceService } from "#gen/portolan/streams/v1/resource_service_pb.js";
import { newId } from "#kernel/ids.ts";
import { issuer } from "#services/identity/tokens.ts";
import { onEachEngine } from "#test/support/databases.ts";
import { expectReason, reader, startTestServer, type TestServer } from "#test/support/server.ts";

onEachEngine((database) => {
  let server: TestServer;
  let keys: Client<typeof ApiKeyService>;

  beforeAll(async () => {
    server = await startTestServer(database());
    keys = server.client(ApiKeyService, server.admin);
  });
  afterAll(() => server.stop());

  const issue = async (key: { id: string; secret: string }, apiKey = key.secret) => {
    const request = { grantType: "client_credentials", clientId: key.id, clientSecret: key.secret };
    return server.client(TokenService, apiKey).issueToken(request);
  };
  const withBearer = (token: string) =>
    server.client(JobService, undefined, { Authorization: `Bearer ${token}` }).listJobs({});

  it("issues a token for client credentials and an API key of the tenant, and takes it", async () => {
    const key = await server.newKey(Role.PILOT);
    const { accessToken, tokenType, expiresIn, scope } = await issue(key, server.admin);
    expect([tokenType, expiresIn]).toEqual(["Bearer", 3600]);
    expect(scope.split(" ")).toContain("jobs:write");
    expect(decodeJwt(accessToken)).toMatchObject({
      sub: key.id,
      tenant_id: "default",
      roles: ["PILOT"],
      iss: issuer,
    });
    expect((await withBearer(accessToken)).count).toBe(0);
    expect((await withBearer(key.secret)).count).toBe(0);
  });

  it("issues tokens over REST in the form of OAuth, with keys that verify them", async () => {
    const key = await server.newKey(Role.VIEWER);
    const body = { grant_type: "client_credentials", client_id: key.id, client_secret: key.secret };
    const { status, json } = await server.rest("POST", "/v3/auth/token", { apiKey: key.secret, body });
    expect([status, json.token_type, json.expires_in]).toEqual([200, "Bearer", 3600]);
    const jwks = await server.rest("GET", "/.well-known/jwks.json", { apiKey: "" });
    expect(jwks.json.keys[0]).toMatchObject({ kty: "RSA", alg: "RS256", use: "sig" });
    expect(jwks.text).not.toContain('"d"');
  });

  it("refuses token requests with a wrong grant, key, client or secret", async () => {
    const key = await server.newKey(Role.PILOT);
    const other = await server.newKey(Role.PILOT, { tenantId: "elsewhere" });
    const request = { grantType: "client_credentials", clientId: key.id, clientSecret: key.secret };
    const tokens = server.client(TokenService, server.admin);
    await expectReason(tokens.issueToken({ ...request, grantType: "password" }), "UNSUPPORTED_GRANT_TYPE");
    await expectReason(tokens.issueToken({ ...request, clientSecret: "sk_wrong" }), "INVALID_CLIENT");
    await expectReason(tokens.issueToken({ ...request, clientId: "key-other" }), "INVALID_CLIENT");
    await expectReason(issue(key, "sk_wrong"), "INVALID_API_KEY");
    await expectReason(server.client(TokenService).issueToken(request), "INVALID_API_KEY");
    await expectReason(issue(key, other.secret), "INVALID_CLIENT");
  });

  it("refuses tokens that are foreign, altered, unsigned, expired or not tokens", async () => {
    const { accessToken } = await issue(await server.newKey(Role.ADMIN));
    const { privateKey } = await generateKeyPair("RS256");
    const signed = (kid: string) =>
      new SignJWT({ sub: "key-admin" })
        .setProtectedHeader({ alg: "RS256", kid })
        .setIssuer(issuer)
        .setAudience(issuer)
        .setExpirationTime("1h")
        .sign(privateKey);
    const [header = "", payload = "", signature = ""] = accessToken.split(".");
    const { kid } = JSON.parse(Buffer.from(header, "base64url").toString());
    const claims = JSON.parse(Buffer.from(payload, "base64url").toString());
    const forged = Buffer.from(JSON.stringify({ ...claims, sub: "key-admin" })).toString("base64url");
    const none = Buffer.from(JSON.stringify({ alg: "none", kid })).toString("base64url");
    for (const token of [
      await signed(kid),
      await signed(newId("sig")),
      `${header}.${forged}.${signature}`,
      `${none}.${payload}.`,
      "a.b.c",
      "sk_unknown",
    ]) {
      await expectReason(withBearer(token), "INVALID_TOKEN");
    }
    const basic = server.client(JobService, undefined, { Authorization: "Basic eA==" });
    await expectReason(basic.listJobs({}), "INVALID_TOKEN");
    await expectReason(server.client(JobService).listJobs({}), "MISSING_CREDENTIALS");
    await expectReason(server.client(JobService, "sk_unknown").listJobs({}), "INVALID_TOKEN");
  });

  it("stops a key and its tokens when the key is revoked, and again changes nothing", async () => {
    const key = await server.newKey(Role.PILOT);
    const { accessToken } = await issue(key);
    await withBearer(accessToken);
    await keys.revokeApiKey({ id: key.id });
    await keys.revokeApiKey({ id: key.id });
    await expectReason(withBearer(accessToken), "INVALID_TOKEN");
    await expectReason(server.client(JobService, key.secret).listJobs({}), "INVALID_TOKEN");
    await expectReason(issue(key, server.admin), "INVALID_CLIENT");
    await expectReason(keys.revokeApiKey({ id: "key-none" }), "API_KEY_NOT_FOUND");
    const listed = (await keys.listApiKeys({ pageSize: 1000 })).apiKeys.find(({ id }) => id === key.id);
    expect(listed?.revokedAt).toBeDefined();
  });

  it("ends the live streams of a key when it is revoked", async () => {
    const key = await server.newKey(Role.VIEWER);
    const deviceGroupId = await server.newGroup();
    const resources = server.client(ResourceService, key.secret);
    const stream = reader(resources.trackResource({ deviceGroupId }));
    await stream.next();
    const { accessToken } = await issue(key);
    const bearer = { Authorization: `Bearer ${accessToken}` };
    const byToken = reader(server.client(ResourceService, "", bearer).trackResource({ deviceGroupId }));
    await byToken.next();
    await keys.revokeApiKey({ id: key.id });
    await expectReason(stream.rest(), "INVALID_TOKEN");
    await expectReason(byToken.rest(), "INVALID_TOKEN");
  });

  it("stops a key and its tokens when the key expires", async () => {
    const expiresAt = timestampFromMs(Date.now() + 4000);
    const made = await keys.createApiKey({ name: "short", role: Role.PILOT, expiresAt });
    const jobs = server.client(JobService, made.secret);
    const { accessToken } = await issue({ id: made.apiKey?.id ?? "", secret: made.secret });
    const outcome = () =>
      jobs.listJobs({}).then(
        () => "served",
        () => "refused",
      );
    await expect.poll(outcome, { timeout: 90_000, interval: 100 }).toBe("refused");
    await expectReason(jobs.listJobs({}), "TOKEN_EXPIRED");
    await expectReason(withBearer(accessToken), "TOKEN_EXPIRED");
    await expectReason(
      keys.createApiKey({ name: "past", expiresAt: timestampFromMs(1) }),
      "VALIDATION_ERROR",
    );
  });

  it("shows a secret once and counts how much a key is used", async () => {
    const key = await server.newKey(Role.VIEWER);
    const client = server.client(JobService, key.secret);
    for (let call = 0; call < 3; call++) await client.listJobs({});
    expect((await keys.getApiKeyUsage({ id: key.id })).callCount).toBe(3n);
    const listed = await server.rest("GET", "/api/v1/api-keys");
    expect(Array.isArray(listed.json)).toBe(true);
    expect(listed.text).toContain(key.id);
    expect(listed.text).not.toContain(key.secret);
  });

  it("lets only administrators of the first tenant make keys for another tenant", async () => {
    const { secret } = await server.newKey(Role.ADMIN, { tenantId: "second" });
    const theirs = server.client(ApiKeyService, secret);
    expect((await theirs.createApiKey({ name: "own" })).apiKey).toMatchObject({
      tenantId: "second",
      role: Role.VIEWER,
    });
    await expectReason(theirs.createApiKey({ name: "x", tenantId: "default" }), "INSUFFICIENT_PERMISSIONS");
    await expectReason(theirs.createApiKey({ name: "x", tenantId: "third" }), "INSUFFICIENT_PERMISSIONS");
  });
});
