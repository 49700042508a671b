import { Role } from "#gen/portolan/options/v1/policy_pb.js";
import { type Share, ShareType } from "#gen/portolan/shares/v1/share_pb.js";
import type { TrackState } from "#kernel/topics.ts";

/** The role of a share: as asked for, or the highest that its permissions amount to. */
export function roleOf(role: Role, permissions: readonly string[]): Role {
  if (role !== Role.UNSPECIFIED) return role;
  if (permissions.includes("manage")) return Role.MANAGER;
  return permissions.includes("control") ? Role.PILOT : Role.VIEWER;
}

/** What a share's role and type let its holder see of a state. */
export function visible(
  state: TrackState,
  { role, shareType }: Pick<Share, "role" | "shareType">,
): TrackState {
  if (role === Role.MANAGER) return state;
  const { sensorPayload, batteryPercent, message, ...shown } = state;
  const seesPayload = role === Role.PILOT || shareType === ShareType.STREAM;
  return {
    ...shown,
    ...(seesPayload && sensorPayload && { sensorPayload }),
    ...(role === Role.PILOT && batteryPercent !== undefined && { batteryPercent }),
  };
}
