// Claims about commands other than sends: one id until the final answer (contract C2, C5).
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { FullError } from "../dist/errors.js";
import {
  CommandAckSchema,
  CreateGroupSchema,
  ErrorClass,
  ErrorCode,
  MarkReadSchema,
  ReadMarkedSchema,
} from "../dist/gen/client_pb.js";
import { groupConversationId } from "../dist/ids.js";
import { ANN_BOB, EPOCH, Script, entry, error, pushed } from "./script.js";

function createGroup(script: Script): number {
  const value = create(CreateGroupSchema, { name: "club", userIds: ["bob"] });
  return script.core.request({ case: "createGroup", value }, script.nowMs);
}

function nextCreate(script: Script): { request: bigint; id: string } {
  const { requestId, command } = script.next();
  assert.ok(command.case === "createGroup", command.case);
  return { request: requestId, id: command.value.commandId };
}

test("a command is repeated with the same id until its final answer", () => {
  const script = Script.live();
  const ticket = createGroup(script);
  const first = nextCreate(script);
  script.answer(first.request, error(ErrorClass.UNKNOWN, ErrorCode.TIMED_OUT));
  script.waitForDeadline();
  assert.equal(nextCreate(script).id, first.id);
  script.reconnect();
  script.expectSync("t1");
  const again = nextCreate(script);
  assert.equal(again.id, first.id);
  const group = groupConversationId("ann", first.id);
  script.events();
  const value = create(CommandAckSchema, { conversationId: group, epoch: EPOCH, seq: 1n });
  script.answer(again.request, { case: "commandAck", value });
  const [answered] = script.events();
  assert.ok(answered?.kind === "answered" && answered.ticket === ticket && answered.answer.case === "commandAck");
  // The ack names an entry that exists; what it says is read from the log.
  script.expectPull(group, 1n);
});

test("a send behind a group command names it", () => {
  const script = Script.live();
  createGroup(script);
  const { id } = nextCreate(script);
  const group = groupConversationId("ann", id);
  script.send("m1", { conversation: group });
  script.send("m2", { conversation: group });
  assert.equal(script.nextSend().after, id);
  assert.equal(script.nextSend().after, "m1");
  script.send("other");
  assert.equal(script.nextSend().after, "");
});

test("an answer this client does not know ends a request", () => {
  const script = Script.live();
  const ticket = createGroup(script);
  const { request } = nextCreate(script);
  // Field 1000 of a frame, empty: what a later server may say.
  script.core.received(Uint8Array.of(5, 8, Number(request), 0xc2, 0x3e, 0), script.nowMs);
  const [answered] = script.events();
  assert.ok(answered?.kind === "answered" && answered.ticket === ticket && answered.answer.case === "unknown");
});

test("a final refusal ends a command", () => {
  const script = Script.live();
  const ticket = createGroup(script);
  script.answer(nextCreate(script).request, error(ErrorClass.FINAL, ErrorCode.TOO_LARGE));
  const [refused] = script.events();
  assert.ok(refused?.kind === "request-refused" && refused.ticket === ticket);
  script.wait(60_000);
  assert.ok(script.isSilent());
});

test("a cursor names the epoch it belongs to, and moves what is unread", () => {
  const script = Script.live();
  for (let seq = 1n; seq <= 5n; seq++) script.push(pushed(ANN_BOB, entry(seq)));
  assert.equal(script.core.conversations.view(ANN_BOB)?.unread, 5);
  const value = create(MarkReadSchema, { conversationId: ANN_BOB, seq: 3n });
  script.core.request({ case: "markRead", value }, script.nowMs);
  const { requestId, command } = script.next();
  assert.ok(command.case === "markRead");
  assert.deepEqual([command.value.epoch, command.value.seq], [EPOCH, 3n]);
  assert.match(command.value.commandId, /^[A-Za-z0-9_-]{22}$/);
  const marked = create(ReadMarkedSchema, { conversationId: ANN_BOB, epoch: EPOCH, readSeq: 3n, readOrdinal: 3n });
  script.answer(requestId, { case: "readMarked", value: marked });
  assert.equal(script.core.conversations.view(ANN_BOB)?.unread, 2);
});

test("one more request than may wait is refused", () => {
  const script = Script.live({ requestsMax: 3 });
  for (let n = 0; n < 3; n++) createGroup(script);
  assert.throws(() => createGroup(script), FullError);
});

test("ids made by the client differ", () => {
  const script = Script.live();
  const ids = Array.from({ length: 100 }, () => {
    createGroup(script);
    return nextCreate(script).id;
  });
  assert.equal(new Set(ids).size, 100);
});
