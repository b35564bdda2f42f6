// Claims about receiving: each entry once, in order, without a hole (contract C3, C4).
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { EntrySchema, ErrorClass, ErrorCode, PulledSchema, SyncHintSchema } from "../dist/gen/client_pb.js";
import { ANN_BOB, EPOCH, Script, USER_LOG, ack, entry, error, pulled, pushed, state, synced } from "./script.js";

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => BigInt(from + at));

test("entries that come twice are handed over once", () => {
  const script = Script.live();
  for (const seq of [1n, 2n, 1n, 2n, 3n, 3n]) script.push(pushed(ANN_BOB, entry(seq)));
  assert.deepEqual(script.seqs(), [1n, 2n, 3n]);
  assert.ok(script.isSilent());
});

test("a gap is pulled", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(1n)));
  script.push(pushed(ANN_BOB, entry(4n)));
  assert.deepEqual(script.seqs(), [1n]);
  const pull = script.expectPull(ANN_BOB, 2n);
  script.push(pushed(ANN_BOB, entry(5n)));
  script.answer(pull, pulled(ANN_BOB, 2n, 3n, 4n));
  assert.deepEqual(script.seqs(), [2n, 3n, 4n, 5n]);
  assert.ok(script.isSilent());
});

test("pages are pulled until the head", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(5n)));
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, 1n, 2n, 9n));
  script.answer(script.expectPull(ANN_BOB, 3n), pulled(ANN_BOB, 3n, 9n, 9n));
  assert.deepEqual(script.seqs(), range(1, 9));
  assert.ok(script.isSilent());
});

test("more than 64 entries ahead are pulled instead of kept", () => {
  const script = Script.live();
  for (let seq = 2n; seq <= 100n; seq++) script.push(pushed(ANN_BOB, entry(seq)));
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, 1n, 1n, 1n));
  assert.deepEqual(script.seqs(), range(1, 65));
  script.answer(script.expectPull(ANN_BOB, 66n), pulled(ANN_BOB, 66n, 100n, 100n));
  assert.deepEqual(script.seqs(), range(66, 100));
});

test("a seq above 2^53 is exact", () => {
  const script = Script.live();
  const head = 2n ** 53n + 1n;
  script.push(pushed(ANN_BOB, entry(head + 1n)));
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, head, head + 1n, head + 1n, head));
  assert.deepEqual(script.seqs(), [head, head + 1n]);
});

test("a reader that joined later begins at its floor", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(7n)));
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, 6n, 7n, 7n, 6n));
  assert.deepEqual(script.seqs(), [6n, 7n]);
  assert.ok(script.isSilent());
});

test("a pull without an answer is repeated", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(2n)));
  script.answer(script.expectPull(ANN_BOB, 1n), error(ErrorClass.RETRY, ErrorCode.UNAVAILABLE, 100));
  script.wait(99);
  assert.ok(script.isSilent());
  script.waitForDeadline();
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, 1n, 2n, 2n));
  assert.deepEqual(script.seqs(), [1n, 2n]);
});

test("an answer that does not reach the head is asked again later and not at once", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(2n)));
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, 1n, 0n, 0n));
  assert.ok(script.isSilent());
  script.waitForDeadline();
  script.expectPull(ANN_BOB, 1n);
});

test("a pull cut off by the link is asked on the next", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(2n)));
  script.expectPull(ANN_BOB, 1n);
  script.reconnect();
  script.expectSync("t1");
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, 1n, 2n, 2n));
  assert.deepEqual(script.seqs(), [1n, 2n]);
});

test("a refused pull is told and not repeated", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(2n)));
  script.answer(script.expectPull(ANN_BOB, 1n), error(ErrorClass.FINAL, ErrorCode.NOT_ALLOWED));
  assert.deepEqual(script.kinds(), ["unreadable"]);
  assert.ok(script.isSilent());
});

test("an ack ahead of the cursor waits for what lies between", () => {
  const script = Script.live();
  script.send("m1");
  script.answer(script.nextSend().request, ack(ANN_BOB, 3n));
  assert.deepEqual(script.seqs(), []);
  script.answer(script.expectPull(ANN_BOB, 1n), pulled(ANN_BOB, 1n, 2n, 3n));
  const entries = script.events().filter((event) => event.kind === "entry");
  assert.deepEqual(
    entries.map((event) => event.entry.clientId),
    ["m1", "m2", "m1"],
  );
  assert.equal(entries[2]?.entry.senderUserId, "ann");
});

test("pushes of another epoch are ignored", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(1n), EPOCH + 1n));
  assert.deepEqual(script.events(), []);
});

test("the user's own cursor is told from its log, without a gap", () => {
  const script = Script.live();
  script.push({ case: "syncHint", value: create(SyncHintSchema, {}) });
  const known = synced("t2", { conversations: [state(ANN_BOB, 0n, { headOrdinal: 20n })] });
  script.answer(script.expectSync("t1"), known);
  script.events();
  const moved = (seq: bigint) => {
    const value = { conversationId: ANN_BOB, seq: 10n + seq, ordinal: 10n + seq };
    return create(EntrySchema, { seq, content: { case: "readMoved", value: value as never } });
  };
  const reads = () => script.events().flatMap((event) => (event.kind === "conversation" ? [event.conversation] : []));
  // The sync before this covered the log up to 2.
  script.push(pushed(USER_LOG, moved(4n)));
  assert.deepEqual(reads(), []);
  const entries = [moved(3n), moved(4n)];
  const answer = create(PulledSchema, { conversationId: USER_LOG, epoch: EPOCH, headSeq: 4n, floorSeq: 1n, entries });
  script.answer(script.expectPull(USER_LOG, 3n), { case: "pulled", value: answer });
  assert.deepEqual(
    reads().map(({ readSeq, unread }) => [readSeq, unread]),
    [[14n, 6]],
  );
  assert.deepEqual(script.seqs(), []);
});
