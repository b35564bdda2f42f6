// What moved while this device was away: asked before anything live is applied.
//
// In: sign-ins, sync hints, pages. Out: `Sync` commands, states for the app, heads for the gaps. Always: pushes that
// come while a sync is unanswered are applied after its last page; of more than HELD_PUSHES_MAX the head alone is kept,
// and the entries are pulled.
import { create } from "@bufbuild/protobuf";
import { type ConversationState, type Entry, SyncSchema, type Synced } from "../gen/client_pb.js";
import { isId } from "../ids.js";
import { REPEAT, delayMs } from "./backoff.js";
import type { Conversations } from "./conversations.js";
import type { Gaps } from "./gaps.js";
import type { RandomBytes } from "./random.js";
import type { Wire } from "./wire.js";

const HELD_PUSHES_MAX = 256;

type Step =
  | { readonly name: "live" | "due" }
  | { readonly name: "asked"; readonly attempt: number }
  | { readonly name: "later"; readonly untilMs: number };

export class Sync {
  #token: Uint8Array;
  /** No sync without a token has been complete yet. */
  #isBeginning: boolean;
  #step: Step = { name: "live" };
  #attempts = 0;
  /** A hint or wish that came while a sync was underway: at least this version is wanted. 0: whatever there is. */
  #wanted: bigint | undefined;
  /** The last complete answer covers everything up to here. */
  #covered = 0n;
  /** The end of a sync is still to be told to the app. */
  #isToBeTold = false;
  #failures = 0;
  /** The app was told that the server refuses. */
  #isRefused = false;
  #held: { readonly log: string; readonly entry: Entry }[] = [];

  /** Goes on from a stored token; empty: from the beginning. */
  constructor(token: Uint8Array) {
    this.#token = token;
    this.#isBeginning = token.length === 0;
  }

  get token(): Uint8Array {
    return this.#token;
  }

  /** A new connection: sync before live. */
  restart(): void {
    this.#step = { name: "due" };
    this.#wanted = undefined;
    this.#failures = 0;
    this.#isRefused = false;
    this.#covered = 0n;
    this.#held = [];
  }

  /** The cursors are void: from the beginning. */
  forget(): void {
    this.#token = new Uint8Array();
    this.#isBeginning = true;
    this.#isToBeTold = false;
    this.restart();
  }

  /** The server told of version `version` (0: not known), or the app asks (0). */
  hint(version: bigint): void {
    if (version !== 0n && version <= this.#covered) return;
    if (this.#step.name === "live") this.#step = { name: "due" };
    else if (this.#wanted === undefined || this.#wanted < version) this.#wanted = version;
  }

  write(wire: Wire, nowMs: number): void {
    if (this.#step.name !== "due") return;
    this.#attempts += 1;
    const attempt = this.#attempts;
    const value = create(SyncSchema, { token: this.#token });
    if (wire.ask({ kind: "sync", attempt }, { case: "sync", value }, nowMs) !== undefined) {
      this.#step = { name: "asked", attempt };
    }
  }

  /** Applies an entry now, or keeps it until the sync is complete. */
  admit(log: string, entry: Entry, gaps: Gaps): void {
    if (this.#step.name === "live") gaps.apply(log, entry);
    else if (this.#held.length < HELD_PUSHES_MAX) this.#held.push({ log, entry });
    else gaps.sawHead(log, entry.seq);
  }

  /** False for an attempt that was given up. */
  expects(attempt: number): boolean {
    return this.#step.name === "asked" && this.#step.attempt === attempt;
  }

  /** One page. `fromNow`: what exists at the first sync of all begins behind its head. */
  page(synced: Synced, userLog: string, fromNow: boolean, conversations: Conversations, gaps: Gaps): void {
    for (const state of synced.conversations) {
      const log = state.conversationId;
      if (!isId(log)) continue;
      if (fromNow && this.#isBeginning && !gaps.knows(log)) this.#beginNow(state, gaps);
      conversations.told(state);
      gaps.sawHead(log, state.headSeq);
    }
    for (const entry of synced.userEntries) {
      // Without a cursor of our own the token is one: its next entry is the first here.
      if (!gaps.knows(userLog)) gaps.begin(userLog, entry.seq - 1n, 0n);
      gaps.apply(userLog, entry);
    }
    this.#token = synced.token;
    this.#failures = 0;
    this.#isRefused = false;
    this.#step = { name: "due" };
    if (synced.complete) {
      this.#covered = synced.inboxVersion;
      gaps.cover(userLog, synced.userLogSeq);
      this.#complete(gaps);
    }
  }

  /** Behind the head; but what came since the sign-in is news, also where the page that names its log comes after it. */
  #beginNow({ conversationId: log, headSeq, headOrdinal }: ConversationState, gaps: Gaps): void {
    const begin = this.#held
      .filter((held) => held.log === log && held.entry.seq <= headSeq)
      .map(({ entry }) => ({ seq: entry.seq - 1n, ordinal: entry.ordinal - 1n }))
      .reduce((first, held) => (held.seq < first.seq ? held : first), { seq: headSeq, ordinal: headOrdinal });
    gaps.begin(log, begin.seq, begin.ordinal);
  }

  /** A final refusal: true for the first in a row. */
  isFirstRefusal(): boolean {
    const isFirst = !this.#isRefused;
    this.#isRefused = true;
    return isFirst;
  }

  /** To be asked again later. */
  failed(retryAfterMs: number, nowMs: number, random: RandomBytes): void {
    this.#step = { name: "later", untilMs: nowMs + delayMs(REPEAT, this.#failures, retryAfterMs, random) };
    this.#failures += 1;
  }

  release(nowMs: number): void {
    if (this.#step.name === "later" && this.#step.untilMs <= nowMs) this.#step = { name: "due" };
  }

  get deadlineMs(): number | undefined {
    return this.#step.name === "later" ? this.#step.untilMs : undefined;
  }

  /** True once per sync, when its entries have been handed over. */
  isFinished(gaps: Gaps): boolean {
    const isFinished = this.#step.name === "live" && this.#isToBeTold && gaps.isCaughtUp;
    if (isFinished) this.#isToBeTold = false;
    return isFinished;
  }

  #complete(gaps: Gaps): void {
    this.#step = { name: "live" };
    this.#isBeginning = false;
    this.#isToBeTold = true;
    for (const { log, entry } of this.#held.splice(0)) gaps.apply(log, entry);
    const wanted = this.#wanted;
    this.#wanted = undefined;
    if (wanted !== undefined) this.hint(wanted);
  }
}
