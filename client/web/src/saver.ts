// Keeps the storage up with the core.
//
// In: a poke after each input. Out: saves, one at a time. Always: what changes while a save is under way goes into the
// next; what a failed save held is saved again, with what came since, after SAVE_RETRY_FIRST_MS and then after twice as
// long each time, SAVE_RETRY_MOST_MS at most. A storage that fails or does not answer is told once, until a save succeeds;
// one that was emptied is given everything again.
import type { Core } from "./core/core.js";
import { STORAGE_TIMEOUT_MS, within } from "./deadline.js";
import { StorageLostError } from "./errors.js";
import type { Storage, StorageChanges } from "./storage.js";

const SAVE_RETRY_FIRST_MS = 1_000;
const SAVE_RETRY_MOST_MS = 60_000;

export class Saver {
  readonly #core: Core;
  readonly #storage: Storage;
  readonly #failed: (error: unknown) => void;
  #saving: Promise<void> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  /** Saves in a row that failed. */
  #failures = 0;
  #isTold = false;
  #isClosing = false;

  constructor(core: Core, storage: Storage, failed: (error: unknown) => void) {
    this.#core = core;
    this.#storage = storage;
    this.#failed = failed;
  }

  poke(): void {
    if (this.#saving !== undefined || this.#retry !== undefined) return;
    const changes = this.#core.takeChanges();
    if (changes === undefined) return;
    this.#saving = this.#save(changes).then((isSaved) => {
      this.#saving = undefined;
      if (isSaved) this.poke();
      else if (!this.#isClosing) this.#tryLater();
    });
  }

  /** False: it failed, and what it held is put back. */
  async #save(changes: StorageChanges): Promise<boolean> {
    const silent = setTimeout(() => this.#tell(new Error("the storage does not answer")), STORAGE_TIMEOUT_MS);
    try {
      await this.#storage.save(changes);
      this.#failures = 0;
      this.#isTold = false;
      return true;
    } catch (error) {
      this.#core.putBackChanges(changes);
      // At once, and not again for the same reason.
      if (error instanceof StorageLostError && changes.forget !== "all") {
        this.#core.saveAgain();
        return await this.#save(this.#core.takeChanges()!);
      }
      this.#failures += 1;
      this.#tell(error);
      return false;
    } finally {
      clearTimeout(silent);
    }
  }

  #tryLater(): void {
    const delayMs = Math.min(SAVE_RETRY_FIRST_MS * 2 ** (this.#failures - 1), SAVE_RETRY_MOST_MS);
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.poke();
    }, delayMs);
  }

  #tell(error: unknown): void {
    if (this.#isTold) return;
    this.#isTold = true;
    this.#failed(error);
  }

  /** Everything is saved, or the storage fails once more, or it does not answer in time. */
  async close(): Promise<void> {
    this.#isClosing = true;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.poke();
    await within(STORAGE_TIMEOUT_MS, this.#idle()).catch(() => {});
  }

  async #idle(): Promise<void> {
    while (this.#saving !== undefined) await this.#saving;
  }
}
