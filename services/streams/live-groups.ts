import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Resource } from "#gen/portolan/streams/v1/resource_pb.js";
import type { Kernel } from "#kernel/kernel.ts";
import { createEnd, type Subject } from "#kernel/topics.ts";
import { type GroupState, merge, silentGroup, toTrackState } from "./group-state.ts";
import { type Recorded, streamsOf } from "./store.ts";

/** How many recorded samples make up the state of a group that was not in memory. */
const recalledSamples = 50;

/** Most groups in memory that nobody follows. */
const idleGroups = 10_000;

/** Samples of history read at once. */
const historyPage = 500;

interface LiveGroup {
  state: GroupState;
  /** Ids of the group's devices. */
  devices: ReadonlySet<string>;
  followers: number;
  /** Samples that arrive while the group is being loaded; undefined afterwards. */
  arriving: Recorded[] | undefined;
  readonly loaded: Promise<boolean>;
  readonly end: ReturnType<typeof createEnd>;
}

/** The present state of device groups, in memory while it is wanted. */
export class LiveGroups {
  readonly #kernel: Kernel;
  readonly #groups = new Map<string, LiveGroup>();

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** The ids of the group's devices, or undefined if there is no such group; it is in memory afterwards. */
  async devices(tenantId: string, deviceGroupId: string): Promise<ReadonlySet<string> | undefined> {
    return (await this.#load(tenantId, deviceGroupId))?.devices;
  }

  /** Takes in a change of a group that is on disk. */
  update(tenantId: string, resource: Resource): void {
    const group = this.#groups.get(keyOf(tenantId, resource.deviceGroupId));
    if (group) group.devices = devicesOf(resource);
  }

  /** Takes in a sample that is on disk. */
  apply(tenantId: string, deviceGroupId: string, recorded: Recorded): void {
    const group = this.#groups.get(keyOf(tenantId, deviceGroupId));
    if (group?.arriving) group.arriving.push(recorded);
    else if (group) take(group, recorded);
    this.#kernel.presence.heard(tenantId, deviceGroupId, recorded.sample.deviceId);
  }

  /** Ends the streams of a group that was deleted. */
  drop(tenantId: string, deviceGroupId: string): void {
    const key = keyOf(tenantId, deviceGroupId);
    this.#groups.get(key)?.end.end();
    this.#groups.delete(key);
  }

  /** The subject of a group, or of the group of a device, for topics; undefined if there is none. */
  async open(tenantId: string, id: string): Promise<Subject | undefined> {
    let deviceGroupId = id;
    let group = await this.#load(tenantId, id);
    if (!group) {
      deviceGroupId = (await streamsOf(tenantId, this.#kernel.database.read).groupOf(id)) ?? "";
      group = deviceGroupId ? await this.#load(tenantId, deviceGroupId) : undefined;
    }
    if (!group) return undefined;
    group.followers += 1;
    const { database, presence } = this.#kernel;
    const online = () => presence.online(tenantId, deviceGroupId);
    return {
      sequence: () => group.state.sequence,
      state: () => ({
        ...toTrackState(deviceGroupId, group.state, online()),
        message: group.end.over ? "The device group was deleted" : "",
      }),
      ended: () => group.end.over,
      onEnd: (wake) => group.end.onEnd(wake),
      close() {
        group.followers -= 1;
      },
      async *history(after) {
        const store = streamsOf(tenantId, database.read);
        let state = silentGroup(0);
        // Samples carry only what changed, so that the first ones stand on those before them.
        for (const recorded of await store.newest(deviceGroupId, recalledSamples, after)) {
          state = merge(state, recorded);
        }
        for (let position = after; ; ) {
          const page = await store.samples(deviceGroupId, { after: position, limit: historyPage });
          for (const recorded of page) {
            position = recorded.sequence;
            state = merge(state, recorded);
            yield { sequence: position, state: toTrackState(deviceGroupId, state, true) };
          }
          if (page.length < historyPage) return;
        }
      },
    };
  }

  async #load(tenantId: string, deviceGroupId: string): Promise<LiveGroup | undefined> {
    const key = keyOf(tenantId, deviceGroupId);
    let group = this.#groups.get(key);
    if (!group) {
      const made: LiveGroup = {
        state: silentGroup(0),
        devices: new Set(),
        followers: 0,
        arriving: [],
        loaded: Promise.resolve().then(() => this.#fill(tenantId, deviceGroupId, made)),
        end: createEnd(),
      };
      group = made;
      this.#evict();
      this.#groups.set(key, made);
      made.loaded.then(
        (found) => found || this.#groups.delete(key),
        () => this.#groups.delete(key),
      );
    }
    return (await group.loaded) ? group : undefined;
  }

  async #fill(tenantId: string, deviceGroupId: string, group: LiveGroup): Promise<boolean> {
    const store = streamsOf(tenantId, this.#kernel.database.read);
    const resource = await store.get(deviceGroupId);
    if (!resource) return false;
    group.devices = devicesOf(resource);
    group.state = silentGroup(resource.createdAt ? timestampMs(resource.createdAt) : 0);
    const recorded = await store.newest(deviceGroupId, recalledSamples);
    for (const each of [...recorded, ...(group.arriving ?? [])]) take(group, each);
    group.arriving = undefined;
    return true;
  }

  #evict(): void {
    if (this.#groups.size < idleGroups) return;
    for (const [key, group] of this.#groups) {
      if (group.followers > 0) continue;
      this.#groups.delete(key);
      return;
    }
  }
}

function take(group: LiveGroup, recorded: Recorded): void {
  if (recorded.sequence > group.state.sequence) group.state = merge(group.state, recorded);
}

const devicesOf = ({ devices }: Resource) => new Set(devices.map(({ deviceId }) => deviceId));

const keyOf = (tenantId: string, deviceGroupId: string) => `${tenantId}\n${deviceGroupId}`;
