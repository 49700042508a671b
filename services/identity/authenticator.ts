import { fromBinary } from "@bufbuild/protobuf";
import { ApiKeySchema } from "#gen/portolan/identity/v1/api_key_pb.js";
import { CredentialKind } from "#gen/portolan/identity/v1/audit_log_pb.js";
import type { Role } from "#gen/portolan/options/v1/policy_pb.js";
import type { Principal } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { hashSecret, identityStore } from "./store.ts";
import type { TokenSigner } from "./tokens.ts";

/** How long a looked-up key is trusted, so that a revocation elsewhere is seen, in milliseconds. */
const keyTrustMs = 1_000;

/** Most cached keys and tokens, so that a flood of them costs bounded memory. */
const cacheSize = 10_000;

type FindKey = (
  store: ReturnType<typeof identityStore>,
) => ReturnType<ReturnType<typeof identityStore>["findById"]>;

interface KnownKey {
  readonly principal: Principal;
  readonly expiresAt: number;
  readonly revoked: boolean;
  readonly trustedUntil: number;
}

/** Finds out who calls, from an API key or an access token. */
export class KeyAuthenticator {
  readonly #kernel: Kernel;
  readonly #signer: TokenSigner;
  readonly #permissions: ReadonlyMap<Role, ReadonlySet<string>>;
  readonly #keys = new Map<string, KnownKey | undefined>();
  readonly #tokens = new Map<string, { keyId: string; expiresAt: number }>();

  constructor(kernel: Kernel, signer: TokenSigner, permissions: ReadonlyMap<Role, ReadonlySet<string>>) {
    this.#kernel = kernel;
    this.#signer = signer;
    this.#permissions = permissions;
  }

  /** The caller behind `Authorization: Bearer` (token or key) or `x-api-key`; undefined if neither is sent. */
  async authenticate(headers: Headers): Promise<Principal | undefined> {
    const authorization = headers.get("authorization");
    if (authorization !== null) {
      const [, credential] = /^bearer\s+(\S+)\s*$/i.exec(authorization) ?? [];
      if (!credential) throw fail("INVALID_TOKEN", { message: "Authorization must be `Bearer <token>`" });
      return credential.includes(".") ? this.#byToken(credential) : this.bySecret(credential);
    }
    const apiKey = headers.get("x-api-key");
    return apiKey === null ? undefined : this.bySecret(apiKey);
  }

  /** The caller behind an API key. */
  bySecret(secret: string): Promise<Principal> {
    const find: FindKey = (store) => store.findBySecret(secret);
    return this.#key(`secret ${hashSecret(secret)}`, CredentialKind.API_KEY, find);
  }

  /** Forgets a key, so that a revocation works at once. */
  forget(): void {
    this.#keys.clear();
  }

  /** The permissions of a role. */
  permissionsOf(role: Role): ReadonlySet<string> {
    return this.#permissions.get(role) ?? new Set();
  }

  async #byToken(token: string): Promise<Principal> {
    let known = this.#tokens.get(token);
    if (!known) {
      const claims = await this.#signer.verify(token);
      known = { keyId: claims.sub as string, expiresAt: (claims.exp as number) * 1000 };
      remember(this.#tokens, token, known);
    }
    const { keyId, expiresAt } = known;
    if (expiresAt <= this.#kernel.nowMs()) {
      this.#tokens.delete(token);
      throw fail("TOKEN_EXPIRED");
    }
    return this.#key(`id ${keyId}`, CredentialKind.ACCESS_TOKEN, (store) => store.findById(keyId));
  }

  async #key(name: string, credential: CredentialKind, find: FindKey): Promise<Principal> {
    const now = this.#kernel.nowMs();
    let known = this.#keys.get(name);
    if (!known || known.trustedUntil < now) {
      const row = await find(identityStore(this.#kernel.database.read));
      if (!row) throw fail("INVALID_TOKEN");
      const { role } = fromBinary(ApiKeySchema, row.message);
      known = {
        principal: {
          tenantId: row.tenant_id,
          subject: row.key_id,
          role,
          credential,
          permissions: this.permissionsOf(role),
        },
        expiresAt: row.expires_at ?? Number.POSITIVE_INFINITY,
        revoked: row.revoked_at !== null,
        trustedUntil: now + keyTrustMs,
      };
      remember(this.#keys, name, known);
    }
    if (known.revoked) throw fail("INVALID_TOKEN");
    if (known.expiresAt <= now) throw fail("TOKEN_EXPIRED");
    this.#kernel.standing.demand(known.principal.tenantId);
    return known.principal;
  }
}

/** Puts an entry into a bounded cache, dropping the oldest. */
function remember<V>(cache: Map<string, V>, key: string, value: V): void {
  if (cache.size >= cacheSize) cache.delete(cache.keys().next().value as string);
  cache.delete(key);
  cache.set(key, value);
}
