// The entries of one conversation that are in memory: one run without a hole, up to the newest that is known here.
//
// In: entries, in runs that rise by one, from events, storage and pulls. Out: the run. Always: no hole and no entry twice; a
// run that does not touch the present one replaces it if it is newer and is left out if it is older; at most ENTRIES_MAX,
// beyond which the oldest go (they can be pulled again).
import type { Entry } from "@im-server/client";

export const ENTRIES_MAX = 2000;

export class Timeline {
  #entries: Entry[] = [];

  get entries(): readonly Entry[] {
    return this.#entries;
  }

  get first(): Entry | undefined {
    return this.#entries[0];
  }

  get last(): Entry | undefined {
    return this.#entries.at(-1);
  }

  get isFull(): boolean {
    return this.#entries.length >= ENTRIES_MAX;
  }

  /** `run`: oldest first, each seq one above the last. */
  add(run: readonly Entry[]): void {
    const newest = run.at(-1);
    const oldest = run[0];
    if (newest === undefined || oldest === undefined) return;
    const { first, last } = this;
    if (first === undefined || last === undefined || oldest.seq > last.seq + 1n) {
      this.#entries = [...run];
    } else {
      const before = newest.seq + 1n >= first.seq ? run.filter((entry) => entry.seq < first.seq) : [];
      const behind = run.filter((entry) => entry.seq > last.seq);
      this.#entries = [...before, ...this.#entries, ...behind];
    }
    if (this.#entries.length > ENTRIES_MAX) this.#entries = this.#entries.slice(-ENTRIES_MAX);
  }
}
