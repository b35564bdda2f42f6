// A server that keeps the contract and is as unkind as the contract allows.
//
// In: frames of connections. Out: answers and pushes, late, lost (pushes only), doubled, out of order; errors of every
// class. Always: what is stored follows the contract: one order, one entry for an id, `after` obeyed, also for copies
// of ended connections that arrive late.
import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import * as wire from "../dist/gen/client_pb.js";
import { directConversationId } from "../dist/ids.js";
import type { Chance } from "./chance.js";

export const EPOCH = 5n;
const PULL_ENTRIES_MAX = 3;
const SYNC_PAGE_MAX = 2;

type Body = wire.ServerFrame["body"];
export type Upstream = "heartbeat" | wire.ClientFrame;

export interface Connection {
  readonly user: string;
  /** False: the link has ended; what was sent on it may still arrive. */
  isOpen: boolean;
  readonly upstream: Upstream[];
  readonly downstream: wire.ServerFrame[];
}

function error(errorClass: wire.ErrorClass, code: wire.ErrorCode, retryAfterMs = 0): Body {
  return { case: "error", value: create(wire.ErrorSchema, { class: errorClass, code, retryAfterMs }) };
}

export class ModelServer {
  readonly logs = new Map<string, wire.Entry[]>();
  /** By user: conversation → version of its last move. */
  readonly #inboxes = new Map<string, Map<string, bigint>>();
  #version = 0n;
  /** Never empty of what ended connections had sent: copies that arrive late. */
  readonly connections: Connection[] = [];
  /** Refused for good. */
  readonly #refused = new Set<string>();
  isKind = false;
  readonly #chance: Chance;

  constructor(chance: Chance) {
    this.#chance = chance;
  }

  /** Handles one thing that some connection sent. */
  step(): void {
    const waiting = this.connections.filter(({ upstream }) => upstream.length > 0);
    if (waiting.length === 0) return;
    const connection = this.#chance.of(waiting);
    const upstream = connection.upstream.shift()!;
    if (upstream === "heartbeat") {
      const value = create(wire.SyncHintSchema, { inboxVersion: this.#version });
      return this.#push(connection, { case: "syncHint", value });
    }
    const body = this.#answer(connection, upstream.command);
    connection.downstream.push(create(wire.ServerFrameSchema, { requestId: upstream.requestId, body }));
  }

  #answer(connection: Connection, command: wire.ClientFrame["command"]): Body {
    switch (command.case) {
      case "signIn":
        return { case: "signedIn", value: signedIn(connection.user) };
      case "send":
        return this.#send(connection, command.value);
      case "pull":
        return this.#pull(command.value);
      case "sync":
        return this.#sync(connection.user, command.value);
      default:
        return assert.fail(`not asked here: ${command.case}`);
    }
  }

  #isUnkind(percent: number): boolean {
    return !this.isKind && this.#chance.below(100) < percent;
  }

  #send(from: Connection, send: wire.Send): Body {
    if (this.#isUnkind(5)) return error(wire.ErrorClass.BUSY, wire.ErrorCode.RATE_LIMITED, this.#chance.below(300));
    if (this.#isUnkind(10)) return error(wire.ErrorClass.RETRY, wire.ErrorCode.UNAVAILABLE);
    const answer = this.#decide(from, send);
    return this.#isUnkind(5) ? error(wire.ErrorClass.UNKNOWN, wire.ErrorCode.TIMED_OUT) : answer;
  }

  #decide(from: Connection, { to, clientMessageId, after, body }: wire.Send): Body {
    const peer = to.value!;
    const log = directConversationId(from.user, peer);
    const entries = this.logs.get(log) ?? [];
    this.logs.set(log, entries);
    const find = (id: string) => entries.find((one) => one.clientId === id && one.senderUserId === from.user);
    const stored = find(clientMessageId);
    if (stored !== undefined) return ack(log, stored);
    if (after !== "" && find(after) === undefined && !this.#refused.has(after)) {
      return error(wire.ErrorClass.RETRY, wire.ErrorCode.OUT_OF_ORDER);
    }
    // Whether a message may be sent is the same for every attempt.
    if (clientMessageId.endsWith("13")) {
      this.#refused.add(clientMessageId);
      return error(wire.ErrorClass.FINAL, wire.ErrorCode.NOT_ALLOWED);
    }
    const seq = BigInt(entries.length + 1);
    const content = { case: "message" as const, value: create(wire.MessageSchema, { body, toUserId: peer }) };
    const [senderUserId, clientId, serverTimeMs] = [from.user, clientMessageId, 1n];
    const entry = create(wire.EntrySchema, { seq, ordinal: seq, serverTimeMs, senderUserId, clientId, content });
    entries.push(entry);
    this.#deliver(from, [from.user, peer], log, entry);
    return ack(log, entry);
  }

  #deliver(from: Connection, users: string[], log: string, entry: wire.Entry): void {
    this.#version += 1n;
    for (const user of users) {
      const inbox = this.#inboxes.get(user) ?? new Map<string, bigint>();
      this.#inboxes.set(user, inbox.set(log, this.#version));
    }
    for (const connection of this.connections) {
      if (connection === from || !users.includes(connection.user) || this.#isUnkind(30)) continue;
      const value = create(wire.EntryPushedSchema, { conversationId: log, epoch: EPOCH, entry });
      for (let copies = this.#isUnkind(10) ? 2 : 1; copies > 0; copies--)
        this.#push(connection, { case: "entry", value });
      // A push may overtake what was said before it.
      if (this.#chance.below(5) === 0) connection.downstream.push(...connection.downstream.splice(-2).reverse());
    }
  }

  #push(connection: Connection, body: Body): void {
    connection.downstream.push(create(wire.ServerFrameSchema, { body }));
  }

  #pull({ conversationId, fromSeq }: wire.Pull): Body {
    if (this.#isUnkind(20)) return error(wire.ErrorClass.RETRY, wire.ErrorCode.UNAVAILABLE, 10);
    const all = this.logs.get(conversationId) ?? [];
    const headSeq = BigInt(all.length);
    assert.ok(fromSeq >= 1n && fromSeq <= headSeq + 1n, "a pull above the head");
    const entries = all.slice(Number(fromSeq) - 1).slice(0, PULL_ENTRIES_MAX);
    return {
      case: "pulled",
      value: create(wire.PulledSchema, { conversationId, epoch: EPOCH, headSeq, floorSeq: 1n, entries }),
    };
  }

  #sync(user: string, { token }: wire.Sync): Body {
    if (this.#isUnkind(20)) return error(wire.ErrorClass.BUSY, wire.ErrorCode.OVERLOAD, 10);
    const after = token.length === 0 ? 0n : Buffer.from(token).readBigUInt64BE();
    const inbox = [...(this.#inboxes.get(user) ?? [])].filter(([, version]) => version > after);
    const moved = inbox.sort((a, b) => Number(a[1] - b[1])).slice(0, SYNC_PAGE_MAX);
    const complete = inbox.length <= SYNC_PAGE_MAX;
    const covered = complete ? this.#version : moved.at(-1)![1];
    const conversations = moved.map(([conversationId]) => {
      const head = BigInt(this.logs.get(conversationId)!.length);
      const value = { conversationId, headSeq: head, headOrdinal: head, floorSeq: 1n, member: true };
      return create(wire.ConversationStateSchema, value);
    });
    const next = Buffer.alloc(8);
    next.writeBigUInt64BE(covered);
    const value = { token: new Uint8Array(next), complete, epoch: EPOCH, inboxVersion: covered, conversations };
    return { case: "synced", value: create(wire.SyncedSchema, value) };
  }
}

function ack(conversationId: string, { seq, ordinal, serverTimeMs }: wire.Entry): Body {
  return {
    case: "sendAck",
    value: create(wire.SendAckSchema, { conversationId, epoch: EPOCH, seq, serverTimeMs, ordinal }),
  };
}

function signedIn(userId: string): wire.SignedIn {
  return create(wire.SignedInSchema, {
    userId,
    epoch: EPOCH,
    generation: 1n,
    heartbeatIntervalMs: 1_000,
    idleTimeoutMs: 5_000,
    frameBytesMax: 10_000,
    pendingSendsMax: 6,
  });
}
