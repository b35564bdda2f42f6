// Keeps the storage up with the core.
//
// In: a poke after each input. Out: saves, one at a time. Always: what changes while a save is under way goes into the
// next; what a failed save held is saved again, with what came since, after SAVE_RETRY_MS.
import type { Core } from "./core/core.js";
import type { Storage } from "./storage.js";

const SAVE_RETRY_MS = 1_000;

export class Saver {
  readonly #core: Core;
  readonly #storage: Storage;
  readonly #failed: (error: unknown) => void;
  #saving: Promise<void> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(core: Core, storage: Storage, failed: (error: unknown) => void) {
    this.#core = core;
    this.#storage = storage;
    this.#failed = failed;
  }

  poke(): void {
    if (this.#saving !== undefined || this.#retry !== undefined) return;
    const changes = this.#core.takeChanges();
    if (changes === undefined) return;
    this.#saving = this.#storage.save(changes).then(
      () => {
        this.#saving = undefined;
        this.poke();
      },
      (error: unknown) => {
        this.#saving = undefined;
        this.#core.putBackChanges(changes);
        this.#retry = setTimeout(() => {
          this.#retry = undefined;
          this.poke();
        }, SAVE_RETRY_MS);
        this.#failed(error);
      },
    );
  }

  /** Everything is saved, or the storage fails. */
  async close(): Promise<void> {
    while (this.#saving !== undefined) await this.#saving;
    clearTimeout(this.#retry);
  }
}
