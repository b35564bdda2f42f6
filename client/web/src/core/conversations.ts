// What this user knows of its conversations: names, cursors, unread.
//
// In: states that sync tells, entries handed over, cursors that moved. Out: the app's view of a conversation. Always:
// cursors only rise; unread = head ordinal − the higher of read and floor ordinal, and 0 where that is negative.
// Bounded by the conversations of the user.
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Conversation } from "../events.js";
import { type ConversationState, ConversationStateSchema, type Entry } from "../gen/client_pb.js";

export class Conversations {
  readonly #user: string;
  readonly #states = new Map<string, ConversationState>();
  /** The server told of them, or was asked to. */
  readonly #told = new Set<string>();
  /** The app is to be told. */
  readonly #moved = new Set<string>();
  readonly #listener: (log: string) => void;

  constructor(user: string, moved: (log: string) => void) {
    this.#user = user;
    this.#listener = moved;
  }

  /** From the storage. The app is told of it, as it may hold nothing itself. */
  load(encoded: Uint8Array): void {
    const state = fromBinary(ConversationStateSchema, encoded);
    this.#states.set(state.conversationId, state);
    this.#told.add(state.conversationId);
    this.#moved.add(state.conversationId);
  }

  encoded(log: string): Uint8Array | undefined {
    const state = this.#states.get(log);
    return state && toBinary(ConversationStateSchema, state);
  }

  forget(): void {
    this.#states.clear();
    this.#told.clear();
    this.#moved.clear();
  }

  /** As sync tells it; what was pushed since may be ahead of it. */
  told(state: ConversationState): void {
    const known = this.#state(state.conversationId);
    known.peerUserId = state.peerUserId || known.peerUserId;
    known.groupName = state.groupName || known.groupName;
    known.member = state.member;
    raise(known, "headSeq", state.headSeq, "headOrdinal", state.headOrdinal);
    raise(known, "readSeq", state.readSeq, "readOrdinal", state.readOrdinal);
    raise(known, "floorSeq", state.floorSeq, "floorOrdinal", state.floorOrdinal);
    if (state.peerReadSeq > known.peerReadSeq) known.peerReadSeq = state.peerReadSeq;
    this.#told.add(state.conversationId);
    this.#touch(state.conversationId);
  }

  /** The next entry. True if the server should be asked what conversation this is; once for each. */
  entry(log: string, entry: Entry): boolean {
    const state = this.#state(log);
    raise(state, "headSeq", entry.seq, "headOrdinal", entry.ordinal);
    const isOwn = entry.senderUserId === this.#user;
    // Whoever writes has read what was there.
    if (isOwn) raise(state, "readSeq", entry.seq, "readOrdinal", entry.ordinal);
    this.#readContent(state, entry, isOwn);
    this.#touch(log);
    if (this.#told.has(log) || state.peerUserId !== "") return false;
    this.#told.add(log);
    return true;
  }

  #readContent(state: ConversationState, entry: Entry, isOwn: boolean): void {
    const { content } = entry;
    switch (content.case) {
      case "message":
        if (kindOf(state.conversationId) === "direct") {
          state.peerUserId = isOwn ? content.value.toUserId || state.peerUserId : entry.senderUserId;
        }
        break;
      case "groupCreated":
        state.groupName = content.value.name;
        state.member = true;
        this.#told.add(state.conversationId);
        break;
      case "membersAdded":
        if (!content.value.userIds.includes(this.#user)) break;
        state.member = true;
        // The floor of the new membership is for the server to tell.
        this.#told.delete(state.conversationId);
        break;
      case "memberRemoved":
        if (content.value.userId === this.#user) state.member = false;
        break;
      case "memberLeft":
        if (isOwn) state.member = false;
        break;
    }
  }

  /** This user's own cursor, moved by any of its devices. */
  readMoved(log: string, seq: bigint, ordinal: bigint): void {
    const state = this.#states.get(log);
    if (state === undefined || seq <= state.readSeq) return;
    raise(state, "readSeq", seq, "readOrdinal", ordinal);
    this.#touch(log);
  }

  /** Somebody else's cursor. */
  receipt(log: string, userId: string, seq: bigint): void {
    const state = this.#states.get(log);
    if (state === undefined || state.peerUserId !== userId || seq <= state.peerReadSeq) return;
    state.peerReadSeq = seq;
    this.#touch(log);
  }

  view(log: string): Conversation | undefined {
    const state = this.#states.get(log);
    if (state === undefined) return undefined;
    const covered = state.readOrdinal > state.floorOrdinal ? state.readOrdinal : state.floorOrdinal;
    const { peerUserId, groupName, member, headSeq, floorSeq, readSeq, peerReadSeq } = state;
    const unread = Math.max(0, Number(state.headOrdinal - covered));
    const kind = kindOf(log);
    return { conversation: log, kind, peerUserId, groupName, member, headSeq, floorSeq, readSeq, peerReadSeq, unread };
  }

  list(): Conversation[] {
    return [...this.#states.keys()].map((log) => this.view(log)!);
  }

  /** Takes the conversations the app is to be told of. */
  takeMoved(): Conversation[] {
    const moved = [...this.#moved].map((log) => this.view(log)!);
    this.#moved.clear();
    return moved;
  }

  #state(log: string): ConversationState {
    let state = this.#states.get(log);
    if (state === undefined) {
      state = create(ConversationStateSchema, { conversationId: log, floorSeq: 1n, member: true });
      this.#states.set(log, state);
    }
    return state;
  }

  #touch(log: string): void {
    this.#moved.add(log);
    this.#listener(log);
  }
}

type Seqs = "headSeq" | "readSeq" | "floorSeq";
type Ordinals = "headOrdinal" | "readOrdinal" | "floorOrdinal";

function raise(state: ConversationState, seqName: Seqs, seq: bigint, ordinalName: Ordinals, ordinal: bigint): void {
  if (seq > state[seqName]) state[seqName] = seq;
  if (ordinal > state[ordinalName]) state[ordinalName] = ordinal;
}

function kindOf(log: string): "direct" | "group" {
  return log.startsWith("d") ? "direct" : "group";
}
