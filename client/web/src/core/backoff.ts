// How long to wait before something is tried again: full jitter.
//
// In: how often it failed, the least the server asked for, a random source. Out: milliseconds. Always: at least what
// the server asked for, plus a random share of a span that doubles from `firstMs` to `mostMs`.
import { type RandomBytes, drawn } from "./random.js";

export interface Backoff {
  readonly firstMs: number;
  readonly mostMs: number;
}

/** Between two attempts to connect. */
export const RECONNECT: Backoff = { firstMs: 500, mostMs: 30_000 };

/** Before a send or request that got no final answer is repeated on the same connection. */
export const REPEAT: Backoff = { firstMs: 20, mostMs: 5_000 };

/** `failures` in a row so far, this one not counted. */
export function delayMs(backoff: Backoff, failures: number, atLeastMs: number, random: RandomBytes): number {
  const doubled = backoff.firstMs * 2 ** Math.min(failures, 16);
  return atLeastMs + drawn(Math.min(doubled, backoff.mostMs), random);
}
