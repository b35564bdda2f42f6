// Claims about commands other than sends: one id until the final answer (contract C2, C5).
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { FullError } from "../dist/errors.js";
import {
  AddMembersSchema,
  CommandAckSchema,
  CreateGroupSchema,
  ErrorClass,
  ErrorCode,
  LeaveGroupSchema,
  ListMembersSchema,
  MarkReadSchema,
  ReadMarkedSchema,
} from "../dist/gen/client_pb.js";
import { groupConversationId } from "../dist/ids.js";
import { ANN_BOB, EPOCH, Script, ack, entry, error, pushed } from "./script.js";

function createGroup(script: Script): number {
  const value = create(CreateGroupSchema, { name: "club", userIds: ["bob"] });
  return script.core.request({ case: "createGroup", value }, script.nowMs);
}

function nextCreate(script: Script): { request: bigint; id: string } {
  const { requestId, command } = script.next();
  assert.ok(command.case === "createGroup", command.case);
  return { request: requestId, id: command.value.commandId };
}

const GROUP = groupConversationId("ann", "club");

interface Write {
  request: bigint;
  id: string;
  after: string;
}

/** The next frame is a command that writes to a group. */
function nextWrite(script: Script): Write {
  const { requestId: request, command } = script.next();
  switch (command.case) {
    case "send":
      return { request, id: command.value.clientMessageId, after: command.value.after };
    case "addMembers":
    case "removeMember":
    case "leaveGroup":
      return { request, id: command.value.commandId, after: command.value.after };
    default:
      return assert.fail(`writes to no group: ${command.case}`);
  }
}

const nextWrites = (script: Script, count: number) => Array.from({ length: count }, () => nextWrite(script));
const named = (writes: Write[]) => writes.map(({ id, after }) => [id, after]);
const RETRY = error(ErrorClass.RETRY, ErrorCode.OUT_OF_ORDER);

/** m1, then a group command, then m2 of one device. */
function messageAddMessage(script: Script): void {
  script.send("m1", { conversation: GROUP });
  const value = create(AddMembersSchema, { commandId: "g1", conversationId: GROUP, userIds: ["cid"] });
  script.core.request({ case: "addMembers", value }, script.nowMs);
  script.send("m2", { conversation: GROUP });
}

/** Until nothing waits that would be repeated soon. */
function waitForRepetitions(script: Script): void {
  while ((script.core.deadlineMs(script.nowMs) ?? Infinity) < script.nowMs + 1_000) script.waitForDeadline();
}

test("a group command between two sends keeps their order when the first is refused", () => {
  const script = Script.live();
  messageAddMessage(script);
  const first = nextWrites(script, 3);
  // Without a link from g1 to m1 a server that refused m1 would store g1, and m2 behind it: before m1.
  const chain = [
    ["m1", ""],
    ["g1", "m1"],
    ["m2", "g1"],
  ];
  assert.deepEqual(named(first), chain);
  script.answer(first[0]!.request, error(ErrorClass.BUSY, ErrorCode.RATE_LIMITED, 50));
  for (const { request } of first.slice(1)) script.answer(request, RETRY);
  assert.ok(script.isSilent());
  waitForRepetitions(script);
  assert.deepEqual(named(nextWrites(script, 3)), chain);
  assert.ok(script.isSilent());
});

test("a refused group command takes everything behind it back and nothing before it", () => {
  const script = Script.live();
  messageAddMessage(script);
  const first = nextWrites(script, 3);
  script.answer(first[1]!.request, error(ErrorClass.UNKNOWN, ErrorCode.TIMED_OUT));
  script.answer(first[2]!.request, RETRY);
  script.answer(first[0]!.request, ack(GROUP, 2n));
  waitForRepetitions(script);
  // The send before it is stored by now.
  script.expectPull(GROUP, 1n);
  assert.deepEqual(named(nextWrites(script, 2)), [
    ["g1", ""],
    ["m2", "g1"],
  ]);
});

test("what comes behind a command refused for good names the one before it", () => {
  const script = Script.live();
  messageAddMessage(script);
  const first = nextWrites(script, 3);
  script.answer(first[1]!.request, error(ErrorClass.FINAL, ErrorCode.NOT_ALLOWED));
  assert.ok(script.kinds().includes("request-refused"));
  script.answer(first[2]!.request, RETRY);
  waitForRepetitions(script);
  assert.deepEqual(named(nextWrites(script, 1)), [["m2", "m1"]]);
});

test("commands to one conversation are written again in their order on a new connection", () => {
  const script = Script.live();
  messageAddMessage(script);
  const value = create(LeaveGroupSchema, { commandId: "g2", conversationId: GROUP });
  script.core.request({ case: "leaveGroup", value }, script.nowMs);
  nextWrites(script, 4);
  script.reconnect();
  script.expectSync("t1");
  const again = nextWrites(script, 4);
  assert.deepEqual(named(again), [
    ["m1", ""],
    ["g1", "m1"],
    ["m2", "g1"],
    ["g2", "m2"],
  ]);
  // The server stops reading behind `pendingSendsMax` commands that write; so do group commands count here.
  script.send("m3", { conversation: GROUP });
  assert.ok(script.isSilent());
  script.answer(again[0]!.request, ack(GROUP, 1n));
  assert.deepEqual(named(nextWrites(script, 1)), [["m3", "g2"]]);
});

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
  const list = () => {
    const value = create(ListMembersSchema, { conversationId: GROUP });
    return script.core.request({ case: "listMembers", value }, script.nowMs);
  };
  for (let n = 0; n < 3; n++) list();
  assert.throws(list, FullError);
});

test("one more group command than the outbox holds is refused", () => {
  const script = Script.live({ outboxSendsMax: 3 });
  for (let n = 0; n < 3; n++) createGroup(script);
  assert.throws(() => createGroup(script), FullError);
});

test("ids made by the client differ", () => {
  const script = Script.live();
  const ids = Array.from({ length: 100 }, () => {
    createGroup(script);
    const { request, id } = nextCreate(script);
    script.answer(request, error(ErrorClass.FINAL, ErrorCode.NOT_ALLOWED));
    return id;
  });
  assert.equal(new Set(ids).size, 100);
});
