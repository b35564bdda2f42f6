// Claims about what a storage keeps: the same for memory and for IndexedDB.
import assert from "node:assert/strict";
import { test } from "node:test";
import "fake-indexeddb/auto";
import { IDBFactory } from "fake-indexeddb";
import { STORAGE_TIMEOUT_MS } from "../dist/deadline.js";
import { StorageLostError } from "../dist/errors.js";
import { indexedDbStorage } from "../dist/indexeddb.js";
import { type Storage, type StorageChanges, memoryStorage } from "../dist/storage.js";

const device = { user: "ann", device: "d1", epoch: 2n ** 63n + 1n, syncToken: Uint8Array.of(1, 2) };
const conversation = (name: string, seq: bigint) => ({
  conversation: name,
  seq,
  ordinal: seq,
  headSeq: 2n ** 53n + 1n,
  state: Uint8Array.of(7),
});
const send = (place: number, clientMessageId: string) => ({
  place,
  userId: "bob",
  conversation: "c1",
  clientMessageId,
  body: Uint8Array.of(place),
});
const entry = (name: string, seq: bigint) => ({ conversation: name, seq, entry: Uint8Array.of(Number(seq & 0xffn)) });

const changes = (over: Partial<StorageChanges> = {}): StorageChanges => ({
  forget: "nothing",
  device,
  conversations: [],
  outboxAdded: [],
  outboxRemoved: [],
  entries: [],
  ...over,
});

/** A storage, and a way to open it again as a reload does. */
const kinds: Record<string, (entriesKept: number) => { storage: Storage; reopen: () => Storage }> = {
  memory: (entriesKept) => {
    const storage = memoryStorage({ entriesKept });
    return { storage, reopen: () => storage };
  },
  IndexedDB: (entriesKept) => {
    const factory = new IDBFactory();
    const open = () => indexedDbStorage("im", { entriesKept, factory });
    const storage = open();
    return {
      storage,
      reopen: () => {
        storage.close();
        return open();
      },
    };
  },
};

for (const [kind, make] of Object.entries(kinds)) {
  test(`${kind}: a storage never used holds nothing`, async () => {
    assert.equal(await make(3).storage.load(), undefined);
  });

  test(`${kind}: what was saved survives a reload`, async () => {
    const { storage, reopen } = make(3);
    await storage.save(changes({ conversations: [conversation("c1", 1n), conversation("c2", 5n)] }));
    await storage.save(
      changes({ conversations: [conversation("c1", 2n)], outboxAdded: [send(1, "m1"), send(2, "m2")] }),
    );
    await storage.save(changes({ outboxRemoved: [{ conversation: "c1", clientMessageId: "m1" }] }));
    const stored = await reopen().load();
    assert.deepEqual(stored, {
      device,
      conversations: [conversation("c1", 2n), conversation("c2", 5n)],
      outbox: [send(2, "m2")],
    });
  });

  test(`${kind}: forgetting history keeps the sends, forgetting all keeps nothing`, async () => {
    const { storage } = make(3);
    const full = { conversations: [conversation("c1", 1n)], outboxAdded: [send(1, "m1")], entries: [entry("c1", 1n)] };
    await storage.save(changes(full));
    await storage.save(changes({ forget: "history", conversations: [conversation("c9", 1n)] }));
    const kept = await storage.load();
    assert.deepEqual(kept?.conversations, [conversation("c9", 1n)]);
    assert.deepEqual(kept?.outbox, [send(1, "m1")]);
    assert.deepEqual(await storage.entries("c1", undefined, 10), []);
    await storage.save(changes({ forget: "all" }));
    assert.deepEqual(await storage.load(), { device, conversations: [], outbox: [] });
  });

  test(`${kind}: the newest entries a conversation are kept, and read in order`, async () => {
    const { storage, reopen } = make(3);
    const seqs = [8n, 9n, 10n, 11n, 2n ** 53n + 1n];
    for (const seq of seqs) await storage.save(changes({ entries: [entry("c1", seq)] }));
    await storage.save(changes({ entries: [entry("c10", 1n)] }));
    const reopened = reopen();
    const read = async (below: bigint | undefined, limit: number) =>
      (await reopened.entries("c1", below, limit)).map(({ seq }) => seq);
    assert.deepEqual(await read(undefined, 10), [10n, 11n, 2n ** 53n + 1n]);
    assert.deepEqual(await read(undefined, 2), [11n, 2n ** 53n + 1n]);
    assert.deepEqual(await read(2n ** 53n + 1n, 10), [10n, 11n]);
    assert.deepEqual(await read(10n, 10), []);
    assert.deepEqual(
      (await reopened.entries("c10", undefined, 10)).map(({ entry }) => entry),
      [Uint8Array.of(1)],
    );
  });
}

test("IndexedDB: a save that fails changes nothing", async () => {
  const factory = new IDBFactory();
  const storage = indexedDbStorage("im", { factory });
  await storage.save(changes({ outboxAdded: [send(1, "m1")] }));
  const unclonable = { ...send(2, "m2"), body: (() => {}) as never };
  await assert.rejects(storage.save(changes({ outboxAdded: [send(3, "m3"), unclonable] })));
  assert.deepEqual((await storage.load())?.outbox, [send(1, "m1")]);
});

/** A factory, and the databases opened with it. */
function watched(): { factory: IDBFactory; opened: IDBDatabase[] } {
  const [factory, opened] = [new IDBFactory(), [] as IDBDatabase[]];
  const open = factory.open.bind(factory);
  factory.open = (name, version) => {
    const request = open(name, version);
    request.addEventListener("success", () => opened.push(request.result));
    return request;
  };
  return { factory, opened };
}

test("IndexedDB: a connection that the browser ended is opened anew", async () => {
  const { factory, opened } = watched();
  const storage = indexedDbStorage("im", { factory });
  await storage.save(changes({ outboxAdded: [send(1, "m1")] }));
  opened.at(-1)?.close();
  await storage.save(changes({ outboxAdded: [send(2, "m2")] }));
  opened.at(-1)!.transaction = () => {
    throw new DOMException("Connection to Indexed Database server lost", "UnknownError");
  };
  assert.deepEqual((await storage.load())?.outbox, [send(1, "m1"), send(2, "m2")]);
  assert.equal(opened.length, 3);
});

test("IndexedDB: a save on what was emptied fails and says so, unless it is everything", async () => {
  const factory = new IDBFactory();
  const storage = indexedDbStorage("im", { factory });
  await storage.save(changes({ outboxAdded: [send(1, "m1")] }));
  await new Promise((resolve) => (factory.deleteDatabase("im").onsuccess = resolve));
  const late = changes({ outboxRemoved: [{ conversation: "c1", clientMessageId: "m1" }] });
  await assert.rejects(storage.save(late), StorageLostError);
  assert.equal(await storage.load(), undefined);
  await storage.save(changes({ forget: "all", outboxAdded: [send(2, "m2")] }));
  assert.deepEqual((await storage.load())?.outbox, [send(2, "m2")]);
});

test("IndexedDB: a database that does not open is given up in time, and tried again", async (context) => {
  const { factory, opened } = watched();
  const { open } = factory;
  factory.open = () => ({}) as IDBOpenDBRequest;
  const storage = indexedDbStorage("im", { factory });
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const failed = assert.rejects(storage.save(changes()));
  context.mock.timers.tick(STORAGE_TIMEOUT_MS);
  await failed;
  factory.open = open;
  await storage.save(changes());
  assert.equal(opened.length, 1);
});
