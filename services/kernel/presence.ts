/** How long a device counts as online after it was last heard, in milliseconds. */
export const presenceMs = 10_000;

/** Remembers when devices were last heard. Kept in memory: after a restart all are offline. */
export interface Presence {
  /** Notes a sign of life of a device group and, if named, of one of its devices. */
  heard(tenantId: string, deviceGroupId: string, deviceId?: string): void;
  /** When the group, or the device, was last heard, in Unix milliseconds; undefined if never. */
  lastHeard(tenantId: string, deviceGroupId: string, deviceId?: string): number | undefined;
  online(tenantId: string, deviceGroupId: string, deviceId?: string): boolean;
}

/** A presence that reads the time from `nowMs`. */
export function createPresence(nowMs: () => number): Presence {
  const heardAt = new Map<string, number>();
  const keyOf = (...parts: string[]) => parts.join("\n");
  const lastHeard: Presence["lastHeard"] = (tenantId, deviceGroupId, deviceId = "") =>
    heardAt.get(keyOf(tenantId, deviceGroupId, deviceId));
  return {
    heard(tenantId, deviceGroupId, deviceId) {
      heardAt.set(keyOf(tenantId, deviceGroupId, ""), nowMs());
      if (deviceId) heardAt.set(keyOf(tenantId, deviceGroupId, deviceId), nowMs());
    },
    lastHeard,
    online(tenantId, deviceGroupId, deviceId) {
      const at = lastHeard(tenantId, deviceGroupId, deviceId);
      return at !== undefined && nowMs() - at <= presenceMs;
    },
  };
}
