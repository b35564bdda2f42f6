// Claims about sends: order, repetition, what ends them (contract C2, C3).
import assert from "node:assert/strict";
import { test } from "node:test";
import { FullError, RefusedError } from "../dist/errors.js";
import { ErrorClass, ErrorCode } from "../dist/gen/client_pb.js";
import { ANN_BOB, Script, ack, error } from "./script.js";

const named = (sends: { id: string; after: string }[]) => sends.map(({ id, after }) => [id, after]);
const retry = () => error(ErrorClass.RETRY, ErrorCode.OUT_OF_ORDER);

test("a send is acked and handed over as an entry once", () => {
  const script = Script.live();
  const ticket = script.send("m1");
  script.answer(script.nextSend().request, ack(ANN_BOB, 1n));
  const [acked, entry, ...rest] = script.events();
  assert.ok(acked?.kind === "acked" && acked.ticket === ticket && acked.sent.seq === 1n);
  assert.ok(entry?.kind === "entry" && entry.entry.clientId === "m1" && entry.entry.ordinal === 1n);
  assert.deepEqual(
    rest.map(({ kind }) => kind),
    ["conversation"],
  );
  assert.ok(script.isSilent());
});

test("a send is repeated with the same id until it is answered", () => {
  const script = Script.live();
  script.send("m1");
  assert.deepEqual(named(script.nextSends(1)), [["m1", ""]]);
  for (let time = 0; time < 3; time++) {
    script.reconnect();
    script.expectSync("t1");
    assert.deepEqual(named(script.nextSends(1)), [["m1", ""]]);
  }
  script.reconnect();
  script.expectSync("t1");
  script.answer(script.nextSend().request, ack(ANN_BOB, 1n));
  assert.ok(script.kinds().includes("acked"));
  script.reconnect();
  script.expectSync("t1");
  assert.ok(script.isSilent());
});

test("an id that the app leaves out is made once and kept over repetitions", () => {
  const script = Script.live();
  script.core.send({ user: "bob" }, new Uint8Array(), undefined, script.nowMs);
  const { id } = script.nextSend();
  assert.match(id, /^[A-Za-z0-9_-]{22}$/);
  script.reconnect();
  script.expectSync("t1");
  assert.equal(script.nextSend().id, id);
});

test("an unanswered send is repeated after ten seconds, under another request id", () => {
  const script = Script.live();
  script.send("m1");
  const first = script.nextSend();
  script.wait(10_000);
  script.waitForDeadline();
  const second = script.nextSend();
  assert.equal(second.id, "m1");
  assert.notEqual(second.request, first.request);
});

test("pipelined sends name the one before and stop at the server's limit", () => {
  const script = Script.live();
  for (let n = 1; n <= 6; n++) script.send(`m${n}`);
  const first = script.nextSends(4);
  assert.deepEqual(named(first), [
    ["m1", ""],
    ["m2", "m1"],
    ["m3", "m2"],
    ["m4", "m3"],
  ]);
  assert.ok(script.isSilent(), "a fifth send above pendingSendsMax");
  script.answer(first[0]!.request, ack(ANN_BOB, 1n));
  assert.deepEqual(named(script.nextSends(1)), [["m5", "m4"]]);
});

test("sends behind a retry are resent in order, with `after` computed anew", () => {
  const script = Script.live();
  for (let n = 1; n <= 3; n++) script.send(`m${n}`);
  const first = script.nextSends(3);
  script.answer(first[0]!.request, ack(ANN_BOB, 1n));
  script.answer(first[1]!.request, error(ErrorClass.RETRY, ErrorCode.UNAVAILABLE, 500));
  script.answer(first[2]!.request, retry());
  assert.ok(script.isSilent(), "repeated before the delay the server asked for");
  script.wait(499);
  assert.ok(script.isSilent());
  script.waitForDeadline();
  assert.deepEqual(named(script.nextSends(2)), [
    ["m2", ""],
    ["m3", "m2"],
  ]);
  assert.ok(script.isSilent());
});

test("an error to an attempt that was given up changes nothing", () => {
  const script = Script.live();
  script.send("m1");
  script.send("m2");
  const first = script.nextSends(2);
  script.answer(first[0]!.request, retry());
  script.waitForDeadline();
  const second = script.nextSends(2);
  script.answer(first[1]!.request, error(ErrorClass.FINAL, ErrorCode.NOT_ALLOWED));
  assert.deepEqual(script.events(), []);
  script.answer(second[0]!.request, ack(ANN_BOB, 1n));
  script.answer(second[1]!.request, ack(ANN_BOB, 2n));
  assert.deepEqual(script.seqs(), [1n, 2n]);
});

test("an ack to an attempt that was given up counts", () => {
  const script = Script.live();
  script.send("m1");
  script.send("m2");
  const first = script.nextSends(2);
  script.answer(first[0]!.request, error(ErrorClass.UNKNOWN, ErrorCode.TIMED_OUT));
  script.answer(first[1]!.request, ack(ANN_BOB, 2n));
  script.expectPull(ANN_BOB, 1n);
  script.waitForDeadline();
  assert.deepEqual(named(script.nextSends(1)), [["m1", ""]]);
  assert.ok(script.isSilent(), "m2 is stored");
});

test("a final refusal ends one send and not those behind it", () => {
  const script = Script.live();
  const ticket = script.send("m1");
  script.send("m2");
  const first = script.nextSends(2);
  script.answer(first[0]!.request, error(ErrorClass.FINAL, ErrorCode.CONFLICT));
  const [refused] = script.events();
  assert.ok(refused?.kind === "refused" && refused.ticket === ticket && refused.refusal.code === ErrorCode.CONFLICT);
  script.answer(first[1]!.request, ack(ANN_BOB, 1n));
  assert.deepEqual(script.seqs(), [1n]);
  assert.ok(script.isSilent());
});

test("BUSY pauses every conversation for as long as the server asked", () => {
  const script = Script.live();
  script.send("m1");
  script.answer(script.nextSend().request, error(ErrorClass.BUSY, ErrorCode.RATE_LIMITED, 300));
  script.send("other", { user: "cid" });
  assert.ok(script.isSilent());
  script.wait(299);
  assert.ok(script.isSilent());
  script.wait(5_000);
  assert.deepEqual(
    script
      .nextSends(2)
      .map(({ id }) => id)
      .sort(),
    ["m1", "other"],
  );
});

test("a user and its conversation share one lane", () => {
  const script = Script.live();
  script.send("m1");
  script.send("m2", { conversation: ANN_BOB });
  assert.deepEqual(named(script.nextSends(2)), [
    ["m1", ""],
    ["m2", "m1"],
  ]);
});

test("a send above the frame limit is refused here and the connection lives", () => {
  const script = Script.live();
  script.send("m1");
  script.send("large", { user: "bob" }, "x".repeat(2_000));
  script.send("m2");
  const [refused] = script.events();
  assert.ok(refused?.kind === "refused" && refused.refusal.code === ErrorCode.TOO_LARGE);
  assert.deepEqual(named(script.nextSends(2)), [
    ["m1", ""],
    ["m2", "m1"],
  ]);
});

test("a full outbox refuses the next send", () => {
  const script = Script.live({ outboxSendsMax: 10 });
  for (let n = 0; n < 10; n++) script.send(`m${n}`);
  assert.throws(() => script.send("one-more"), FullError);
  assert.equal(script.core.pending().length, 10);
});

test("the same id twice, unanswered, is one send; with another body a conflict", () => {
  const script = Script.live();
  const ticket = script.send("m1");
  assert.equal(script.send("m1"), ticket);
  assert.throws(
    () => script.send("m1", { user: "bob" }, "else"),
    (thrown: unknown) => {
      return thrown instanceof RefusedError && thrown.code === ErrorCode.CONFLICT;
    },
  );
  script.nextSend();
  assert.ok(script.isSilent());
});

test("what is no id is refused before anything is queued", () => {
  const script = Script.live();
  assert.throws(() => script.send("m1", { user: "b o b" }), TypeError);
  assert.throws(() => script.send("m1", { conversation: "" }), TypeError);
  assert.throws(() => script.send("no id"), TypeError);
  assert.ok(script.isSilent() && script.core.pending().length === 0);
});
