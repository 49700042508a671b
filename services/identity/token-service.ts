import { ConnectError, type ServiceImpl } from "@connectrpc/connect";
import type { TokenService } from "#gen/portolan/identity/v1/token_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import type { Principal } from "#kernel/call.ts";
import { fail, reasonOf } from "#kernel/errors.ts";
import type { KeyAuthenticator } from "./authenticator.ts";
import { type TokenSigner, tokenLifeS } from "./tokens.ts";

/** Handlers of TokenService. */
export function createTokenService(
  authenticator: KeyAuthenticator,
  signer: TokenSigner,
): ServiceImpl<typeof TokenService> {
  return {
    async issueToken(request, context) {
      if (request.grantType !== "client_credentials") throw fail("UNSUPPORTED_GRANT_TYPE");
      const apiKey = context.requestHeader.get("x-api-key");
      const gate = apiKey && (await orUndefined(authenticator.bySecret(apiKey)));
      if (!gate) throw fail("INVALID_API_KEY");
      const client = await orUndefined(authenticator.bySecret(request.clientSecret));
      if (!client || client.subject !== request.clientId || client.tenantId !== gate.tenantId) {
        throw fail("INVALID_CLIENT");
      }
      const scope = [...client.permissions].sort().join(" ");
      const accessToken = await signer.sign(client.subject, {
        scope,
        tenant_id: client.tenantId,
        org_id: client.tenantId,
        user_id: client.subject,
        roles: [Role[client.role]],
        permissions: [...client.permissions].sort(),
      });
      return { accessToken, tokenType: "Bearer", expiresIn: tokenLifeS, scope };
    },

    getKeySet: () => ({ keys: [...signer.publicKeys] }),
  };
}

async function orUndefined(principal: Promise<Principal>): Promise<Principal | undefined> {
  return principal.catch((error) => {
    if (reasonOf(ConnectError.from(error)) === "TENANT_SUSPENDED") throw error;
    return undefined;
  });
}
