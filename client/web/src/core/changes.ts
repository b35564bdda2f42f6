// What has changed since the storage was last told.
//
// In: marks. Out: one step for the storage, taken between two inputs. Always: what is taken is complete and belongs
// together: sync token, cursors and outbox of one moment. Cursors and sends are bounded by those that exist; of entries
// kept for display at most ENTRIES_UNSAVED_MAX wait, then the oldest are left out; of sends that have ended at most
// ENDED_UNSAVED_MAX, then the oldest stay stored, and after a reload are repeated and get the answer they had.
import type { StorageChanges, StoredConversation, StoredDevice, StoredEntry, StoredSend } from "../storage.js";
import type { QueuedSend } from "./write.js";

const ENTRIES_UNSAVED_MAX = 2_000;
const ENDED_UNSAVED_MAX = 1_000;

export class Changes {
  #isDirty = false;
  #forget: StorageChanges["forget"] = "nothing";
  readonly #logs = new Set<string>();
  readonly #added = new Map<string, QueuedSend>();
  readonly #removed = new Map<string, { conversation: string; clientMessageId: string }>();
  #entries: StoredEntry[] = [];

  get isDirty(): boolean {
    return this.#isDirty;
  }

  /** The sync token or the epoch moved. */
  device(): void {
    this.#isDirty = true;
  }

  log(log: string): void {
    this.#isDirty = true;
    this.#logs.add(log);
  }

  added(send: QueuedSend): void {
    this.#isDirty = true;
    // The app may use an id again whose end is not stored yet.
    this.#removed.delete(key(send));
    this.#added.set(key(send), send);
  }

  removed({ conversation, clientMessageId }: { conversation: string; clientMessageId: string }): void {
    this.#isDirty = true;
    // One that was never stored need not be removed.
    if (!this.#added.delete(key({ conversation, clientMessageId }))) this.#remove({ conversation, clientMessageId });
  }

  #remove(send: { conversation: string; clientMessageId: string }): void {
    this.#removed.set(key(send), send);
    if (this.#removed.size <= ENDED_UNSAVED_MAX) return;
    for (const oldest of this.#removed.keys()) {
      this.#removed.delete(oldest);
      return;
    }
  }

  entry(entry: StoredEntry): void {
    this.#isDirty = true;
    this.#entries.push(entry);
    if (this.#entries.length > ENTRIES_UNSAVED_MAX) this.#entries.splice(0, this.#entries.length - ENTRIES_UNSAVED_MAX);
  }

  /** Conversations and entries are void; sends are not. */
  forgetHistory(): void {
    this.#isDirty = true;
    if (this.#forget === "nothing") this.#forget = "history";
    this.#logs.clear();
    this.#entries = [];
  }

  /** The storage holds another user's state. */
  forgetAll(): void {
    this.#isDirty = true;
    this.#forget = "all";
  }

  /** The storage holds nothing of what it was told. */
  everything(logs: readonly string[], sends: readonly QueuedSend[]): void {
    this.forgetAll();
    this.#removed.clear();
    for (const log of logs) this.#logs.add(log);
    for (const send of sends) this.#added.set(key(send), send);
  }

  take(device: StoredDevice, conversation: (log: string) => StoredConversation | undefined): StorageChanges {
    const changes: StorageChanges = {
      forget: this.#forget,
      device,
      conversations: [...this.#logs].map(conversation).filter((stored) => stored !== undefined),
      outboxAdded: [...this.#added.values()].map(storedSend),
      outboxRemoved: [...this.#removed.values()],
      entries: this.#entries,
    };
    this.#isDirty = false;
    this.#forget = "nothing";
    this.#logs.clear();
    this.#added.clear();
    this.#removed.clear();
    this.#entries = [];
    return changes;
  }

  /** The storage failed: what was taken is to be saved with what came since. */
  putBack(failed: StorageChanges, isQueued: (send: StoredSend) => boolean): void {
    this.#isDirty = true;
    const isVoid = this.#forget !== "nothing";
    if (failed.forget === "all" || this.#forget === "nothing") this.#forget = failed.forget;
    const removed = [...failed.outboxRemoved, ...this.#removed.values()];
    this.#removed.clear();
    for (const send of removed) {
      if (!this.#added.has(key(send))) this.#remove(send);
    }
    for (const send of failed.outboxAdded) {
      if (isQueued(send)) this.#added.set(key(send), { ...send, ticket: send.place });
    }
    if (isVoid) return;
    for (const { conversation } of failed.conversations) this.#logs.add(conversation);
    this.#entries = [...failed.entries, ...this.#entries].slice(-ENTRIES_UNSAVED_MAX);
  }
}

function storedSend({ ticket, conversation, userId, clientMessageId, body }: QueuedSend): StoredSend {
  return { place: ticket, conversation, userId, clientMessageId, body };
}

function key(send: { conversation: string; clientMessageId: string }): string {
  return `${send.conversation} ${send.clientMessageId}`;
}
