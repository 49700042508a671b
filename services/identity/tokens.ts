import {
  errors,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
  type JWTPayload,
  jwtVerify,
  SignJWT,
} from "jose";
import { fail } from "#kernel/errors.ts";
import { newId } from "#kernel/ids.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { identityStore } from "./store.ts";

/** How long an access token is valid, in seconds. */
export const tokenLifeS = 3600;

/** Issuer and audience of access tokens. */
export const issuer = "portolan";

/** The part of a JWK that may be published. */
export interface PublicJwk {
  readonly kty: string;
  readonly kid: string;
  readonly alg: string;
  readonly use: string;
  readonly n: string;
  readonly e: string;
}

/** Signs and verifies access tokens. */
export interface TokenSigner {
  readonly publicKeys: readonly PublicJwk[];
  sign(subject: string, claims: JWTPayload): Promise<string>;
  /** @throws ConnectError TOKEN_EXPIRED or INVALID_TOKEN */
  verify(token: string): Promise<JWTPayload>;
}

/** A signer with the keys of the store; the first is made on first start. */
export async function createTokenSigner(kernel: Kernel): Promise<TokenSigner> {
  const { database, nowMs } = kernel;
  let rows = await identityStore(database.read).signingKeys();
  if (rows.length === 0) {
    const { privateKey } = await generateKeyPair("RS256", { extractable: true });
    const jwk = JSON.stringify(await exportJWK(privateKey));
    await database.write((queries) => identityStore(queries).insertSigningKey(newId("sig"), jwk, nowMs()));
    rows = await identityStore(database.read).signingKeys();
  }
  const keys = await Promise.all(
    rows.map(async ({ kid, private_jwk }) => {
      const jwk = JSON.parse(private_jwk) as JWK & { n: string; e: string };
      const published: PublicJwk = { kty: "RSA", kid, alg: "RS256", use: "sig", n: jwk.n, e: jwk.e };
      return {
        kid,
        published,
        signing: await importJWK(jwk, "RS256"),
        verifying: await importJWK({ kty: "RSA", n: jwk.n, e: jwk.e }, "RS256"),
      };
    }),
  );
  const newest = keys[0] as (typeof keys)[number];

  return {
    publicKeys: keys.map((key) => key.published),
    sign: (subject, claims) =>
      new SignJWT(claims)
        .setProtectedHeader({ alg: "RS256", kid: newest.kid, typ: "JWT" })
        .setSubject(subject)
        .setIssuer(issuer)
        .setAudience(issuer)
        .setIssuedAt(Math.floor(nowMs() / 1000))
        .setExpirationTime(Math.floor(nowMs() / 1000) + tokenLifeS)
        .sign(newest.signing),
    async verify(token) {
      try {
        const { payload } = await jwtVerify(
          token,
          ({ kid }) => {
            const key = keys.find((candidate) => candidate.kid === kid);
            if (!key) throw new errors.JWKSNoMatchingKey();
            return key.verifying;
          },
          { algorithms: ["RS256"], issuer, audience: issuer, currentDate: new Date(nowMs()) },
        );
        return payload;
      } catch (error) {
        throw fail(error instanceof errors.JWTExpired ? "TOKEN_EXPIRED" : "INVALID_TOKEN", { cause: error });
      }
    },
  };
}
