// Claims about a client that is stopped and started again with what it stored, and about what it stores.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Core, DamagedStateError } from "../dist/core/core.js";
import { SyncHintSchema } from "../dist/gen/client_pb.js";
import type { StoredState } from "../dist/storage.js";
import {
  ANN_BOB,
  EPOCH,
  Script,
  ack,
  applied,
  config,
  entry,
  pulled,
  pushed,
  seeded,
  state,
  synced,
} from "./script.js";

function stored(script: Script, before?: StoredState): StoredState {
  const after = applied(before, script.core.takeChanges());
  assert.ok(after !== undefined);
  return after;
}

test("a reloaded client goes on from its token and hands nothing over twice", () => {
  const before = Script.live();
  for (let seq = 1n; seq <= 3n; seq++) before.push(pushed(ANN_BOB, entry(seq)));
  const script = Script.fresh({}, 2, stored(before));
  assert.equal(script.core.conversations.view(ANN_BOB)?.headSeq, 3n);
  script.signIn();
  script.answer(script.expectSync("t1"), synced("t2", { conversations: [state(ANN_BOB, 4n)] }));
  script.answer(script.expectPull(ANN_BOB, 4n), pulled(ANN_BOB, 4n, 4n, 4n));
  assert.deepEqual(script.seqs(), [4n]);
});

test("sends without an answer survive a reload, in order and with their ids", () => {
  const before = Script.live();
  before.send("m1");
  before.core.send({ user: "bob" }, Uint8Array.of(1, 2), undefined, before.nowMs);
  const [, second] = before.core.pending();
  const script = Script.fresh({}, 2, stored(before));
  assert.deepEqual(
    script.core.pending().map(({ clientMessageId }) => clientMessageId),
    ["m1", second?.clientMessageId],
  );
  script.signIn();
  script.expectSync("t1");
  const sends = script.nextSends(2);
  assert.deepEqual(
    sends.map(({ id, after }) => [id, after]),
    [
      ["m1", ""],
      [second?.clientMessageId, "m1"],
    ],
  );
  script.send("m3");
  assert.equal(script.nextSend().after, second?.clientMessageId, "a new send is behind the old ones");
});

test("an acked send is stored no more", () => {
  const script = Script.live();
  script.send("m1");
  const before = stored(script);
  assert.equal(before.outbox.length, 1);
  script.answer(script.nextSend().request, ack(ANN_BOB, 1n));
  const after = stored(script, before);
  assert.deepEqual(after.outbox, []);
  assert.deepEqual(after.conversations.map(({ conversation, seq }) => [conversation, seq]).at(-1), [ANN_BOB, 1n]);
});

test("what was known to be missing is pulled after a reload", () => {
  const before = Script.live();
  before.push(pushed(ANN_BOB, entry(2n)));
  const script = Script.fresh({}, 2, stored(before));
  script.signIn();
  // The token is past this conversation: sync will not name it again.
  script.answer(script.expectSync("t1"), synced("t2"));
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, 1n, 2n, 2n));
  assert.equal(script.kinds().at(-1), "synced");
});

test("a reset empties what is stored, but for the sends", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(1n)));
  script.send("m1");
  const before = stored(script);
  script.wait(script.cut());
  script.core.pollAction();
  script.open();
  script.signIn({ epoch: EPOCH + 1n });
  const after = stored(script, before);
  assert.deepEqual(after.conversations, []);
  assert.deepEqual([after.device.epoch, after.device.syncToken.length], [EPOCH + 1n, 0]);
  assert.deepEqual(
    after.outbox.map(({ clientMessageId }) => clientMessageId),
    ["m1"],
  );
});

test("nothing is to be stored when nothing has changed", () => {
  const script = Script.live();
  stored(script);
  script.wait(30_000);
  script.core.received(Uint8Array.of(0), script.nowMs);
  script.push({ case: "syncHint", value: create(SyncHintSchema, { inboxVersion: 10n }) });
  assert.equal(script.core.takeChanges(), undefined);
});

test("what a failed save held is saved with what came since", () => {
  const script = Script.live({ keepsEntries: true });
  script.send("m1");
  script.send("m2");
  script.push(pushed(ANN_BOB, entry(1n)));
  const failed = script.core.takeChanges();
  assert.ok(failed !== undefined);
  const first = script.nextSend();
  script.answer(first.request, ack(ANN_BOB, 2n));
  script.core.putBackChanges(failed);
  const changes = script.core.takeChanges();
  const after = applied(undefined, changes);
  assert.deepEqual(
    after?.outbox.map(({ clientMessageId }) => clientMessageId),
    ["m2"],
  );
  assert.deepEqual(
    changes?.entries.map(({ seq }) => seq),
    [1n, 2n],
  );
  assert.deepEqual(
    changes?.outboxRemoved.map(({ clientMessageId }) => clientMessageId),
    ["m1"],
  );
});

test("what waits for a storage that fails does not grow with the sends that end", () => {
  const script = Script.live();
  stored(script);
  const end = (seq: bigint) => script.answer(script.nextSend().request, ack(ANN_BOB, seq));
  for (let seq = 1n; seq <= 100n; seq++) {
    script.send(`m${seq}`);
    end(seq);
  }
  assert.deepEqual(script.core.takeChanges()?.outboxRemoved, [], "what was never stored need not be removed");
  // Each of these ends while a save is under way, and then fails: it may have been stored.
  for (let seq = 101n; seq <= 1_200n; seq++) {
    script.send(`m${seq}`);
    const failed = script.core.takeChanges()!;
    end(seq);
    script.core.putBackChanges(failed);
  }
  const changes = script.core.takeChanges();
  assert.deepEqual([changes?.outboxAdded.length, changes?.outboxRemoved.length], [0, 1_000]);
  assert.equal(changes?.outboxRemoved.at(-1)?.clientMessageId, "m1200");
});

test("an id used again before its end was stored is stored", () => {
  const script = Script.live();
  script.send("m1");
  const before = stored(script);
  script.answer(script.nextSend().request, ack(ANN_BOB, 1n));
  script.send("m1");
  assert.deepEqual(
    stored(script, before).outbox.map(({ clientMessageId }) => clientMessageId),
    ["m1"],
  );
});

test("a storage that has lost everything is given everything", () => {
  const script = Script.live();
  script.send("m1");
  script.push(pushed(ANN_BOB, entry(1n)));
  const all = stored(script);
  script.send("m2");
  const failed = script.core.takeChanges();
  assert.ok(failed !== undefined);
  script.core.putBackChanges(failed);
  script.core.saveAgain();
  const again = stored(script);
  assert.deepEqual([again.device, again.conversations], [all.device, all.conversations]);
  assert.deepEqual(
    again.outbox.map(({ clientMessageId }) => clientMessageId).sort(),
    ["m1", "m2"],
  );
});

test("a damaged state is refused", () => {
  const damaged = stored(Script.live());
  const conversations = [{ conversation: "no id", seq: 1n, ordinal: 1n, headSeq: 1n, state: undefined }];
  assert.throws(() => new Core(config(), seeded(1), { ...damaged, conversations }), DamagedStateError);
});
