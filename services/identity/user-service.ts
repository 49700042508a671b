import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { UserSchema, UserStatus } from "#gen/portolan/identity/v1/user_pb.js";
import type { UserService } from "#gen/portolan/identity/v1/user_service_pb.js";
import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { tenantOf } from "#kernel/call.ts";
import { fail } from "#kernel/errors.ts";
import { demandEtag } from "#kernel/etag.ts";
import { newId } from "#kernel/ids.ts";
import type { Kernel } from "#kernel/kernel.ts";
import { usersOf } from "./user-store.ts";

/** Handlers of UserService. */
export function createUserService(kernel: Kernel): ServiceImpl<typeof UserService> {
  return {
    async createUser(request, context) {
      const tenantId = tenantOf(context);
      const now = kernel.nowMs();
      const user = create(UserSchema, {
        id: newId("user", now),
        tenantId,
        email: request.email.toLowerCase(),
        name: request.name,
        roles: request.roles.length > 0 ? request.roles : [Role.VIEWER],
        status: UserStatus.ACTIVE,
        createdAt: timestampFromMs(now),
        updatedAt: timestampFromMs(now),
      });
      return kernel.mutate(context, async (tx) => {
        if (!(await usersOf(tenantId, tx.queries).insert(user))) throw fail("USER_EXISTS");
        user.etag = "1";
        tx.changing(UserSchema, "id")(user);
        return { user };
      });
    },

    async listUsers(request, context) {
      const { items, ...page } = await usersOf(tenantOf(context), kernel.database.read).list(request);
      return { users: items, ...page };
    },

    async getUser({ id }, context) {
      const user = await usersOf(tenantOf(context), kernel.database.read).get(id);
      if (!user) throw fail("USER_NOT_FOUND");
      return { user };
    },

    async updateUser(request, context) {
      return kernel.mutate(context, async (tx) => {
        const store = usersOf(tenantOf(context), tx.queries);
        const user = await store.get(request.id);
        if (!user) throw fail("USER_NOT_FOUND");
        demandEtag(request.etag, user.etag);
        const email = request.email?.toLowerCase() ?? user.email;
        if (email !== user.email && (await store.withEmail(email))) throw fail("USER_EXISTS");
        const changed = tx.changing(UserSchema, "id", user);
        user.email = email;
        user.name = request.name ?? user.name;
        if (request.roles.length > 0) user.roles = request.roles;
        user.status = request.status || user.status;
        user.updatedAt = timestampFromMs(kernel.nowMs());
        await store.update(user);
        changed(user);
        return { user };
      });
    },

    async deleteUser({ id }, context) {
      return kernel.mutate(context, async (tx) => {
        const store = usersOf(tenantOf(context), tx.queries);
        const user = await store.get(id);
        if (!user) throw fail("USER_NOT_FOUND");
        tx.changing(UserSchema, "id", user)();
        await store.delete(id);
        return {};
      });
    },
  };
}
