// What a client keeps over a reload.
//
// In: changes, as the client makes them. Out: what the last complete `save` left. Always: one `save` is applied whole
// or not at all; taken together the saves are complete: what was handed to the app lies behind the cursors, and no send
// without a final answer is missing. One storage belongs to one device of one user: two tabs on one storage would sign
// each other out.

/** Where this device stands in one log, and what is known of the conversation. */
export interface StoredConversation {
  readonly conversation: string;
  /** The last entry handed to the app. */
  readonly seq: bigint;
  readonly ordinal: bigint;
  /** The last entry known to exist; above `seq` it is pulled. */
  readonly headSeq: bigint;
  /** An encoded `ConversationState`; undefined for the user's own log. */
  readonly state: Uint8Array | undefined;
}

export interface StoredSend {
  /** Rises in the order of sending. */
  readonly place: number;
  /** Undefined when the send was addressed to the conversation. */
  readonly userId: string | undefined;
  readonly conversation: string;
  readonly clientMessageId: string;
  /** An encoded `MessageBody`. */
  readonly body: Uint8Array;
}

export interface StoredEntry {
  readonly conversation: string;
  readonly seq: bigint;
  /** An encoded `Entry`. */
  readonly entry: Uint8Array;
}

/** Whose storage it is, and the sync token: empty: never synced. */
export interface StoredDevice {
  readonly user: string;
  readonly device: string;
  /** 0: never signed in. */
  readonly epoch: bigint;
  readonly syncToken: Uint8Array;
}

export interface StoredState {
  readonly device: StoredDevice;
  readonly conversations: readonly StoredConversation[];
  readonly outbox: readonly StoredSend[];
}

/** One step, in this order: forget, put, remove. */
export interface StorageChanges {
  /** `history`: forget conversations and entries. `all`: forget everything. */
  readonly forget: "nothing" | "history" | "all";
  readonly device: StoredDevice;
  readonly conversations: readonly StoredConversation[];
  readonly outboxAdded: readonly StoredSend[];
  readonly outboxRemoved: readonly { readonly conversation: string; readonly clientMessageId: string }[];
  /** To be kept for display; see `Storage.entriesKept`. */
  readonly entries: readonly StoredEntry[];
}

export interface Storage {
  /** Entries a conversation that are kept for `entries`; older ones may be dropped. 0: none are handed over. */
  readonly entriesKept: number;
  load(): Promise<StoredState | undefined>;
  /** Throws `StorageLostError` where what earlier saves left is gone: the next one then holds everything. */
  save(changes: StorageChanges): Promise<void>;
  /**
   * The kept entries of a conversation with a seq below `below` (undefined: the last), at most `limit`, oldest first.
   */
  entries(conversation: string, below: bigint | undefined, limit: number): Promise<StoredEntry[]>;
  close(): void;
}

const ENTRIES_KEPT_DEFAULT = 200;

/** In memory: gone with the page. `entriesKept` a conversation, 200 by default. */
export function memoryStorage({ entriesKept = ENTRIES_KEPT_DEFAULT }: { entriesKept?: number } = {}): Storage {
  return new MemoryStorage(entriesKept);
}

class MemoryStorage implements Storage {
  readonly entriesKept: number;
  #device: StoredDevice | undefined;
  readonly #conversations = new Map<string, StoredConversation>();
  readonly #outbox = new Map<string, StoredSend>();
  readonly #entries = new Map<string, StoredEntry[]>();

  constructor(entriesKept: number) {
    this.entriesKept = entriesKept;
  }

  async load(): Promise<StoredState | undefined> {
    if (this.#device === undefined) return undefined;
    const [conversations, outbox] = [[...this.#conversations.values()], [...this.#outbox.values()]];
    return { device: this.#device, conversations, outbox };
  }

  async save(changes: StorageChanges): Promise<void> {
    if (changes.forget !== "nothing") {
      this.#conversations.clear();
      this.#entries.clear();
    }
    if (changes.forget === "all") this.#outbox.clear();
    this.#device = changes.device;
    for (const conversation of changes.conversations) this.#conversations.set(conversation.conversation, conversation);
    for (const send of changes.outboxAdded) this.#outbox.set(`${send.conversation} ${send.clientMessageId}`, send);
    for (const send of changes.outboxRemoved) this.#outbox.delete(`${send.conversation} ${send.clientMessageId}`);
    for (const entry of changes.entries) {
      const kept = this.#entries.get(entry.conversation) ?? [];
      kept.push(entry);
      if (kept.length > this.entriesKept) kept.shift();
      this.#entries.set(entry.conversation, kept);
    }
  }

  async entries(conversation: string, below: bigint | undefined, limit: number): Promise<StoredEntry[]> {
    const kept = this.#entries.get(conversation) ?? [];
    return kept.filter(({ seq }) => below === undefined || seq < below).slice(-limit);
  }

  close(): void {}
}
