// What was said before: the newest page of a chat, older pages, and the last line of each conversation in the list.
//
// In: a conversation. Out: its older entries, in the state. Always: first what the browser kept, as far as it has no hole, then
// the server; one request a conversation at a time; at most PREVIEWS_MAX conversations at once are asked for their last entry;
// what failed is repeated only when a person asks.
import type { Client, Entry } from "@im-server/client";
import type { State } from "./state.js";
import { errorWords, isReset } from "./words.js";

const PAGE_ENTRIES = 50;
const PREVIEWS_MAX = 4;

export class History {
  #state: State;
  #client: Client;
  #loading = new Set<string>();
  #failed = new Set<string>();
  /** The head at which a preview was last asked for, so that a failure is not repeated for ever. */
  #previewed = new Map<string, bigint>();
  #previewing = 0;

  constructor(state: State) {
    this.#state = state;
    this.#client = state.client;
    this.#client.on("reset", () => {
      this.#failed.clear();
      this.#previewed.clear();
    });
  }

  isLoading(conversation: string): boolean {
    return this.#loading.has(conversation);
  }

  hasOlder(conversation: string): boolean {
    return this.#isCut(conversation) && !this.#state.timeline(conversation).isFull;
  }

  /** There are older ones, and no room for them. */
  isFull(conversation: string): boolean {
    return this.#isCut(conversation) && this.#state.timeline(conversation).isFull;
  }

  /** What is in memory does not begin where the conversation does for this user. */
  #isCut(conversation: string): boolean {
    const known = this.#client.conversation(conversation);
    if (known === undefined || known.headSeq === 0n) return false;
    const { first } = this.#state.timeline(conversation);
    return first === undefined || first.seq > atLeastOne(known.floorSeq);
  }

  /** A page more; resolves when it is there, or when there is none. `asked`: by a person. */
  async older(conversation: string, asked: boolean): Promise<void> {
    if (this.#loading.has(conversation) || !this.hasOlder(conversation)) return;
    if (!asked && this.#failed.has(conversation)) return;
    this.#loading.add(conversation);
    try {
      const entries = await this.#page(conversation, PAGE_ENTRIES);
      if (entries.length === 0) this.#failed.add(conversation);
      else this.#failed.delete(conversation);
      this.#state.addEntries(conversation, entries);
    } catch (error) {
      // Everything is loaded again.
      if (isReset(error)) return;
      this.#failed.add(conversation);
      this.#state.tell(`Earlier messages: ${errorWords(error)}.`);
    } finally {
      this.#loading.delete(conversation);
      this.#state.change();
    }
  }

  /** Loads the last entry of conversations that have none in memory. */
  preview(): void {
    for (const { conversation, headSeq } of this.#client.conversations()) {
      if (this.#previewing >= PREVIEWS_MAX) return;
      const wanted = headSeq > 0n && this.#state.timeline(conversation).last === undefined;
      if (!wanted || this.#previewed.get(conversation) === headSeq) continue;
      this.#previewed.set(conversation, headSeq);
      this.#previewing += 1;
      this.#page(conversation, 1)
        .then((entries) => this.#state.addEntries(conversation, entries))
        // The row then stays without a last line.
        .catch(() => {})
        .finally(() => {
          this.#previewing -= 1;
          this.#state.change();
        });
    }
  }

  async #page(conversation: string, limit: number): Promise<Entry[]> {
    const below = this.#state.timeline(conversation).first?.seq;
    const kept = await this.#client.storedEntries(conversation, below === undefined ? { limit } : { below, limit });
    const stored = lastRun(kept);
    const newest = stored.at(-1)?.seq;
    if (newest !== undefined && (below === undefined || newest === below - 1n)) return stored;

    const known = this.#client.conversation(conversation);
    const end = below ?? (known?.headSeq ?? 0n) + 1n;
    const floor = atLeastOne(known?.floorSeq ?? 1n);
    const from = end - BigInt(limit) > floor ? end - BigInt(limit) : floor;
    return this.#pull(conversation, from, end);
  }

  /** From `from` up to but without `end`. One answer may hold only a part. */
  async #pull(conversation: string, from: bigint, end: bigint): Promise<Entry[]> {
    const entries: Entry[] = [];
    let next = from;
    while (next < end) {
      const pulled = await this.#client.pull(conversation, next, Number(end - next));
      const got = pulled.entries.filter((entry) => entry.seq < end);
      const last = got.at(-1);
      if (last === undefined) break;
      entries.push(...got);
      next = last.seq + 1n;
    }
    return entries;
  }
}

/** Without what lies before a hole: who was removed and added again lacks what was said meanwhile. */
function lastRun(entries: readonly Entry[]): Entry[] {
  const behindHole = entries.findLastIndex(({ seq }, index) => index > 0 && seq !== entries[index - 1]!.seq + 1n);
  return entries.slice(Math.max(behindHole, 0));
}

function atLeastOne(seq: bigint): bigint {
  return seq > 1n ? seq : 1n;
}
