// From options to a core that may dial.
//
// In: options, a storage, a token source. Out: a core that goes on where the storage says, and the storage to keep up with
// it. Always: a storage that cannot be read is told and left as it is, and memory takes its place; one that holds somebody
// else's state is emptied by the next save. Who a token names comes before who a storage names.
import type { ConnectOptions, TokenSource } from "./api.js";
import { RECONNECT, delayMs } from "./core/backoff.js";
import { Core, type CoreConfig } from "./core/core.js";
import { TOKEN_TIMEOUT_MS } from "./core/link.js";
import { type RandomBytes, newId } from "./core/random.js";
import { STORAGE_TIMEOUT_MS, passed, within } from "./deadline.js";
import type { ClientEvents } from "./events.js";
import { type Identity, identityOf } from "./identity.js";
import { type Storage, type StoredState, memoryStorage } from "./storage.js";

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

export interface Started {
  readonly core: Core;
  readonly storage: Storage;
}

/** Ends with an exception only when `signal` says so. */
export async function start(given: StartOptions): Promise<Started> {
  const { options, random, failed } = given;
  const { storage, stored } = await load(given);
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
  return { core, storage };
}

/**
 * What the storage holds. One that fails or does not answer may hold much, also of somebody else: it is not written to.
 */
async function load({ storage, signal, failed }: StartOptions) {
  try {
    return { storage, stored: await within(STORAGE_TIMEOUT_MS, storage.load(), signal) };
  } catch (error) {
    signal.throwIfAborted();
    failed("storage", error);
    return { storage: memoryStorage({ entriesKept: storage.entriesKept }), stored: undefined };
  }
}

async function identify(given: StartOptions, stored: StoredState | undefined) {
  const { options, random, signal, failed } = given;
  const { user, device } = options;
  const newDevice = `web-${newId(random)}`;
  const named = (token: string | undefined) => identityOf({ user, device, token, stored }, newDevice);
  let token = typeof options.token === "string" ? options.token : undefined;
  // Somebody else may have signed in since the storage was written: a token that has to be fetched is asked first.
  let identity: Identity | undefined = user === undefined && token === undefined ? undefined : named(token);
  for (let failures = 0; identity === undefined; failures++) {
    try {
      token = await within(TOKEN_TIMEOUT_MS, fetchToken(options.token), signal);
      identity = named(token);
      if (identity === undefined) throw new TypeError("neither `user` nor the token names the user");
    } catch (error) {
      signal.throwIfAborted();
      failed("token", error);
      // Most likely there is no network: what was stored can be shown, and written to.
      identity = named(undefined);
      if (identity === undefined) await passed(delayMs(RECONNECT, failures, 0, random), signal);
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
