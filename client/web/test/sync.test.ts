// Claims about catching up (contract C4).
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ErrorClass, ErrorCode, SyncHintSchema } from "../dist/gen/client_pb.js";
import { directConversationId } from "../dist/ids.js";
import { ANN_BOB, EPOCH, Script, ack, entry, error, pulled, pushed, state, synced } from "./script.js";

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => BigInt(from + at));
const hint = (inboxVersion: bigint) => ({ case: "syncHint" as const, value: create(SyncHintSchema, { inboxVersion }) });

test("sync goes on page by page until complete and pulls what moved", () => {
  const script = Script.fresh();
  script.signIn();
  script.answer(script.expectSync(""), synced("p1", { complete: false, conversations: [state(ANN_BOB, 2n)] }));
  const sync = script.expectSync("p1");
  const pull = script.expectPull(ANN_BOB, 1n);
  script.answer(sync, synced("p2"));
  assert.ok(!script.kinds().includes("synced"), "told before the entries");
  assert.equal(script.stateName(), "syncing");
  script.answer(pull, pulled(ANN_BOB, 1n, 2n, 2n));
  assert.deepEqual(script.kinds(), ["entry", "entry", "synced"]);
  assert.equal(script.stateName(), "live");
  assert.ok(script.isSilent());
});

test("pushes during sync are applied after it", () => {
  const script = Script.fresh();
  script.signIn();
  const sync = script.expectSync("");
  script.push(pushed(ANN_BOB, entry(3n)));
  script.push(pushed(ANN_BOB, entry(4n)));
  assert.deepEqual(script.seqs(), []);
  assert.ok(script.isSilent(), "a gap is asked for before the sync has told of it");
  script.answer(sync, synced("t1", { conversations: [state(ANN_BOB, 2n)] }));
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, 1n, 2n, 2n));
  assert.deepEqual(script.seqs(), [1n, 2n, 3n, 4n]);
  assert.ok(script.isSilent());
});

test("sync comes before live on every connection", () => {
  const script = Script.live();
  script.reconnect();
  const sync = script.expectSync("t1");
  script.push(pushed(ANN_BOB, entry(1n)));
  assert.deepEqual(script.seqs(), []);
  script.answer(sync, synced("t2"));
  assert.deepEqual(script.seqs(), [1n]);
});

test("more pushes during sync than are kept are pulled", () => {
  const script = Script.fresh();
  script.signIn();
  const sync = script.expectSync("");
  for (let seq = 1n; seq <= 300n; seq++) script.push(pushed(ANN_BOB, entry(seq)));
  // The head of what was not kept is known at once, so the pull need not wait for the sync.
  const pull = script.expectPull(ANN_BOB, 1n);
  script.answer(sync, synced("t1"));
  assert.deepEqual(script.seqs(), range(1, 256));
  // The pull was answered before those: what it brings is known, and what it does not reach is asked for again, later.
  script.answer(pull, pulled(ANN_BOB, 1n, 200n, 300n));
  assert.deepEqual(script.seqs(), []);
  while (script.core.link.isOpen) {
    script.waitForDeadline();
    const frame = script.tryNext();
    if (frame?.command.case !== "pull") continue;
    assert.equal(frame.command.value.fromSeq, 257n);
    script.answer(frame.requestId, pulled(ANN_BOB, 257n, 300n, 300n));
    break;
  }
  assert.deepEqual(script.seqs(), range(257, 300));
});

test("a sync hint is a sync unless it was covered", () => {
  const script = Script.live();
  script.push(hint(10n));
  assert.ok(script.isSilent(), "the last sync covered version 10");
  script.push(hint(11n));
  const sync = script.expectSync("t1");
  script.push(hint(12n));
  script.answer(sync, synced("t2"));
  script.expectSync("t2");
});

test("a live client stays live while a hint is followed", () => {
  const script = Script.live();
  script.push(hint(11n));
  script.expectSync("t1");
  assert.equal(script.stateName(), "live");
});

test("a new epoch forgets cursors and conversations, and keeps sends", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(1n)));
  script.send("m1");
  script.wait(script.cut());
  script.core.pollAction();
  script.open();
  script.events();
  script.signIn({ epoch: EPOCH + 1n });
  assert.ok(script.kinds().includes("reset"));
  assert.deepEqual(script.core.conversations.list(), []);
  script.expectSync("");
  assert.equal(script.nextSend().id, "m1");
});

test("RESET forgets cursors", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(1n)));
  assert.deepEqual(script.seqs(), [1n]);
  script.push(hint(0n));
  script.answer(script.expectSync("t1"), error(ErrorClass.FINAL, ErrorCode.RESET));
  assert.deepEqual(script.kinds(), ["reset"]);
  script.answer(script.expectSync(""), synced("n1", { conversations: [state(ANN_BOB, 1n)] }));
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, 1n, 1n, 1n));
  assert.deepEqual(script.seqs(), [1n]);
});

test("any other final refusal of a sync forgets nothing, is told once, and asks again later", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(1n)));
  script.push(hint(0n));
  script.events();
  let waitedMs = 0;
  for (let time = 0; time < 10; time++) {
    script.answer(script.expectSync("t1"), error(ErrorClass.FINAL, ErrorCode.INVALID_ARGUMENT));
    assert.deepEqual(script.kinds(), time === 0 ? ["sync-refused"] : []);
    assert.ok(script.isSilent(), "asked again at once");
    waitedMs += script.waitForDeadline();
  }
  assert.ok(waitedMs > 500, String(waitedMs));
  script.answer(script.expectSync("t1"), synced("t2", { conversations: [state(ANN_BOB, 2n)] }));
  script.answer(script.expectPull(ANN_BOB, 2n), pulled(ANN_BOB, 2n, 2n, 2n));
  assert.deepEqual(script.seqs(), [2n]);
});

test("a RESET during a sync voids its answer", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(2n)));
  const pull = script.expectPull(ANN_BOB, 1n);
  script.push(hint(0n));
  const voided = script.expectSync("t1");
  script.answer(pull, error(ErrorClass.FINAL, ErrorCode.RESET));
  const sync = script.expectSync("");
  script.answer(voided, synced("void"));
  assert.ok(!script.kinds().includes("synced") && script.isSilent());
  script.answer(sync, synced("n1"));
  assert.ok(script.kinds().includes("synced"));
});

test("a failed sync is repeated, not before the server's delay", () => {
  const script = Script.fresh();
  script.signIn();
  script.answer(script.expectSync(""), error(ErrorClass.BUSY, ErrorCode.OVERLOAD, 200));
  script.wait(199);
  assert.ok(script.isSilent());
  script.waitForDeadline();
  script.expectSync("");
});

test("a device that wants no history begins behind the heads", () => {
  const script = Script.fresh({ history: "from-now" });
  script.signIn();
  const other = directConversationId("ann", "cid");
  script.answer(script.expectSync(""), synced("p1", { complete: false, conversations: [state(ANN_BOB, 9n)] }));
  script.answer(script.expectSync("p1"), synced("t1", { conversations: [state(other, 5n)] }));
  assert.ok(script.isSilent() && script.kinds().includes("synced"));
  script.push(pushed(ANN_BOB, entry(10n)));
  assert.deepEqual(script.seqs(), [10n]);
});

test("a device that wants no history is told what it writes itself while it begins", () => {
  const script = Script.fresh({ history: "from-now" });
  script.signIn();
  const sync = script.expectSync("");
  script.send("m10");
  script.answer(script.nextSend().request, ack(ANN_BOB, 10n));
  script.push(pushed(ANN_BOB, entry(12n)));
  const other = directConversationId("ann", "cid");
  script.answer(sync, synced("p1", { complete: false, conversations: [state(other, 9n)] }));
  script.answer(script.expectSync("p1"), synced("t1", { conversations: [state(ANN_BOB, 12n)] }));
  assert.deepEqual(script.seqs(), [10n]);
  script.answer(script.expectPull(ANN_BOB, 11n), pulled(ANN_BOB, 11n, 11n, 12n));
  assert.deepEqual(script.seqs(), [11n, 12n]);
  assert.ok(script.isSilent());
});
