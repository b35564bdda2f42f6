// Marks read what a person can see.
//
// In: the state, whether the page is visible, whether the newest message is in view. Out: `markRead` calls. Always: one call
// at a time and at most one an interval, so a burst of messages costs few; nothing is marked in a tab that is not looked at.
import type { State } from "./state.js";
import { errorWords, isReset } from "./words.js";

const INTERVAL_MS = 300;

export class Reading {
  #state: State;
  #newestInView: () => boolean;
  #resting = false;
  /** What the server refused to mark, so that it is not asked for ever. */
  #refused = new Map<string, bigint>();

  constructor(state: State, newestInView: () => boolean) {
    this.#state = state;
    this.#newestInView = newestInView;
    state.client.on("reset", () => this.#refused.clear());
  }

  /** The conversation whose newest message is before the person's eyes. */
  get current(): string | undefined {
    const { open } = this.#state;
    return open !== undefined && document.visibilityState === "visible" && this.#newestInView() ? open.conversation : undefined;
  }

  /** To be called after every change of what is shown. */
  look(): void {
    const conversation = this.current;
    if (this.#resting || conversation === undefined) return;
    const last = this.#unreadUpTo(conversation);
    if (last === undefined) return;
    this.#resting = true;
    const rested = new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
    this.#state.client
      .markRead(conversation, last)
      .catch((error: unknown) => {
        if (isReset(error)) return;
        this.#refused.set(conversation, last);
        this.#state.tell(`Marking as read: ${errorWords(error)}.`);
      })
      .then(() => rested)
      .finally(() => {
        this.#resting = false;
        this.look();
      });
  }

  #unreadUpTo(conversation: string): bigint | undefined {
    const known = this.#state.client.conversation(conversation);
    const { entries, last } = this.#state.timeline(conversation);
    if (known === undefined || last === undefined || last.seq <= known.readSeq) return undefined;
    if (this.#refused.get(conversation) === last.seq) return undefined;
    const fromOthers = entries.some((entry) => entry.seq > known.readSeq && entry.senderUserId !== this.#state.me);
    return fromOthers ? last.seq : undefined;
  }
}
