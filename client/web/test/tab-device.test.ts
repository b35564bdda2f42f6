// Claims about which device a tab is. Each tab has its own copy of the module and its session storage; the locks and the
// local storage are the browser's.
import assert from "node:assert/strict";
import { test } from "node:test";

class FakeStorage {
  readonly #items: Map<string, string>;
  constructor(items: Iterable<readonly [string, string]> = []) {
    this.#items = new Map(items);
  }
  getItem = (key: string) => this.#items.get(key) ?? null;
  setItem = (key: string, value: string) => void this.#items.set(key, value);
  copy = () => new FakeStorage(this.#items);
}

type Taken = (lock: object | null) => unknown;

/** As many locks as are asked for; one that is wanted with a signal waits until its holder ends or the signal comes. */
class FakeLocks {
  readonly holders = new Map<string, Tab>();
  #waiting: { name: string; tab: Tab; taken: Taken }[] = [];

  async request(tab: Tab, name: string, options: { ifAvailable?: boolean; signal?: AbortSignal }, taken: Taken) {
    if (!this.holders.has(name)) return this.#give(tab, name, taken);
    if (options.ifAvailable) return void taken(null);
    this.#waiting.push({ name, tab, taken });
    if (tab.isPatient) return;
    throw options.signal?.reason ?? new DOMException("not in time", "TimeoutError");
  }

  #give(tab: Tab, name: string, taken: Taken): void {
    this.holders.set(name, tab);
    taken({ name });
  }

  end(tab: Tab): void {
    for (const [name, holder] of this.holders) {
      if (holder !== tab) continue;
      this.holders.delete(name);
      const next = this.#waiting.find((waiting) => waiting.name === name && waiting.tab.isPatient);
      if (next === undefined) continue;
      this.#waiting = this.#waiting.filter((waiting) => waiting !== next);
      this.#give(next.tab, name, next.taken);
    }
  }
}

let tabs = 0;

class Browser {
  readonly locks = new FakeLocks();
  readonly localStorage = new FakeStorage();

  async tab(sessionStorage = new FakeStorage(), isPatient = false): Promise<Tab> {
    // Another query is another copy of the module, as in another page.
    const module = await import(new URL(`../dist/tab-device.js?${tabs++}`, import.meta.url).href);
    return new Tab(this, sessionStorage, isPatient, module.tabDevice);
  }
}

class Tab {
  readonly isPatient: boolean;
  readonly sessionStorage: FakeStorage;
  readonly #browser: Browser;
  readonly #tabDevice: (user: string) => Promise<string>;

  constructor(browser: Browser, session: FakeStorage, isPatient: boolean, tabDevice: (user: string) => Promise<string>) {
    [this.#browser, this.sessionStorage, this.isPatient, this.#tabDevice] = [browser, session, isPatient, tabDevice];
  }

  async device(user = "ann", hasLocks = true): Promise<string> {
    const locks = {
      request: (name: string, options: object, taken: Taken) => this.#browser.locks.request(this, name, options, taken),
    };
    const globals = {
      navigator: hasLocks ? { locks } : {},
      sessionStorage: this.sessionStorage,
      localStorage: this.#browser.localStorage,
    };
    for (const [name, value] of Object.entries(globals)) {
      Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    }
    return this.#tabDevice(user);
  }

  end(): void {
    this.#browser.locks.end(this);
  }
}

test("two tabs of one user are two devices, and each is one user's", async () => {
  const browser = new Browser();
  const [one, two] = [await browser.tab(), await browser.tab()];
  const devices = [await one.device(), await two.device(), await one.device("bob")];
  assert.equal(new Set(devices).size, 3);
  for (const device of devices) assert.match(device, /^[A-Za-z0-9_-]{1,64}$/);
});

test("a tab asked again, reloaded, or opened tomorrow is the same device", async () => {
  const browser = new Browser();
  const tab = await browser.tab();
  const device = await tab.device();
  assert.equal(await tab.device(), device);
  // The reloaded page asks before its earlier one has let go.
  const reloaded = await browser.tab(tab.sessionStorage, true);
  const again = reloaded.device();
  tab.end();
  assert.equal(await again, device);
  reloaded.end();
  assert.equal(await (await browser.tab()).device(), device);
});

test("a duplicated tab, which has the session of the first, is another device", async () => {
  const browser = new Browser();
  const tab = await browser.tab();
  const device = await tab.device();
  assert.notEqual(await (await browser.tab(tab.sessionStorage.copy())).device(), device);
});

test("more tabs than places, and a page without locks, are devices of their own", async () => {
  const browser = new Browser();
  const devices: string[] = [];
  for (let tab = 0; tab < 17; tab++) devices.push(await (await browser.tab()).device());
  const withoutLocks = await browser.tab();
  devices.push(await withoutLocks.device("ann", false));
  assert.equal(await withoutLocks.device("ann", false), devices.at(-1), "over a reload");
  assert.equal(new Set(devices).size, 18);
});
