// Entries in the order of their seq, each once, without a hole.
//
// In: pushed and pulled entries, this device's own acks, heads that sync or an answer told of. Out: entries handed
// over, and pulls for what is missing. Always: only the entry behind the cursor is handed over; a lower one is dropped;
// a higher one waits, at most BUFFERED_ENTRIES_MAX per conversation (one more is dropped: the pull brings it), while
// everything from the cursor on is pulled. At most PULLS_MAX pulls are unanswered.
import { create } from "@bufbuild/protobuf";
import { type Entry, PullSchema, type Pulled } from "../gen/client_pb.js";
import { REPEAT, delayMs } from "./backoff.js";
import { Later } from "./later.js";
import type { RandomBytes } from "./random.js";
import type { Wire } from "./wire.js";

const BUFFERED_ENTRIES_MAX = 64;
const PULLS_MAX = 8;

export interface Cursor {
  /** The last entry handed over. */
  readonly seq: bigint;
  readonly ordinal: bigint;
  /** The last entry known to exist. */
  readonly head: bigint;
}

/** Where this device stands in one log. */
interface Place {
  seq: bigint;
  ordinal: bigint;
  head: bigint;
  /** Ahead of the cursor, by seq. */
  readonly buffered: Map<bigint, Entry>;
  /** In `behind`, in `later`, or unanswered. */
  isPulling: boolean;
  failures: number;
}

export interface GapsListener {
  /** The next entry of a log. */
  handOver(log: string, entry: Entry): void;
  /** The cursor of a log is not what it was. */
  moved(log: string): void;
}

export class Gaps {
  readonly #places = new Map<string, Place>();
  /** Logs to be pulled, each once. */
  #behind: string[] = [];
  /** Logs whose pull is repeated later. */
  readonly #later = new Later<string>();
  #pullsPending = 0;
  readonly #listener: GapsListener;

  constructor(listener: GapsListener) {
    this.#listener = listener;
  }

  cursor(log: string): Cursor | undefined {
    return this.#places.get(log);
  }

  logs(): string[] {
    return [...this.#places.keys()];
  }

  /** The store's history was replaced. */
  forget(): void {
    this.#places.clear();
    this.#behind = [];
    this.#later.clear();
  }

  /** A new connection: unanswered pulls are asked again. */
  restart(): void {
    this.#behind = [];
    this.#later.clear();
    this.#pullsPending = 0;
    for (const [log, place] of this.#places) {
      place.isPulling = false;
      place.failures = 0;
      this.#pullIfBehind(log, place);
    }
  }

  knows(log: string): boolean {
    return this.#places.has(log);
  }

  /** Begins a log behind `seq` instead of at its first entry. */
  begin(log: string, seq: bigint, ordinal: bigint, head = seq): void {
    if (this.#places.has(log)) return;
    const place = this.#place(log);
    Object.assign(place, { seq, ordinal, head: head > seq ? head : seq });
    this.#listener.moved(log);
  }

  /** Everything of the log up to `seq` was told in another form. */
  cover(log: string, seq: bigint): void {
    const place = this.#place(log);
    this.#skipTo(log, place, seq);
    this.#sawHead(log, place, seq);
    this.#drain(log, place);
  }

  apply(log: string, entry: Entry): void {
    const place = this.#place(log);
    this.#sawHead(log, place, entry.seq);
    if (entry.seq === place.seq + 1n) {
      this.#handOver(log, place, entry);
      this.#drain(log, place);
    } else if (entry.seq > place.seq && place.buffered.size < BUFFERED_ENTRIES_MAX) {
      place.buffered.set(entry.seq, entry);
    }
    this.#pullIfBehind(log, place);
  }

  /** An entry with this seq exists. */
  sawHead(log: string, head: bigint): void {
    const place = this.#place(log);
    this.#sawHead(log, place, head);
    this.#pullIfBehind(log, place);
  }

  write(epoch: bigint, wire: Wire, nowMs: number): void {
    while (this.#pullsPending < PULLS_MAX) {
      const log = this.#behind.shift();
      if (log === undefined) return;
      const place = this.#places.get(log);
      if (place === undefined) continue;
      if (place.head <= place.seq) {
        place.isPulling = false;
        continue;
      }
      const value = create(PullSchema, { conversationId: log, epoch, fromSeq: place.seq + 1n });
      if (wire.ask({ kind: "pull", log }, { case: "pull", value }, nowMs) !== undefined) this.#pullsPending += 1;
    }
  }

  pulled(log: string, pulled: Pulled, nowMs: number, random: RandomBytes): void {
    this.#pullsPending = Math.max(0, this.#pullsPending - 1);
    const place = this.#places.get(log);
    if (place === undefined) return;
    const before = place.seq;
    // Below the floor nothing is kept for this reader.
    if (pulled.floorSeq > 0n) this.#skipTo(log, place, pulled.floorSeq - 1n);
    for (const entry of pulled.entries) {
      if (entry.seq === place.seq + 1n) this.#handOver(log, place, entry);
    }
    this.#sawHead(log, place, pulled.headSeq);
    this.#drain(log, place);
    // The answer does not reach what is known to exist: asking again at once would spin.
    if (place.seq === before && place.head > place.seq) return this.#repeatLater(log, place, 0, nowMs, random);
    place.isPulling = false;
    place.failures = 0;
    this.#pullIfBehind(log, place);
  }

  /** No final answer. */
  pullFailed(log: string, retryAfterMs: number, nowMs: number, random: RandomBytes): void {
    this.#pullsPending = Math.max(0, this.#pullsPending - 1);
    const place = this.#places.get(log);
    if (place !== undefined) this.#repeatLater(log, place, retryAfterMs, nowMs, random);
  }

  /** A final refusal: what lies ahead is given up until something newer shows. */
  pullRefused(log: string): void {
    this.#pullsPending = Math.max(0, this.#pullsPending - 1);
    const place = this.#places.get(log);
    if (place === undefined) return;
    place.isPulling = false;
    place.head = place.seq;
    place.buffered.clear();
    this.#listener.moved(log);
  }

  release(nowMs: number): void {
    this.#behind.push(...this.#later.take(nowMs));
  }

  /** Nothing known to exist is missing. */
  get isCaughtUp(): boolean {
    return this.#pullsPending === 0 && this.#behind.length === 0 && this.#later.isEmpty;
  }

  get deadlineMs(): number | undefined {
    return this.#later.deadlineMs;
  }

  #place(log: string): Place {
    let place = this.#places.get(log);
    if (place === undefined) {
      place = { seq: 0n, ordinal: 0n, head: 0n, buffered: new Map(), isPulling: false, failures: 0 };
      this.#places.set(log, place);
    }
    return place;
  }

  #sawHead(log: string, place: Place, head: bigint): void {
    if (head <= place.head) return;
    place.head = head;
    this.#listener.moved(log);
  }

  #pullIfBehind(log: string, place: Place): void {
    if (place.head > place.seq && !place.isPulling) {
      place.isPulling = true;
      this.#behind.push(log);
    }
  }

  #skipTo(log: string, place: Place, seq: bigint): void {
    if (seq <= place.seq) return;
    place.seq = seq;
    for (const buffered of place.buffered.keys()) {
      if (buffered <= seq) place.buffered.delete(buffered);
    }
    this.#listener.moved(log);
  }

  /** Hands over what has become next. */
  #drain(log: string, place: Place): void {
    for (const seq of place.buffered.keys()) {
      if (seq <= place.seq) place.buffered.delete(seq);
    }
    for (let next = place.buffered.get(place.seq + 1n); next !== undefined; next = place.buffered.get(place.seq + 1n)) {
      place.buffered.delete(next.seq);
      this.#handOver(log, place, next);
    }
  }

  #handOver(log: string, place: Place, entry: Entry): void {
    place.seq = entry.seq;
    place.ordinal = entry.ordinal;
    if (entry.seq > place.head) place.head = entry.seq;
    this.#listener.moved(log);
    this.#listener.handOver(log, entry);
  }

  #repeatLater(log: string, place: Place, retryAfterMs: number, nowMs: number, random: RandomBytes): void {
    this.#later.set(log, nowMs + delayMs(REPEAT, place.failures, retryAfterMs, random));
    place.failures += 1;
  }
}
