// The client as a state machine: the parts, what goes in, what comes out.
//
// In: `connect`, what the transport saw (`connected`, `received`, `disconnected`), commands, tokens, and `timer`, each
// with the time in ms of any clock that never goes back. Out, to be taken after each input: `pollAction`,
// `takeMessages`, `pollEvent`, `deadlineMs`, `takeChanges`. Always: no socket, clock, storage or hidden randomness; an
// input never fails because of what the server sent. Events wait in a queue as long as one input makes it; a transport
// takes them all before the next.
import { create, toBinary } from "@bufbuild/protobuf";
import type { Recipient } from "../api.js";
import { FullError, RefusedError } from "../errors.js";
import type { ClientState, PendingSend } from "../events.js";
import { CloseCode, type Entry, EntrySchema, ErrorCode, ServerFrameSchema, SignInSchema } from "../gen/client_pb.js";
import { directConversationId, isId, userLogId } from "../ids.js";
import type { StorageChanges, StoredConversation, StoredSend, StoredState } from "../storage.js";
import { Changes } from "./changes.js";
import { Conversations } from "./conversations.js";
import type { CoreEvent } from "./event.js";
import { FrameError, SERVER_FRAME_BYTES_MAX, decode, frames } from "./frames.js";
import { Gaps } from "./gaps.js";
import { Heartbeat } from "./heartbeat.js";
import { type Cause, Link, type LinkAction, causeOfClose } from "./link.js";
import { Outbox, TOO_LARGE } from "./outbox.js";
import { type RandomBytes, newId, newRun } from "./random.js";
import { onFrame, onRefused, onTimeOut } from "./receive.js";
import { Requests } from "./requests.js";
import { Sync } from "./sync.js";
import { type Command, Wire } from "./wire.js";
import { type QueuedSend, toGroup } from "./write.js";

const PROTOCOL_VERSION = 1;

export interface CoreConfig {
  /** The token's subject. It is needed before sign-in, because ids of direct conversations derive from it. */
  readonly user: string;
  /** Until a token names another. */
  readonly device: string;
  readonly platform: string;
  readonly history: "all" | "from-now";
  readonly outboxSendsMax: number;
  readonly requestsMax: number;
  /** Entries are handed to the storage too. */
  readonly keepsEntries: boolean;
  /** A fresh token can be fetched. */
  readonly renewsToken: boolean;
}

/** A stored id is none. */
export class DamagedStateError extends Error {
  override readonly name = "DamagedStateError";
}

export class Core {
  readonly config: CoreConfig;
  readonly random: RandomBytes;
  readonly userLog: string;
  readonly link = new Link();
  readonly wire = new Wire();
  readonly heartbeat = new Heartbeat();
  readonly outbox = new Outbox();
  readonly requests = new Requests();
  readonly conversations: Conversations;
  readonly gaps: Gaps;
  readonly sync: Sync;
  readonly changes = new Changes();
  readonly events: CoreEvent[] = [];
  epoch = 0n;
  /** A sync of this connection is complete, and its entries are handed over. */
  isLive = false;
  renewsToken: boolean;
  #device: string;
  #token: string | undefined;
  #nextTicket = 1;
  /** Told at each sign-in with the number of the dial: one that comes late must not replace a later one. */
  readonly #run: bigint;
  /** A client that was not started yet is no news. */
  #toldState = nameOf({ name: "closed" });

  /** `stored`: goes on where an earlier run of this device stopped; its sends are in the outbox again. */
  constructor(config: CoreConfig, random: RandomBytes, stored?: StoredState) {
    this.config = config;
    this.random = random;
    this.#run = newRun(random);
    this.renewsToken = config.renewsToken;
    this.#device = config.device;
    this.userLog = userLogId(config.user);
    this.conversations = new Conversations(config.user, (log) => this.changes.log(log));
    this.gaps = new Gaps({
      handOver: (log, entry) => this.#handOver(log, entry),
      moved: (log) => this.changes.log(log),
    });
    this.sync = new Sync(stored?.device.syncToken ?? new Uint8Array());
    if (stored !== undefined) this.#restore(stored);
  }

  #restore(stored: StoredState): void {
    this.epoch = stored.device.epoch;
    for (const { conversation, seq, ordinal, headSeq, state } of stored.conversations) {
      if (!isId(conversation)) throw new DamagedStateError("a stored conversation has no id");
      this.gaps.begin(conversation, seq, ordinal, headSeq);
      if (state !== undefined) this.conversations.load(state);
    }
    for (const { place, ...send } of [...stored.outbox].sort((a, b) => a.place - b.place)) {
      if (!isId(send.conversation) || !isId(send.clientMessageId))
        throw new DamagedStateError("a stored send has no id");
      // What an earlier run accepted is kept, whatever this one's bound.
      this.outbox.add({ ...send, ticket: place });
      this.#nextTicket = Math.max(this.#nextTicket, place + 1);
    }
    this.takeChanges();
  }

  // ----------------------------------------------------------------------------------------------------- the app's side

  /** Dials, unless a link is there or on its way; not before the time the server named. */
  connect(nowMs: number): void {
    if (this.link.phase.name === "stopped") this.link.dial(this.#token !== undefined, nowMs);
    else this.link.hurry();
    this.timer(nowMs);
  }

  /** The network came back, or the page is shown again. */
  wake(nowMs: number): void {
    if (this.link.phase.name === "up") this.heartbeat.probe(nowMs);
    else this.link.hurry();
    this.timer(nowMs);
  }

  get device(): string {
    return this.#device;
  }

  /** Brings a token, and dials if one was awaited. `device`: that it is bound to, from the next sign-in on. */
  setToken(token: string, nowMs: number, device = this.#device): void {
    this.#token = token;
    if (device !== this.#device) {
      this.#device = device;
      this.changes.device();
    }
    if (this.link.phase.name === "fetching-token") this.link.dial(true, nowMs);
    this.settle(nowMs);
  }

  tokenFailed(nowMs: number): void {
    if (this.link.phase.name === "fetching-token") this.endLink({ kind: "token" }, 0, nowMs);
    this.settle(nowMs);
  }

  /** Ends the link and stays away until `connect`. */
  stop(nowMs: number): void {
    if (this.link.phase.name !== "stopped") this.endLink({ kind: "asked" }, 0, nowMs);
    this.settle(nowMs);
  }

  /** Asks what moved, now; without a connection that is the first thing the next one does. */
  syncNow(nowMs: number): void {
    if (this.link.phase.name === "up") this.sync.hint(0n);
    this.settle(nowMs);
  }

  /** Takes a send; `acked` or `refused` carries the ticket. It waits for a connection if there is none. */
  send(to: Recipient, body: Uint8Array, clientMessageId: string | undefined, nowMs: number): number {
    const conversation = "user" in to ? directConversationId(this.config.user, to.user) : to.conversation;
    const id = clientMessageId ?? newId(this.random);
    if (!isId(conversation) || !isId(id)) throw new TypeError("not an id");
    const queued = this.outbox.find(conversation, id);
    if (queued !== undefined) return sameSend(queued, body);
    if (this.outbox.count >= this.config.outboxSendsMax) throw new FullError();
    const userId = "user" in to ? to.user : undefined;
    const send: QueuedSend = { ticket: this.#ticket(), conversation, userId, clientMessageId: id, body };
    this.outbox.add(send);
    this.changes.added(send);
    this.settle(nowMs);
    return send.ticket;
  }

  /** Takes any other command; `answered` or `request-refused` carries the ticket. An empty command id is filled in. */
  request(command: Command, nowMs: number): number {
    const value = command.value;
    if (value !== undefined && "commandId" in value && value.commandId === "") value.commandId = newId(this.random);
    const write = toGroup(this.#nextTicket, this.config.user, command);
    const isFull =
      write === undefined
        ? this.requests.count >= this.config.requestsMax
        : this.outbox.count >= this.config.outboxSendsMax;
    if (isFull) throw new FullError();
    const ticket = this.#ticket();
    if (write === undefined) this.requests.add(ticket, command);
    else this.outbox.add(write);
    this.settle(nowMs);
    return ticket;
  }

  pending(): PendingSend[] {
    return this.outbox
      .list()
      .map(({ conversation, clientMessageId, body }) => ({ conversation, clientMessageId, body }));
  }

  // ----------------------------------------------------------------------------------------------- the transport's side

  /** The socket is open. */
  connected(nowMs: number): void {
    if (this.link.phase.name !== "dialing") return;
    this.link.phase = { name: "signing-in" };
    this.wire.restart();
    const value = create(SignInSchema, {
      protocolVersion: PROTOCOL_VERSION,
      token: this.#token ?? "",
      deviceId: this.#device,
      platform: this.config.platform,
      clientRun: this.#run,
      dial: BigInt(this.link.dials),
    });
    if (this.wire.ask({ kind: "sign-in" }, { case: "signIn", value }, nowMs) === undefined) {
      // A token above the limit can never be signed in with.
      this.endLink({ kind: "closed", code: CloseCode.BAD_TOKEN }, 0, nowMs);
    }
    this.settle(nowMs);
  }

  /** The socket ended, or could not be opened. `code`: of its close event. */
  disconnected(code: number | undefined, nowMs: number): void {
    if (this.link.isOpen || this.link.phase.name === "dialing") this.endLink(causeOfClose(code), 0, nowMs);
    this.settle(nowMs);
  }

  /** One message of the socket; `undefined`: a text, which this protocol has none of. */
  received(message: Uint8Array | undefined, nowMs: number): void {
    this.heartbeat.heard(nowMs);
    try {
      if (message === undefined) throw new FrameError("protocol");
      for (const frame of frames(message, SERVER_FRAME_BYTES_MAX)) {
        if (!this.link.isOpen) break;
        if (frame.length > 0) onFrame(this, decode(ServerFrameSchema, frame), nowMs);
      }
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      if (this.link.isOpen) this.endLink({ kind: "bad-frame" }, 0, nowMs);
    }
    this.settle(nowMs);
  }

  /** The time has come that `deadlineMs` named. Too early or too often does no harm. */
  timer(nowMs: number): void {
    const { phase } = this.link;
    if (phase.name === "waiting" && nowMs >= phase.untilMs) this.link.dial(this.#token !== undefined, nowMs);
    else if (phase.name === "dialing" && nowMs >= phase.deadlineMs) this.endLink({ kind: "lost" }, 0, nowMs);
    else if (phase.name === "fetching-token" && nowMs >= phase.deadlineMs) this.endLink({ kind: "token" }, 0, nowMs);
    if (this.heartbeat.isDead(nowMs)) this.endLink({ kind: "silent" }, 0, nowMs);
    if (this.link.isOpen && this.heartbeat.isDue(nowMs)) this.wire.heartbeat();
    for (let late = this.wire.timedOut(nowMs); late !== undefined; late = this.wire.timedOut(nowMs)) {
      onTimeOut(this, late[0], late[1], nowMs);
    }
    if (this.link.phase.name === "up") {
      this.outbox.release(nowMs);
      this.requests.release(nowMs);
      this.gaps.release(nowMs);
      this.sync.release(nowMs);
    }
    this.settle(nowMs);
  }

  /** What the transport has to do, in order. */
  pollAction(): LinkAction | undefined {
    return this.link.pollAction();
  }

  pollEvent(): CoreEvent | undefined {
    return this.events.shift();
  }

  /** Takes what is to be written now. */
  takeMessages(): Uint8Array<ArrayBuffer>[] {
    return this.wire.takeMessages();
  }

  /** When to call `timer` at the latest. */
  deadlineMs(nowMs: number): number | undefined {
    const deadlines = [this.link.deadlineMs];
    if (this.link.isOpen) deadlines.push(this.wire.deadlineMs);
    if (this.link.phase.name === "up") {
      deadlines.push(this.heartbeat.deadlineMs, this.outbox.deadlineMs(nowMs), this.requests.deadlineMs);
      deadlines.push(this.gaps.deadlineMs, this.sync.deadlineMs);
    }
    const known = deadlines.filter((deadline) => deadline !== undefined);
    return known.length === 0 ? undefined : Math.min(...known);
  }

  /** What is to be stored, between two inputs and with all events taken. `undefined`: nothing has changed. */
  takeChanges(): StorageChanges | undefined {
    if (!this.changes.isDirty) return undefined;
    const { user } = this.config;
    const stored = { user, device: this.#device, epoch: this.epoch, syncToken: this.sync.token };
    return this.changes.take(stored, (log) => this.#storedConversation(log));
  }

  /** The storage failed to take them. */
  putBackChanges(changes: StorageChanges): void {
    const isQueued = (send: StoredSend) => this.outbox.find(send.conversation, send.clientMessageId) !== undefined;
    this.changes.putBack(changes, isQueued);
  }

  /** The storage has lost what it held: all of it is to be stored again. */
  saveAgain(): void {
    this.changes.everything(this.gaps.logs(), this.outbox.list());
  }

  // ------------------------------------------------------------------------------------------------------------- inside

  endLink(cause: Cause, atLeastMs: number, nowMs: number): void {
    this.link.end(cause, atLeastMs, this.renewsToken, nowMs, this.random);
    if (this.link.endedWith === CloseCode.TOKEN_EXPIRED && this.renewsToken) this.#token = undefined;
    this.heartbeat.stop();
    this.wire.restart();
    this.isLive = false;
  }

  /** The history of the store was replaced. */
  reset(): void {
    this.gaps.forget();
    this.sync.forget();
    this.conversations.forget();
    this.changes.forgetHistory();
    this.events.push({ kind: "reset" });
  }

  /** Writes everything that has become possible, and tells what has changed. */
  settle(nowMs: number): void {
    if (this.link.phase.name === "up") this.#write(nowMs);
    for (const conversation of this.conversations.takeMoved()) this.events.push({ kind: "conversation", conversation });
    if (this.link.phase.name === "up" && this.sync.isFinished(this.gaps)) {
      this.link.proved();
      this.isLive = true;
      this.events.push({ kind: "synced" });
    }
    this.#tellState(nowMs);
  }

  #write(nowMs: number): void {
    this.sync.write(this.wire, nowMs);
    for (const ticket of this.requests.write(this.epoch, this.wire, nowMs)) {
      this.events.push({ kind: "request-refused", ticket, refusal: TOO_LARGE });
    }
    for (const write of this.outbox.write(this.wire, nowMs)) onRefused(this, write, TOO_LARGE);
    this.gaps.write(this.epoch, this.wire, nowMs);
  }

  state(nowMs: number): ClientState {
    const { phase, endedWith } = this.link;
    const code = endedWith === undefined ? {} : { code: endedWith };
    switch (phase.name) {
      case "stopped":
        return { name: "closed", ...code };
      case "waiting":
        return { name: "waiting", retryInMs: Math.max(0, phase.untilMs - nowMs), ...code };
      case "fetching-token":
      case "dialing":
        return { name: "connecting" };
      case "signing-in":
        return { name: "signing-in" };
      case "up":
        return { name: this.isLive ? "live" : "syncing" };
    }
  }

  #tellState(nowMs: number): void {
    const state = this.state(nowMs);
    const { phase } = this.link;
    const told = nameOf(state, phase.name === "waiting" ? phase.untilMs : undefined);
    if (told === this.#toldState) return;
    this.#toldState = told;
    this.events.push({ kind: "state", state });
  }

  #handOver(log: string, entry: Entry): void {
    const { content } = entry;
    // What only a user's own log holds is told in its own words.
    if (content.case === "readMoved") {
      this.conversations.readMoved(content.value.conversationId, content.value.seq, content.value.ordinal);
    }
    if (log === this.userLog) return;
    this.events.push({ kind: "entry", conversation: log, entry });
    if (this.config.keepsEntries) {
      this.changes.entry({ conversation: log, seq: entry.seq, entry: toBinary(EntrySchema, entry) });
    }
    if (this.conversations.entry(log, entry)) this.sync.hint(0n);
  }

  #storedConversation(log: string): StoredConversation | undefined {
    const cursor = this.gaps.cursor(log);
    if (cursor === undefined) return undefined;
    const { seq, ordinal, head: headSeq } = cursor;
    return { conversation: log, seq, ordinal, headSeq, state: this.conversations.encoded(log) };
  }

  #ticket(): number {
    const ticket = this.#nextTicket;
    this.#nextTicket += 1;
    return ticket;
  }
}

/** Tells one state from another. */
function nameOf({ name, code }: ClientState, untilMs?: number): string {
  return `${name} ${code} ${untilMs}`;
}

/** The same id again, before the first has its answer: the same send, or a conflict that the server need not find. */
function sameSend(queued: QueuedSend, body: Uint8Array): number {
  const isSame = queued.body.length === body.length && queued.body.every((byte, at) => byte === body[at]);
  if (!isSame) throw new RefusedError(ErrorCode.CONFLICT, "the same id with another body");
  return queued.ticket;
}
