// What waits for its time.
//
// In: keys with a time. Out: the keys whose time has come, and the next time. Always: a key waits once; bounded by
// whoever owns the keys.

export class Later<Key> {
  readonly #untilMs = new Map<Key, number>();

  set(key: Key, untilMs: number): void {
    this.#untilMs.set(key, untilMs);
  }

  untilMs(key: Key): number | undefined {
    return this.#untilMs.get(key);
  }

  /** Takes the keys whose time has come, the earliest first. */
  take(nowMs: number): Key[] {
    const due = [...this.#untilMs].filter(([, untilMs]) => untilMs <= nowMs).sort((a, b) => a[1] - b[1]);
    return due.map(([key]) => {
      this.#untilMs.delete(key);
      return key;
    });
  }

  clear(): void {
    this.#untilMs.clear();
  }

  get isEmpty(): boolean {
    return this.#untilMs.size === 0;
  }

  get deadlineMs(): number | undefined {
    let first: number | undefined;
    for (const untilMs of this.#untilMs.values()) first = Math.min(first ?? untilMs, untilMs);
    return first;
  }
}
