// The storage of a browser: IndexedDB.
//
// In: changes. Out: what the last complete save left. Always: one save is one transaction; of the entries kept for
// display the newest `entriesKept` a conversation remain. Bodies lie there as they are: whoever may read the browser's
// profile reads them.
import type {
  Storage,
  StorageChanges,
  StoredConversation,
  StoredDevice,
  StoredEntry,
  StoredSend,
  StoredState,
} from "./storage.js";

const VERSION = 1;
const ENTRIES_KEPT_DEFAULT = 200;
const STORES = ["device", "conversations", "outbox", "entries"] as const;

/** As it lies in the store. Big integers are no keys, so the seq is written with leading zeros. */
interface EntryRow {
  readonly conversation: string;
  readonly place: string;
  readonly entry: Uint8Array;
}

/** `name`: of the database; one for each device of each user. `entriesKept` a conversation, 200 by default. */
export function indexedDbStorage(name: string, options: { entriesKept?: number; factory?: IDBFactory } = {}): Storage {
  return new IndexedDbStorage(name, options.entriesKept ?? ENTRIES_KEPT_DEFAULT, options.factory ?? indexedDB);
}

class IndexedDbStorage implements Storage {
  readonly entriesKept: number;
  readonly #database: Promise<IDBDatabase>;

  constructor(name: string, entriesKept: number, factory: IDBFactory) {
    this.entriesKept = entriesKept;
    this.#database = open(name, factory);
    // Whoever uses it is told; until then nobody listens.
    this.#database.catch(() => {});
  }

  async load(): Promise<StoredState | undefined> {
    const transaction = (await this.#database).transaction(STORES, "readonly");
    const [device, conversations, outbox] = await Promise.all([
      answer<StoredDevice | undefined>(transaction.objectStore("device").get(0)),
      answer<StoredConversation[]>(transaction.objectStore("conversations").getAll()),
      answer<StoredSend[]>(transaction.objectStore("outbox").getAll()),
    ]);
    return device && { device, conversations, outbox };
  }

  async save(changes: StorageChanges): Promise<void> {
    const transaction = (await this.#database).transaction(STORES, "readwrite");
    const done = completed(transaction);
    try {
      this.#write(changes, (name) => transaction.objectStore(name));
    } catch (error) {
      // What cannot be stored takes back what was put before it.
      transaction.abort();
      await done.catch(() => {});
      throw error;
    }
    await done;
  }

  #write(changes: StorageChanges, store: (name: (typeof STORES)[number]) => IDBObjectStore): void {
    const [conversations, outbox, entries] = [store("conversations"), store("outbox"), store("entries")];
    if (changes.forget !== "nothing") {
      conversations.clear();
      entries.clear();
    }
    if (changes.forget === "all") outbox.clear();
    store("device").put(changes.device, 0);
    for (const conversation of changes.conversations) conversations.put(conversation);
    for (const send of changes.outboxAdded) outbox.put(send);
    for (const send of changes.outboxRemoved) outbox.delete([send.conversation, send.clientMessageId]);
    for (const { conversation, seq, entry } of changes.entries) {
      entries.put({ conversation, place: place(seq), entry } satisfies EntryRow);
    }
    for (const conversation of new Set(changes.entries.map((entry) => entry.conversation))) {
      this.#trim(entries, conversation);
    }
  }

  async entries(conversation: string, below: bigint | undefined, limit: number): Promise<StoredEntry[]> {
    const store = (await this.#database).transaction("entries", "readonly").objectStore("entries");
    const rows = await answer<EntryRow[]>(store.getAll(range(conversation, below)));
    return rows.slice(-limit).map(({ place, entry }) => ({ conversation, seq: BigInt(place), entry }));
  }

  close(): void {
    this.#database.then((database) => database.close()).catch(() => {});
  }

  #trim(entries: IDBObjectStore, conversation: string): void {
    const keys = entries.getAllKeys(range(conversation, undefined));
    keys.onsuccess = () => {
      const last = keys.result[keys.result.length - this.entriesKept - 1];
      if (last !== undefined) entries.delete(IDBKeyRange.bound([conversation, ""], last));
    };
  }
}

function open(name: string, factory: IDBFactory): Promise<IDBDatabase> {
  const request = factory.open(name, VERSION);
  request.onupgradeneeded = () => {
    const database = request.result;
    database.createObjectStore("device");
    database.createObjectStore("conversations", { keyPath: "conversation" });
    database.createObjectStore("outbox", { keyPath: ["conversation", "clientMessageId"] });
    database.createObjectStore("entries", { keyPath: ["conversation", "place"] });
  };
  return answer(request).then((database) => {
    // Another page wants to delete or upgrade it.
    database.onversionchange = () => database.close();
    return database;
  });
}

function answer<Result>(request: IDBRequest<Result>): Promise<Result> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function completed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}

function range(conversation: string, below: bigint | undefined): IDBKeyRange {
  const end = below === undefined ? [conversation, "~"] : [conversation, place(below)];
  return IDBKeyRange.bound([conversation, ""], end, false, true);
}

/** Of 20 digits, as many as the largest seq has: text in the order of the numbers. */
function place(seq: bigint): string {
  return seq.toString().padStart(20, "0");
}
