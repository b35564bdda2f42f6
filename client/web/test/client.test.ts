// Claims about the handle an app holds, over a server in the same process.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { create, fromBinary } from "@bufbuild/protobuf";
import "fake-indexeddb/auto";
import { IDBFactory } from "fake-indexeddb";
import { STORAGE_TIMEOUT_MS } from "../dist/deadline.js";
import {
  type Client,
  type ClientEvents,
  CloseCode,
  ClosedError,
  type ConnectOptions,
  ErrorCode,
  FullError,
  RefusedError,
  UserUnknownError,
  connect,
  directConversationId,
  indexedDbStorage,
  memoryStorage,
  messageBody,
} from "../dist/index.js";
import { EntryPushedSchema, ErrorClass, ErrorSchema, MessageBodySchema } from "../dist/gen/client_pb.js";
import { FakeServer, tokenOf } from "./fake-server.js";
import { entry } from "./script.js";

const opened: Client[] = [];

afterEach(async () => {
  for (const client of opened.splice(0)) await client.close();
});

function open(server: FakeServer, over: Partial<ConnectOptions> = {}): Client {
  const client = connect({ url: "ws://127.0.0.1:1/ws", token: tokenOf("ann"), webSocket: server.webSocket, ...over });
  opened.push(client);
  return client;
}

/** The next event of this name for which `wanted` says true. */
function next<Name extends keyof ClientEvents>(
  client: Client,
  name: Name,
  wanted: (event: ClientEvents[Name]) => boolean = () => true,
): Promise<ClientEvents[Name]> {
  return new Promise((resolve) => {
    const stop = client.on(name, (event) => {
      if (!wanted(event)) return;
      stop();
      resolve(event);
    });
  });
}

const messageText = (body: Uint8Array) => fromBinary(MessageBodySchema, body).text;
const isNamed = (name: string) => (state: { name: string }) => state.name === name;
const settled = async (client: Client) =>
  (await next(client, "state", ({ name }) => name === "live" || name === "closed")).name;
const turn = () => new Promise((resolve) => setImmediate(resolve));
async function until(isSo: () => boolean): Promise<void> {
  const end = performance.now() + 10_000;
  while (!isSo()) {
    assert.ok(performance.now() < end, `not in time: ${isSo}`);
    await turn();
  }
}

test("a client goes from connecting to live and says so in order", async () => {
  const client = open(new FakeServer());
  const names: string[] = [];
  client.on("state", ({ name }) => names.push(name));
  await next(client, "state", isNamed("live"));
  assert.deepEqual(names, ["connecting", "signing-in", "syncing", "live"]);
  assert.deepEqual([client.user, client.state.name], ["ann", "live"]);
});

test("calls made before anything is known are carried out in their order", async () => {
  const server = new FakeServer();
  const client = open(server);
  const [first, second] = await Promise.all([client.send({ user: "bob" }, "one"), client.send({ user: "bob" }, "two")]);
  assert.deepEqual([first.seq, second.seq], [1n, 2n]);
  assert.equal(first.conversation, directConversationId("ann", "bob"));
  assert.deepEqual(
    server.sends.map(({ after }) => after),
    ["", first.clientMessageId],
  );
});

test("send resolves to the ack, and the entry comes once with its text", async () => {
  const client = open(new FakeServer());
  const entries: string[] = [];
  client.on("entry", ({ entry }) => entries.push(messageBody(entry)!.text));
  const sent = await client.send({ user: "bob" }, "hello", { clientMessageId: "m1" });
  assert.deepEqual([sent.clientMessageId, sent.epoch, sent.seq, sent.serverTimeMs], ["m1", 7n, 1n, 5n]);
  assert.deepEqual(entries, ["hello"]);
  assert.deepEqual(client.pending(), []);
});

test("a final refusal rejects with its code", async () => {
  const client = open(new FakeServer());
  await assert.rejects(client.send({ user: "bob" }, "x", { clientMessageId: "refused" }), (error: unknown) => {
    return error instanceof RefusedError && error.code === ErrorCode.CONFLICT && error.detail === "other body";
  });
});

test("a cut link costs nothing: the send is repeated with its id and its promise resolves", async () => {
  const server = new FakeServer();
  server.acks = false;
  const client = open(server);
  const sent = client.send({ user: "bob" }, "hello");
  await until(() => server.sends.length === 1);
  server.acks = true;
  server.last.end(1006);
  client.reconnect();
  assert.equal((await sent).seq, 1n);
  assert.equal(server.sends[0]!.clientMessageId, server.sends[1]!.clientMessageId);
});

test("a token callback is asked for a fresh token when the old one has expired", async () => {
  const server = new FakeServer();
  server.expired.add(tokenOf("ann", 1));
  let serial = 0;
  const client = open(server, { token: async () => tokenOf("ann", ++serial) });
  await next(client, "state", isNamed("live"));
  assert.deepEqual(
    server.signIns.map(({ token }) => token),
    [tokenOf("ann", 1), tokenOf("ann", 2)],
  );
});

test("a token callback that fails is told and called again", async () => {
  let calls = 0;
  const token = () => {
    calls += 1;
    if (calls === 1) throw new Error("the backend is away");
    return tokenOf("ann");
  };
  const client = open(new FakeServer(), { token });
  const told = next(client, "error");
  await next(client, "state", isNamed("live"));
  assert.equal((await told).during, "token");
});

test("a reload from the same storage resends what had no answer, with the same id, and keeps the device", async () => {
  const [server, storage] = [new FakeServer(), memoryStorage()];
  server.acks = false;
  const before = open(server, { storage });
  const lost = before.send({ user: "bob" }, "hello");
  await until(() => server.sends.length === 1);
  await Promise.all([assert.rejects(lost, ClosedError), before.close()]);
  server.acks = true;
  const client = open(server, { storage });
  const sent = await next(client, "sent");
  assert.equal(sent.clientMessageId, server.sends[0]!.clientMessageId);
  assert.equal(client.device, before.device);
  assert.equal(server.sends.length, 2);
});

test("entries are kept for display over a reload, and not handed over again", async () => {
  const [server, storage] = [new FakeServer(), memoryStorage({ entriesKept: 2 })];
  const before = open(server, { storage });
  const { conversation } = await before.send({ user: "bob" }, "one");
  await before.send({ user: "bob" }, "two");
  await before.send({ user: "bob" }, "three");
  await before.close();
  const client = open(server, { storage });
  client.on("entry", () => assert.fail("handed over again"));
  await next(client, "synced");
  const texts = (await client.storedEntries(conversation)).map((entry) => messageBody(entry)?.text);
  assert.deepEqual(texts, ["two", "three"]);
  assert.deepEqual(
    client.conversations().map(({ headSeq, unread }) => [headSeq, unread]),
    [[3n, 0]],
  );
});

test("a storage of somebody else is emptied, not used", async () => {
  const [server, storage] = [new FakeServer(), memoryStorage()];
  const before = open(server, { storage });
  await before.send({ user: "bob" }, "one");
  await before.close();
  const client = open(server, { storage, token: tokenOf("cid") });
  await next(client, "synced");
  assert.deepEqual([client.user, client.conversations()], ["cid", []]);
  await client.close();
  assert.equal((await storage.load())?.device.user, "cid");
});

test("somebody else's storage is emptied also where the token has to be fetched to know", async () => {
  const [server, storage] = [new FakeServer(), memoryStorage()];
  const before = open(server, { storage });
  await before.send({ user: "bob" }, "one");
  await before.close();
  const client = open(server, { storage, token: async () => tokenOf("cid") });
  assert.equal(await settled(client), "live");
  assert.deepEqual([client.user, client.conversations()], ["cid", []]);
  assert.notEqual(client.device, before.device);
  await client.close();
  assert.equal((await storage.load())?.device.user, "cid");
});

test("where no token can be fetched the storage says who the user is", async () => {
  const [server, storage] = [new FakeServer(), memoryStorage()];
  const before = open(server, { storage });
  const { conversation } = await before.send({ user: "bob" }, "one");
  await before.close();
  let isOffline = true;
  const token = () => {
    if (isOffline) throw new Error("no network");
    return tokenOf("ann", 2);
  };
  const client = open(server, { storage, token });
  await next(client, "state", isNamed("waiting"));
  assert.deepEqual([client.user, client.device], ["ann", before.device]);
  assert.deepEqual(
    client.conversations().map(({ conversation }) => conversation),
    [conversation],
  );
  isOffline = false;
  client.reconnect();
  await next(client, "state", isNamed("live"));
});

test("the device is that of the token, whoever names the user and whichever way the token comes", async () => {
  const bound = tokenOf("ann", 1, "d-bound");
  const given = { user: ["ann", undefined], token: [bound, async () => bound] };
  for (const user of given.user) {
    for (const token of given.token) {
      const [server, storage] = [new FakeServer(), memoryStorage()];
      const client = open(server, { storage, token, ...(user !== undefined && { user }) });
      assert.equal(await settled(client), "live");
      assert.deepEqual([client.device, server.signIns.map(({ deviceId }) => deviceId)], ["d-bound", ["d-bound"]]);
      await client.close();
      assert.equal((await storage.load())?.device.device, "d-bound");
    }
  }
});

test("the direct conversation with somebody is not known before the user is, and says so", async () => {
  let give = (_token: string) => {};
  const token = () => new Promise<string>((resolve) => (give = resolve));
  const client = open(new FakeServer(), { token });
  assert.throws(() => client.directConversation("bob"), UserUnknownError);
  const connecting = next(client, "state");
  await turn();
  give(tokenOf("ann"));
  await connecting;
  assert.equal(client.directConversation("bob"), directConversationId("ann", "bob"));
});

test("after a reload each stored conversation is told, also where nothing has moved", async () => {
  const [server, storage] = [new FakeServer(), memoryStorage()];
  const before = open(server, { storage });
  await before.send({ user: "bob" }, "one");
  await before.send({ user: "cid" }, "two");
  await before.close();
  const client = open(server, { storage });
  const told: string[] = [];
  client.on("conversation", ({ peerUserId }) => told.push(peerUserId));
  await next(client, "synced");
  assert.deepEqual(told, ["bob", "cid"]);
});

test("a sync that the server refuses for good is told", async () => {
  const server = new FakeServer();
  const refused = create(ErrorSchema, { class: ErrorClass.FINAL, code: ErrorCode.INVALID_ARGUMENT });
  const { answer } = server;
  server.answer = (user, command) =>
    command.case === "sync" ? { case: "error", value: refused } : answer.call(server, user, command);
  const { during, error } = await next(open(server), "error");
  assert.ok(during === "sync" && error instanceof RefusedError && error.code === ErrorCode.INVALID_ARGUMENT);
});

test("a storage that fails is told, and the client goes on", async () => {
  const storage = memoryStorage();
  storage.save = () => Promise.reject(new Error("quota"));
  const client = open(new FakeServer(), { storage });
  const told = next(client, "error");
  await client.send({ user: "bob" }, "one");
  assert.equal((await told).during, "storage");
});

test("a storage that cannot be read is told, and memory takes its place until the next start", async () => {
  const [server, storage] = [new FakeServer(), memoryStorage()];
  const before = open(server, { storage });
  server.acks = false;
  const lost = before.send({ user: "bob" }, "of ann");
  await until(() => server.sends.length === 1);
  await Promise.all([assert.rejects(lost, ClosedError), before.close()]);
  const held = await storage.load();
  server.acks = true;
  const { load } = storage;
  storage.load = () => Promise.reject(new Error("lost"));
  const client = open(server, { storage, token: tokenOf("cid") });
  assert.equal((await next(client, "error")).during, "storage");
  const { conversation } = await client.send({ user: "bob" }, "of cid");
  assert.equal((await client.storedEntries(conversation)).length, 1);
  await client.close();
  assert.deepEqual(await load.call(storage), held);
});

test("a storage that never answers is told after its time, the client goes on, and closes", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const storage = memoryStorage();
  storage.load = () => new Promise(() => {});
  const client = open(new FakeServer(), { storage });
  const [told, sent] = [next(client, "error"), client.send({ user: "bob" }, "one")];
  context.mock.timers.tick(STORAGE_TIMEOUT_MS);
  assert.equal((await told).during, "storage");
  assert.equal((await client.storedEntries((await sent).conversation)).length, 1);
  await client.close();
});

test("a client closed while its storage does not answer ends at once", async () => {
  const storage = memoryStorage();
  storage.load = () => new Promise(() => {});
  const client = open(new FakeServer(), { storage });
  const calls = [client.send({ user: "bob" }, "x"), client.storedEntries("c1")].map((call) =>
    assert.rejects(call, ClosedError),
  );
  await Promise.all([...calls, client.close()]);
});

test("a database that is deleted under the page is filled again, with everything", async () => {
  const [server, factory] = [new FakeServer(), new IDBFactory()];
  const openOn = () => open(server, { storage: indexedDbStorage("im", { factory }) });
  const before = openOn();
  await before.send({ user: "bob" }, "stored");
  server.acks = false;
  const lost = [before.send({ user: "bob" }, "before")];
  await until(() => server.sends.length === 2);
  await new Promise((resolve, reject) => {
    Object.assign(factory.deleteDatabase("im"), { onsuccess: resolve, onerror: reject });
  });
  before.on("error", ({ error }) => assert.fail(String(error)));
  lost.push(before.send({ user: "bob" }, "after"));
  await Promise.all([...lost.map((call) => assert.rejects(call, ClosedError)), before.close()]);
  const client = openOn();
  client.on("entry", ({ entry }) => assert.notEqual(messageBody(entry)?.text, "stored", "its cursor was lost"));
  await next(client, "state");
  assert.equal(client.device, before.device);
  assert.deepEqual(
    client.pending().map(({ body }) => messageText(body)),
    ["before", "after"],
  );
  assert.deepEqual(
    client.conversations().map(({ headSeq }) => headSeq),
    [1n],
  );
});

test("a handler that throws is told as an error and stops nobody", async () => {
  const client = open(new FakeServer());
  client.on("synced", () => {
    throw new Error("the app's own");
  });
  const [told, second] = [next(client, "error"), next(client, "synced")];
  assert.equal((await told).during, "handler");
  await second;
});

test("a handler that sends is not entered again while it runs", async () => {
  const client = open(new FakeServer());
  let depth = 0;
  const texts: string[] = [];
  client.on("entry", ({ entry }) => {
    assert.equal(++depth, 1);
    texts.push(messageBody(entry)!.text);
    if (texts.length < 3) void client.send({ user: "bob" }, `reply ${texts.length}`);
    depth -= 1;
  });
  await client.send({ user: "bob" }, "first");
  await until(() => texts.length === 3);
  assert.deepEqual(texts, ["first", "reply 1", "reply 2"]);
});

test("what the server closes for good stays closed until reconnect brings a token", async () => {
  const server = new FakeServer();
  const client = open(server);
  await next(client, "state", isNamed("live"));
  const closed = next(client, "state", isNamed("closed"));
  server.last.end(CloseCode.BAD_TOKEN);
  assert.equal((await closed).code, CloseCode.BAD_TOKEN);
  client.reconnect(tokenOf("ann", 9));
  await next(client, "state", isNamed("live"));
  assert.equal(server.signIns.at(-1)?.token, tokenOf("ann", 9));
});

test("a text message ends the link", async () => {
  const server = new FakeServer();
  const client = open(server);
  await next(client, "state", isNamed("live"));
  const waiting = next(client, "state", isNamed("waiting"));
  server.last.onmessage?.({ data: "text" } as never);
  await waiting;
});

test("group calls answer with acks and whole member lists", async () => {
  const client = open(new FakeServer());
  const group = await client.createGroup({ name: "club", members: ["bob"] });
  assert.match(group.conversationId, /^g/);
  const { members, creatorUserId } = await client.listMembers(group.conversationId);
  assert.deepEqual([members.map(({ userId }) => userId), creatorUserId], [["ann", "bob"], "ann"]);
});

test("sync resolves when everything is handed over", async () => {
  const client = open(new FakeServer());
  await client.sync();
  await client.sync();
  assert.equal(client.state.name, "live");
});

test("a push becomes an entry and a conversation", async () => {
  const server = new FakeServer();
  const client = open(server);
  await next(client, "state", isNamed("live"));
  const [told, conversation] = [next(client, "entry"), next(client, "conversation")];
  const conversationId = directConversationId("ann", "bob");
  server.last.say({ case: "entry", value: create(EntryPushedSchema, { conversationId, epoch: 7n, entry: entry(1n) }) });
  assert.equal((await told).entry.seq, 1n);
  assert.deepEqual([(await conversation).peerUserId, (await conversation).unread], ["bob", 1]);
});

test("bounds hold before and after the start", async () => {
  const client = open(new FakeServer(), { outboxSendsMax: 1 });
  const results = await Promise.allSettled([client.send({ user: "bob" }, "1"), client.send({ user: "bob" }, "2")]);
  assert.equal(results[0].status, "fulfilled");
  assert.ok(results[1].status === "rejected" && results[1].reason instanceof FullError);
  const early = open(new FakeServer());
  const pulls = Array.from({ length: 1_001 }, () =>
    early.pull("c", 1n).then(
      () => "pulled",
      (error: Error) => error.name,
    ),
  );
  assert.equal((await Promise.all(pulls)).filter((outcome) => outcome === "FullError").length, 1);
});

test("after close every call ends, and nothing is dialled again", async () => {
  const server = new FakeServer();
  server.acks = false;
  const client = open(server);
  const calls = [client.send({ user: "bob" }, "x"), client.sync().then(() => client.pull("c", 1n))];
  await client.close();
  for (const call of [...calls, client.send({ user: "bob" }, "y")]) await assert.rejects(call, ClosedError);
  assert.equal(client.state.name, "closed");
  const dialled = server.sockets.length;
  client.reconnect();
  await turn();
  assert.equal(server.sockets.length, dialled);
});

test("a client closed while its first token is fetched ends at once", async () => {
  const client = open(new FakeServer(), { token: () => new Promise<string>(() => {}) });
  const call = client.send({ user: "bob" }, "x");
  await turn();
  await Promise.all([assert.rejects(call, ClosedError), client.close()]);
});

test("a page that may not make a socket is told, and it is tried again", async () => {
  const server = new FakeServer();
  let refusals = 2;
  const webSocket = class extends server.webSocket {
    constructor(url: string) {
      if (refusals-- > 0) throw new Error("the page's policy");
      super(url);
    }
  };
  const client = open(server, { webSocket });
  assert.equal((await next(client, "error")).during, "connect");
  await next(client, "state", isNamed("live"));
});

test("the browser's word that the network is back ends a wait", async () => {
  const browser = new EventTarget();
  const page = Object.assign(new EventTarget(), { visibilityState: "hidden" });
  const globals = globalThis as { addEventListener?: unknown; removeEventListener?: unknown; document?: unknown };
  globals.addEventListener = browser.addEventListener.bind(browser);
  globals.removeEventListener = browser.removeEventListener.bind(browser);
  globals.document = page;
  try {
    const server = new FakeServer();
    const client = open(server);
    await next(client, "state", isNamed("live"));
    const wakes = [
      () => browser.dispatchEvent(new Event("online")),
      () => {
        page.visibilityState = "visible";
        page.dispatchEvent(new Event("visibilitychange"));
      },
    ];
    for (const wake of wakes) {
      server.last.end(1006);
      assert.equal(client.state.name, "waiting");
      wake();
      assert.equal(client.state.name, "connecting");
      await next(client, "state", isNamed("live"));
    }
    await client.close();
  } finally {
    globals.addEventListener = globals.removeEventListener = globals.document = undefined;
  }
});

test("what is no WebSocket address, or no WebSocket, is refused at once", () => {
  assert.throws(() => connect({ url: "http://host/", token: "t" }), TypeError);
  assert.throws(() => connect({ url: "no url", token: "t" }), TypeError);
});
