// Tells a silent server from a dead one.
//
// In: the times of sign-in, of messages heard, and now. Out: when to write a heartbeat, and when to give the link up.
// Always: one heartbeat per interval whatever else is written, because its answer also tells of lost pushes.

/** If the server names none. */
const INTERVAL_FALLBACK_MS = 30_000;

/** After the network came back or the page was shown again, an answer is expected this soon. */
const PROBE_TIMEOUT_MS = 5_000;

export class Heartbeat {
  /** 0: not signed in. */
  #intervalMs = 0;
  #idleTimeoutMs = 0;
  #nextMs = 0;
  #deadMs = 0;

  start(intervalMs: number, idleTimeoutMs: number, nowMs: number): void {
    this.#intervalMs = intervalMs === 0 ? INTERVAL_FALLBACK_MS : intervalMs;
    // A time-out below two intervals would end healthy links.
    this.#idleTimeoutMs = Math.max(idleTimeoutMs, 2 * this.#intervalMs);
    this.#nextMs = nowMs + this.#intervalMs;
    this.heard(nowMs);
  }

  stop(): void {
    this.#intervalMs = 0;
  }

  heard(nowMs: number): void {
    this.#deadMs = nowMs + this.#idleTimeoutMs;
  }

  /** Asks now whether the server is still there. */
  probe(nowMs: number): void {
    this.#nextMs = nowMs;
    this.#deadMs = Math.min(this.#deadMs, nowMs + PROBE_TIMEOUT_MS);
  }

  isDead(nowMs: number): boolean {
    return this.#intervalMs !== 0 && nowMs >= this.#deadMs;
  }

  /** True once per interval. */
  isDue(nowMs: number): boolean {
    if (this.#intervalMs === 0 || nowMs < this.#nextMs) return false;
    this.#nextMs = nowMs + this.#intervalMs;
    return true;
  }

  get deadlineMs(): number | undefined {
    return this.#intervalMs === 0 ? undefined : Math.min(this.#nextMs, this.#deadMs);
  }
}
