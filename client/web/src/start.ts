// From options to a core that may dial.
//
// In: options, a storage, a token source. Out: a core that goes on where the storage says. Always: a storage that fails
// or holds somebody else's state is not used as if it were empty in silence: the first is told, the second is emptied
// by the next save.
import type { ConnectOptions, TokenSource } from "./api.js";
import { RECONNECT, delayMs } from "./core/backoff.js";
import { Core, type CoreConfig } from "./core/core.js";
import { TOKEN_TIMEOUT_MS } from "./core/link.js";
import { type RandomBytes, newId } from "./core/random.js";
import type { ClientEvents } from "./events.js";
import { type Identity, identityOf } from "./identity.js";
import type { Storage, StoredState } from "./storage.js";

export const OUTBOX_SENDS_MAX = 1_000;
export const REQUESTS_MAX = 1_000;

export interface StartOptions {
  readonly options: ConnectOptions;
  readonly storage: Storage;
  readonly random: RandomBytes;
  readonly signal: AbortSignal;
  failed(during: ClientEvents["error"]["during"], error: unknown): void;
}

export async function fetchToken(source: TokenSource): Promise<string> {
  return typeof source === "string" ? source : await source();
}

/** Ends with an exception only when `signal` says so. */
export async function start(given: StartOptions): Promise<Core> {
  const { options, storage, random, failed } = given;
  const stored = await storage.load().catch((error: unknown) => {
    failed("storage", error);
    return undefined;
  });
  const { identity, token } = await identify(given, stored);
  const config: CoreConfig = {
    ...identity,
    platform: options.platform ?? "web",
    history: options.history ?? "all",
    outboxSendsMax: options.outboxSendsMax ?? OUTBOX_SENDS_MAX,
    requestsMax: options.requestsMax ?? REQUESTS_MAX,
    keepsEntries: storage.entriesKept > 0,
    renewsToken: typeof options.token === "function",
  };
  const core = restored(config, random, stored, failed);
  if (token !== undefined) core.setToken(token, 0);
  return core;
}

async function identify(given: StartOptions, stored: StoredState | undefined) {
  const { options, random, signal, failed } = given;
  const { user, device } = options;
  const newDevice = `web-${newId(random)}`;
  let token = typeof options.token === "string" ? options.token : undefined;
  let identity: Identity | undefined = identityOf({ user, device, token, stored }, newDevice);
  for (let failures = 0; identity === undefined; failures++) {
    try {
      token = await within(TOKEN_TIMEOUT_MS, fetchToken(options.token), signal);
      identity = identityOf({ user, device, token, stored }, newDevice);
      if (identity === undefined) throw new TypeError("neither `user` nor the token names the user");
    } catch (error) {
      signal.throwIfAborted();
      failed("token", error);
      await passed(delayMs(RECONNECT, failures, 0, random), signal);
    }
  }
  signal.throwIfAborted();
  return { identity, token };
}

function restored(
  config: CoreConfig,
  random: RandomBytes,
  stored: StoredState | undefined,
  failed: StartOptions["failed"],
): Core {
  if (stored !== undefined && stored.device.user === config.user) {
    try {
      return new Core(config, random, stored);
    } catch (error) {
      failed("storage", error);
    }
  }
  const core = new Core(config, random);
  if (stored !== undefined) core.changes.forgetAll();
  return core;
}

function passed(ms: number, signal: AbortSignal): Promise<void> {
  return first(new Promise<void>(() => {}), ms, () => {}, signal);
}

function within<Value>(ms: number, value: Promise<Value>, signal: AbortSignal): Promise<Value> {
  const late = () => {
    throw new Error("took too long");
  };
  return first(value, ms, late, signal);
}

/** What comes first: the value, what `late` makes of the end of `ms`, or the exception that `signal` holds. */
function first<Value>(value: Promise<Value>, ms: number, late: () => Value, signal: AbortSignal): Promise<Value> {
  return new Promise((resolve, reject) => {
    const aborted = () => end(Promise.reject(signal.reason));
    const timer = setTimeout(() => end(Promise.resolve().then(late)), ms);
    const end = (outcome: Promise<Value>) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", aborted);
      outcome.then(resolve, reject);
    };
    signal.addEventListener("abort", aborted);
    value.then(
      () => end(value),
      () => end(value),
    );
  });
}
