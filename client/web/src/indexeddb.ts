// The storage of a browser: IndexedDB.
//
// In: changes. Out: what the last complete save left. Always: one save is one transaction; of the entries kept for
// display the newest `entriesKept` a conversation remain. Browsers end connections and delete databases under a page
// that is open: what fails is done once more on a new connection, and a save that finds the database empty says so. Bodies
// lie there as they are: whoever may read the browser's profile reads them.
import { STORAGE_TIMEOUT_MS, within } from "./deadline.js";
import { StorageLostError } from "./errors.js";
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
  readonly #name: string;
  readonly #factory: IDBFactory;
  /** Until it fails, or `close`. */
  #connection: Promise<IDBDatabase> | undefined;
  /** Something was saved or loaded: a database without a device was emptied since. */
  #isInUse = false;

  constructor(name: string, entriesKept: number, factory: IDBFactory) {
    this.entriesKept = entriesKept;
    this.#name = name;
    this.#factory = factory;
  }

  load(): Promise<StoredState | undefined> {
    return this.#use(async (database) => {
      const transaction = database.transaction(STORES, "readonly");
      const [device, conversations, outbox] = await Promise.all([
        answer<StoredDevice | undefined>(transaction.objectStore("device").get(0)),
        answer<StoredConversation[]>(transaction.objectStore("conversations").getAll()),
        answer<StoredSend[]>(transaction.objectStore("outbox").getAll()),
      ]);
      this.#isInUse = device !== undefined;
      return device && { device, conversations, outbox };
    });
  }

  save(changes: StorageChanges): Promise<void> {
    return this.#use(async (database) => {
      const transaction = database.transaction(STORES, "readwrite");
      const done = completed(transaction);
      try {
        const device = await answer<StoredDevice | undefined>(transaction.objectStore("device").get(0));
        if (device === undefined && this.#isInUse && changes.forget !== "all") throw new StorageLostError();
        this.#write(changes, (name) => transaction.objectStore(name));
      } catch (error) {
        // What cannot be stored takes back what was put before it.
        abort(transaction);
        await done.catch(() => {});
        throw error;
      }
      await done;
      this.#isInUse = true;
    });
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

  entries(conversation: string, below: bigint | undefined, limit: number): Promise<StoredEntry[]> {
    return this.#use(async (database) => {
      const store = database.transaction("entries", "readonly").objectStore("entries");
      const rows = await answer<EntryRow[]>(store.getAll(range(conversation, below)));
      return rows.slice(-limit).map(({ place, entry }) => ({ conversation, seq: BigInt(place), entry }));
    });
  }

  close(): void {
    this.#connection?.then((database) => database.close()).catch(() => {});
    this.#connection = undefined;
  }

  async #use<Result>(action: (database: IDBDatabase) => Promise<Result>, isLast = false): Promise<Result> {
    const connection = this.#connect();
    const database = await connection;
    try {
      return await action(database);
    } catch (error) {
      if (this.#connection === connection) this.close();
      if (isLast || error instanceof StorageLostError) throw error;
      return this.#use(action, true);
    }
  }

  #connect(): Promise<IDBDatabase> {
    if (this.#connection !== undefined) return this.#connection;
    const connection = open(this.#name, this.#factory);
    this.#connection = connection;
    connection.catch(() => {
      if (this.#connection === connection) this.#connection = undefined;
    });
    return connection;
  }

  #trim(entries: IDBObjectStore, conversation: string): void {
    const keys = entries.getAllKeys(range(conversation, undefined));
    keys.onsuccess = () => {
      const last = keys.result[keys.result.length - this.entriesKept - 1];
      if (last !== undefined) entries.delete(IDBKeyRange.bound([conversation, ""], last));
    };
  }
}

async function open(name: string, factory: IDBFactory): Promise<IDBDatabase> {
  const request = factory.open(name, VERSION);
  request.onupgradeneeded = () => {
    const database = request.result;
    database.createObjectStore("device");
    database.createObjectStore("conversations", { keyPath: "conversation" });
    database.createObjectStore("outbox", { keyPath: ["conversation", "clientMessageId"] });
    database.createObjectStore("entries", { keyPath: ["conversation", "place"] });
  };
  const opened = answer(request);
  try {
    const database = await within(STORAGE_TIMEOUT_MS, opened);
    // Another page wants to delete or upgrade it.
    database.onversionchange = () => database.close();
    return database;
  } catch (error) {
    // One that opens later would keep others from deleting it.
    opened.then((database) => database.close()).catch(() => {});
    throw error;
  }
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
    // Of a connection that the browser ended there is no error.
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser ended the connection"));
  });
}

function abort(transaction: IDBTransaction): void {
  try {
    transaction.abort();
  } catch {
    // It has ended already, which is as good.
  }
}

function range(conversation: string, below: bigint | undefined): IDBKeyRange {
  const end = below === undefined ? [conversation, "~"] : [conversation, place(below)];
  return IDBKeyRange.bound([conversation, ""], end, false, true);
}

/** Of 20 digits, as many as the largest seq has: text in the order of the numbers. */
function place(seq: bigint): string {
  return seq.toString().padStart(20, "0");
}
