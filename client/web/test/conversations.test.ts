// Claims about what the app is told of a conversation.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Entry, EntrySchema, ReceiptMovedSchema } from "../dist/gen/client_pb.js";
import { groupConversationId } from "../dist/ids.js";
import { ANN_BOB, Script, ack, entry, pulled, pushed, state, synced } from "./script.js";

const GROUP = groupConversationId("bob", "c-1");
const view = (script: Script, log: string) => script.core.conversations.view(log);

function groupEntry(seq: bigint, content: Entry["content"], senderUserId = "bob"): Entry {
  return create(EntrySchema, { seq, senderUserId, clientId: `c${seq}`, content } as never);
}

test("a message of somebody new makes a conversation with a peer, without asking the server", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(1n)));
  const { kind, peerUserId, member, unread } = view(script, ANN_BOB)!;
  assert.deepEqual([kind, peerUserId, member, unread], ["direct", "bob", true, 1]);
  assert.ok(script.isSilent());
});

test("the first own send makes a conversation with its recipient, and nothing unread", () => {
  const script = Script.live();
  script.send("m1");
  script.answer(script.nextSend().request, ack(ANN_BOB, 1n));
  const { peerUserId, unread, readSeq } = view(script, ANN_BOB)!;
  assert.deepEqual([peerUserId, unread, readSeq], ["bob", 0, 1n]);
});

test("unread is what lies behind the higher of read cursor and floor, and never negative", () => {
  const script = Script.fresh();
  script.signIn();
  const told = (over: object) => state(ANN_BOB, 50n, { headOrdinal: 40n, peerUserId: "bob", ...over });
  script.answer(script.expectSync(""), synced("t1", { conversations: [told({ readSeq: 30n, readOrdinal: 25n })] }));
  assert.equal(view(script, ANN_BOB)?.unread, 15);
  for (const [over, unread] of [
    [{ floorOrdinal: 35n }, 5],
    [{ readOrdinal: 60n }, 0],
  ] as const) {
    script.core.conversations.told(told(over));
    assert.equal(view(script, ANN_BOB)?.unread, unread);
  }
});

test("a receipt moves how far the peer read, and never back", () => {
  const script = Script.live();
  script.push(pushed(ANN_BOB, entry(1n)));
  const receipt = (readSeq: bigint, userId = "bob") =>
    script.push({ case: "receipt", value: create(ReceiptMovedSchema, { conversationId: ANN_BOB, userId, readSeq }) });
  receipt(5n);
  receipt(3n);
  receipt(9n, "cid");
  assert.equal(view(script, ANN_BOB)?.peerReadSeq, 5n);
  assert.equal(script.kinds().filter((kind) => kind === "receipt").length, 3);
});

test("a group whose creation is seen needs no question; one joined later is asked for once", () => {
  const seen = Script.live();
  const created = { case: "groupCreated" as const, value: { name: "club", userIds: ["ann", "bob"] } };
  seen.push(pushed(GROUP, groupEntry(1n, created as never)));
  assert.deepEqual([view(seen, GROUP)?.groupName, view(seen, GROUP)?.kind], ["club", "group"]);
  assert.ok(seen.isSilent());

  const joined = Script.live();
  const added = { case: "membersAdded" as const, value: { userIds: ["ann"] } };
  joined.push(pushed(GROUP, groupEntry(7n, added as never)));
  const answer = pulled(GROUP, 7n, 6n, 7n, 7n);
  const pull = joined.expectPull(GROUP, 1n);
  if (answer.case === "pulled") answer.value.entries = [groupEntry(7n, added as never)];
  joined.answer(pull, answer);
  joined.answer(joined.expectSync("t1"), synced("t2", { conversations: [state(GROUP, 7n, { groupName: "club" })] }));
  assert.equal(view(joined, GROUP)?.groupName, "club");
  joined.push(pushed(GROUP, entry(8n)));
  assert.ok(joined.isSilent());
});

test("leaving and being removed end membership", () => {
  for (const [content, sender] of [
    [{ case: "memberRemoved", value: { userId: "ann" } }, "bob"],
    [{ case: "memberLeft", value: {} }, "ann"],
  ] as const) {
    const script = Script.live();
    const created = { case: "groupCreated" as const, value: { name: "club", userIds: ["ann", "bob"] } };
    script.push(pushed(GROUP, groupEntry(1n, created as never)));
    script.push(pushed(GROUP, groupEntry(2n, content as never, sender)));
    assert.equal(view(script, GROUP)?.member, false);
  }
});
