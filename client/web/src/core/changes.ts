// What has changed since the storage was last told.
//
// In: marks. Out: one step for the storage, taken between two inputs. Always: what is taken is complete and belongs
// together: sync token, cursors and outbox of one moment. Cursors and sends are bounded by those that exist; of entries
// kept for display at most ENTRIES_UNSAVED_MAX wait, then the oldest are left out.
import type { StorageChanges, StoredConversation, StoredDevice, StoredEntry, StoredSend } from "../storage.js";
import type { QueuedSend } from "./write.js";

const ENTRIES_UNSAVED_MAX = 2_000;

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
    this.#added.set(key(send), send);
  }

  removed({ conversation, clientMessageId }: { conversation: string; clientMessageId: string }): void {
    this.#isDirty = true;
    const name = key({ conversation, clientMessageId });
    this.#added.delete(name);
    this.#removed.set(name, { conversation, clientMessageId });
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
    for (const send of failed.outboxRemoved) {
      if (!this.#added.has(key(send))) this.#removed.set(key(send), send);
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
