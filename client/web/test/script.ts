// A server that says exactly what a test tells it to say.
//
// In: frames to be sent to the client. Out: the client's frames and events. Always: everything the client writes is
// decoded as the server would; nothing happens unless the test says so.
import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import type { Recipient } from "../dist/api.js";
import { Core, type CoreConfig } from "../dist/core/core.js";
import type { CoreEvent } from "../dist/core/event.js";
import { decode, delimited, frames } from "../dist/core/frames.js";
import type { RandomBytes } from "../dist/core/random.js";
import * as wire from "../dist/gen/client_pb.js";
import { directConversationId, userLogId } from "../dist/ids.js";
import type { StorageChanges, StoredState } from "../dist/storage.js";

export const EPOCH = 77n;
export const ANN_BOB = directConversationId("ann", "bob");
export const USER_LOG = userLogId("ann");

type Body = wire.ServerFrame["body"];
export type Kind = CoreEvent["kind"];

/** xorshift32: the same bytes for the same seed. */
export function seeded(seed: number): RandomBytes {
  let state = (seed * 2_654_435_761 + 1) >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state = (state ^ (state << 5)) >>> 0;
    return state >>> 24;
  };
  for (let at = 0; at < 16; at++) next();
  return (count) => Uint8Array.from({ length: count }, next);
}

export const config = (over: Partial<CoreConfig> = {}): CoreConfig => ({
  user: "ann",
  device: "phone",
  platform: "web",
  history: "all",
  outboxSendsMax: 100,
  requestsMax: 100,
  keepsEntries: false,
  renewsToken: false,
  ...over,
});

export function entry(seq: bigint, over: { sender?: string; to?: string } = {}): wire.Entry {
  const body = new TextEncoder().encode(`body ${seq}`);
  const content = { case: "message" as const, value: { body, toUserId: over.to ?? "ann" } };
  const senderUserId = over.sender ?? "bob";
  return create(wire.EntrySchema, { seq, ordinal: seq, senderUserId, clientId: `m${seq}`, content } as never);
}

export function pushed(log: string, entry: wire.Entry, epoch = EPOCH): Body {
  return { case: "entry", value: create(wire.EntryPushedSchema, { conversationId: log, epoch, entry }) };
}

export function state(log: string, headSeq: bigint, over: object = {}): wire.ConversationState {
  const value = { conversationId: log, headSeq, headOrdinal: headSeq, member: true };
  return Object.assign(create(wire.ConversationStateSchema, value), over);
}

export function synced(token: string, over: object = {}): Body {
  const bytes = new TextEncoder().encode(token);
  const value = { token: bytes, complete: true, epoch: EPOCH, inboxVersion: 10n, userLogSeq: 2n };
  return { case: "synced", value: Object.assign(create(wire.SyncedSchema, value), over) };
}

export function pulled(log: string, from: bigint, to: bigint, headSeq: bigint, floorSeq = 1n): Body {
  const entries: wire.Entry[] = [];
  for (let seq = from; seq <= to; seq++) entries.push(entry(seq));
  return {
    case: "pulled",
    value: create(wire.PulledSchema, { conversationId: log, epoch: EPOCH, headSeq, floorSeq, entries }),
  };
}

export function ack(log: string, seq: bigint): Body {
  const value = { conversationId: log, epoch: EPOCH, seq, serverTimeMs: 5n, ordinal: seq };
  return { case: "sendAck", value: create(wire.SendAckSchema, value) };
}

export function error(errorClass: wire.ErrorClass, code: wire.ErrorCode, retryAfterMs = 0): Body {
  return { case: "error", value: create(wire.ErrorSchema, { class: errorClass, code, retryAfterMs }) };
}

export function closing(code: number, reconnectAfterMs = 0): Body {
  return { case: "closing", value: create(wire.ClosingSchema, { code, reconnectAfterMs }) };
}

export class Script {
  readonly core: Core;
  nowMs = 1_000;
  heartbeats = 0;
  #frames: wire.ClientFrame[] = [];

  constructor(core: Core) {
    this.core = core;
    core.setToken("secret-token", this.nowMs);
    core.connect(this.nowMs);
    assert.equal(core.pollAction(), "connect");
    this.open();
  }

  /** Dialled; the sign-in waits for its answer. */
  static fresh(over: Partial<CoreConfig> = {}, seed = 1, stored?: StoredState): Script {
    return new Script(new Core(config(over), seeded(seed), stored));
  }

  /** Signed in and synced: nothing is unanswered. */
  static live(over: Partial<CoreConfig> = {}, seed = 1): Script {
    const script = Script.fresh(over, seed);
    script.signIn();
    script.answer(script.expectSync(""), synced("t1"));
    script.events();
    return script;
  }

  /** The socket is open; what an earlier one carried is forgotten. */
  open(): void {
    this.#frames = [];
    this.core.connected(this.nowMs);
  }

  signIn(over: { epoch?: bigint; userId?: string } = {}): wire.SignIn {
    const frame = this.next();
    assert.equal(frame.command.case, "signIn");
    const value = create(wire.SignedInSchema, {
      userId: "ann",
      deviceId: "phone",
      epoch: EPOCH,
      generation: 1n,
      heartbeatIntervalMs: 30_000,
      idleTimeoutMs: 75_000,
      frameBytesMax: 1_000,
      pendingSendsMax: 4,
      userLogId: USER_LOG,
      ...over,
    });
    this.answer(frame.requestId, { case: "signedIn", value });
    return frame.command.value as wire.SignIn;
  }

  send(id: string, to: Recipient = { user: "bob" }, body = id): number {
    return this.core.send(to, new TextEncoder().encode(body), id, this.nowMs);
  }

  answer(requestId: bigint, body: Body): void {
    const frame = toBinary(wire.ServerFrameSchema, create(wire.ServerFrameSchema, { requestId, body }));
    this.core.received(delimited(frame), this.nowMs);
  }

  push(body: Body): void {
    this.answer(0n, body);
  }

  /** The socket ends; returns after how long the client dials again. */
  cut(code?: number): number {
    this.core.disconnected(code, this.nowMs);
    assert.equal(this.core.pollAction(), "close");
    return this.core.deadlineMs(this.nowMs)! - this.nowMs;
  }

  /** Cut, dialled again, signed in. */
  reconnect(): void {
    this.wait(this.cut());
    assert.equal(this.core.pollAction(), "connect");
    this.open();
    this.signIn();
  }

  wait(ms: number): void {
    this.nowMs += ms;
    this.core.timer(this.nowMs);
  }

  /** Waits until the next deadline of the client. */
  waitForDeadline(): number {
    const ms = Math.max(0, this.core.deadlineMs(this.nowMs)! - this.nowMs);
    this.wait(ms);
    return ms;
  }

  next(): wire.ClientFrame {
    const frame = this.tryNext();
    assert.ok(frame !== undefined, "a frame of the client");
    return frame;
  }

  tryNext(): wire.ClientFrame | undefined {
    for (const message of this.core.takeMessages()) {
      for (const frame of frames(message, 8_192)) {
        if (frame.length === 0) this.heartbeats += 1;
        else this.#frames.push(decode(wire.ClientFrameSchema, frame));
      }
    }
    return this.#frames.shift();
  }

  isSilent(): boolean {
    return this.tryNext() === undefined;
  }

  /** The next frame is a send. */
  nextSend(): { request: bigint; id: string; after: string } {
    const { requestId, command } = this.next();
    assert.ok(command.case === "send", `no send: ${command.case}`);
    return { request: requestId, id: command.value.clientMessageId, after: command.value.after };
  }

  nextSends(count: number): { request: bigint; id: string; after: string }[] {
    return Array.from({ length: count }, () => this.nextSend());
  }

  /** The next frame is a pull of `log` from `fromSeq`. */
  expectPull(log: string, fromSeq: bigint): bigint {
    const { requestId, command } = this.next();
    assert.ok(command.case === "pull", `no pull: ${command.case}`);
    const { conversationId, epoch } = command.value;
    assert.deepEqual([conversationId, command.value.fromSeq, epoch], [log, fromSeq, EPOCH]);
    return requestId;
  }

  expectSync(token: string): bigint {
    const { requestId, command } = this.next();
    assert.ok(command.case === "sync", `no sync: ${command.case}`);
    assert.equal(new TextDecoder().decode(command.value.token), token);
    return requestId;
  }

  /** Events since the last look. */
  events(): CoreEvent[] {
    const events: CoreEvent[] = [];
    for (let event = this.core.pollEvent(); event !== undefined; event = this.core.pollEvent()) events.push(event);
    return events;
  }

  /** Kinds of events since the last look, without those of states and conversations. */
  kinds(): Kind[] {
    return this.events()
      .map(({ kind }) => kind)
      .filter((kind) => kind !== "state" && kind !== "conversation");
  }

  /** The seqs of the entries handed over since the last look. */
  seqs(): bigint[] {
    return this.events().flatMap((event) => (event.kind === "entry" ? [event.entry.seq] : []));
  }

  stateName(): string {
    return this.core.state(this.nowMs).name;
  }
}

/** Applies changes as a storage does. */
export function applied(stored: StoredState | undefined, changes: StorageChanges | undefined): StoredState | undefined {
  if (changes === undefined) return stored;
  const conversations = new Map(
    changes.forget === "nothing" ? stored?.conversations.map((one) => [one.conversation, one]) : [],
  );
  for (const one of changes.conversations) conversations.set(one.conversation, one);
  const key = (send: { conversation: string; clientMessageId: string }) =>
    `${send.conversation} ${send.clientMessageId}`;
  const outbox = new Map(changes.forget === "all" ? [] : stored?.outbox.map((one) => [key(one), one]));
  for (const one of changes.outboxAdded) outbox.set(key(one), one);
  for (const one of changes.outboxRemoved) outbox.delete(key(one));
  return { device: changes.device, conversations: [...conversations.values()], outbox: [...outbox.values()] };
}
