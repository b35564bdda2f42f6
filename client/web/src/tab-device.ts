// Which device a tab is; the package's second entry, `@im-server/client/tab-device`.
//
// In: the user. Out: a device id that lasts. Always: one id is held by one tab at a time, because a second login of a device
// ends the first, and one storage belongs to one device. The browser profile keeps numbered places per user; a tab takes the
// first free one and holds it by a lock (Web Locks) that ends with the tab. So a reload, and a tab opened tomorrow, go on as
// the same device with its unsent messages, and two tabs of one user are two devices.
import { base64url } from "./base64url.js";

/** Tabs of one user in one browser profile; one more is a device that ends with its tab. */
const PLACES_MAX = 16;
/** How long a reload waits for the place its earlier page is just leaving. */
const PLACE_WAIT_MS = 2_000;
const DEVICE_BYTES = 12;

/**
 * The device of this tab for `user`, for the options `device` and `storage` of `connect`. It is held until the page ends,
 * also over any number of clients.
 *
 * Outside a secure context (plain http from another machine) there are no locks: each tab is then a device that ends with
 * it, and a tab that the browser duplicates is the same device as the first.
 */
export async function tabDevice(user: string): Promise<string> {
  if (navigator.locks === undefined) return keptId(sessionStorage, deviceKey(user));
  const earlier = Number(sessionStorage.getItem(placeKey(user)) ?? "0");
  const isAgain = earlier > 0 && (await hold(user, earlier, { signal: AbortSignal.timeout(PLACE_WAIT_MS) }));
  const place = isAgain ? earlier : await firstFree(user);
  if (place === undefined) return keptId(sessionStorage, deviceKey(user));
  sessionStorage.setItem(placeKey(user), String(place));
  return keptId(localStorage, `${deviceKey(user)}/${place}`);
}

const placeKey = (user: string) => `im-client/place/${user}`;
const deviceKey = (user: string) => `im-client/device/${user}`;

/** Places that this page holds. */
const held = new Set<string>();

async function firstFree(user: string): Promise<number | undefined> {
  for (let place = 1; place <= PLACES_MAX; place++) {
    if (await hold(user, place, { ifAvailable: true })) return place;
  }
  return undefined;
}

/** True: this page holds the place, until it ends. */
function hold(user: string, place: number, options: LockOptions): Promise<boolean> {
  const name = `im-client/${user}/${place}`;
  if (held.has(name)) return Promise.resolve(true);
  return new Promise((resolve) => {
    const taken = (lock: Lock | null) => {
      if (lock !== null) held.add(name);
      resolve(lock !== null);
      return lock === null ? undefined : new Promise<never>(() => {});
    };
    // Not given in time.
    navigator.locks.request(name, options, taken).catch(() => resolve(false));
  });
}

function keptId(storage: globalThis.Storage, key: string): string {
  const kept = storage.getItem(key);
  if (kept !== null) return kept;
  const made = `web-${base64url(crypto.getRandomValues(new Uint8Array(DEVICE_BYTES)))}`;
  storage.setItem(key, made);
  return made;
}
