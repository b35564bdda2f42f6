// Which device this tab is.
//
// In: the user. Out: a device id that lasts. Always: one id is held by one tab at a time, because a second login of a device
// signs the first out, and one storage belongs to one device. The browser profile keeps numbered places per user; a tab takes
// the first free one and holds it by a lock that ends with the tab. So a reload, and a tab opened tomorrow, go on as the same
// device with its unsent messages, and two tabs of one user are two devices.

/** Tabs of one user in one browser profile; one more is a device that ends with its tab. */
const PLACES_MAX = 16;
/** How long a reload waits for the place its earlier page is just leaving. */
const PLACE_WAIT_MS = 2000;

export async function deviceOf(user: string): Promise<string> {
  // Outside of a secure context (plain http from another machine) there are no locks.
  if (navigator.locks === undefined) return keptId(sessionStorage, `im-demo/device/${user}`);
  const mine = Number(sessionStorage.getItem(`im-demo/place/${user}`) ?? "0");
  if (mine > 0 && (await hold(user, mine, { signal: AbortSignal.timeout(PLACE_WAIT_MS) }))) return take(user, mine);
  for (let place = 1; place <= PLACES_MAX; place += 1) {
    if (await hold(user, place, { ifAvailable: true })) return take(user, place);
  }
  return keptId(sessionStorage, `im-demo/device/${user}`);
}

function take(user: string, place: number): string {
  sessionStorage.setItem(`im-demo/place/${user}`, String(place));
  return keptId(localStorage, `im-demo/device/${user}/${place}`);
}

/** True: this tab holds the place, until it is closed. */
function hold(user: string, place: number, options: LockOptions): Promise<boolean> {
  return new Promise((resolve) => {
    navigator.locks
      .request(`im-demo/${user}/${place}`, options, (lock) => {
        resolve(lock !== null);
        return lock === null ? undefined : new Promise<never>(() => {});
      })
      .catch(() => resolve(false));
  });
}

function keptId(storage: Storage, key: string): string {
  const kept = storage.getItem(key);
  if (kept !== null) return kept;
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  const made = `web-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  storage.setItem(key, made);
  return made;
}
