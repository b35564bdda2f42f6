// The handle an app holds: calls in, promises and events out.
//
// In: options, calls. Out: see `api.ts`. Always: calls made before the storage is read and the user is known are
// carried out in their order, at most EARLY_CALLS_MAX of them; every promise ends, at the latest with `close()`.
import { create, fromBinary } from "@bufbuild/protobuf";
import type { Body, Client, ConnectOptions, MemberList, Recipient, TokenSource } from "./api.js";
import { encodeBody } from "./body.js";
import type { Core } from "./core/core.js";
import type { Answer, CoreEvent, Refusal } from "./core/event.js";
import type { RandomBytes } from "./core/random.js";
import type { Command } from "./core/wire.js";
import { STORAGE_TIMEOUT_MS, within } from "./deadline.js";
import { ClosedError, FullError, RefusedError, UnknownAnswerError, UserUnknownError } from "./errors.js";
import type { ClientEvents, ClientState, Conversation, PendingSend, Sent } from "./events.js";
import * as wire from "./gen/client_pb.js";
import { deviceOf } from "./identity.js";
import { directConversationId } from "./ids.js";
import { Listeners } from "./listeners.js";
import { Saver } from "./saver.js";
import { fetchToken, start } from "./start.js";
import { type Storage, memoryStorage } from "./storage.js";
import { Transport } from "./transport.js";
import { onWake } from "./wake.js";

const EARLY_CALLS_MAX = 1_000;
const STORED_ENTRIES_LIMIT = 50;

interface Running {
  readonly core: Core;
  readonly transport: Transport;
  readonly storage: Storage;
  readonly saver: Saver;
  readonly sleep: () => void;
}

/** What ends a call. */
type Outcome = Extract<CoreEvent, { kind: "acked" | "refused" | "answered" | "request-refused" }>;

interface Waiter {
  done(outcome: Outcome): void;
  failed(error: Error): void;
}

const systemRandom: RandomBytes = (count) => crypto.getRandomValues(new Uint8Array(count));

/** Starts a client that keeps itself connected. Returns at once; events tell the rest. */
export function connect(options: ConnectOptions): Client {
  const { protocol } = new URL(options.url);
  if (protocol !== "ws:" && protocol !== "wss:") throw new TypeError("`url` is no WebSocket address");
  const WebSocket = options.webSocket ?? globalThis.WebSocket;
  if (WebSocket === undefined) throw new TypeError("there is no global WebSocket: pass one as `webSocket`");
  return new ImClient(options, WebSocket);
}

class ImClient implements Client {
  readonly #options: ConnectOptions;
  readonly #storage: Storage;
  readonly #listeners = new Listeners();
  readonly #abort = new AbortController();
  readonly #starting: Promise<void>;
  #tokenSource: TokenSource;
  /** Tells the answer of the latest fetch from one that was given up. */
  #tokenFetches = 0;
  #running: Running | undefined;
  #early: { run: (running: Running) => void; failed: (error: Error) => void }[] = [];
  readonly #waiters = new Map<number, Waiter[]>();
  #syncWaiters: { done: () => void; failed: (error: Error) => void }[] = [];

  constructor(options: ConnectOptions, WebSocket: NonNullable<ConnectOptions["webSocket"]>) {
    this.#options = options;
    this.#tokenSource = options.token;
    this.#storage = options.storage ?? memoryStorage();
    this.#starting = this.#start(WebSocket);
  }

  async #start(WebSocket: NonNullable<ConnectOptions["webSocket"]>): Promise<void> {
    const { signal } = this.#abort;
    const failed = (during: ClientEvents["error"]["during"], error: unknown) =>
      this.#listeners.emit("error", { during, error });
    const starting = { options: this.#options, storage: this.#storage, random: systemRandom, signal, failed };
    const started = await start(starting).catch(() => undefined);
    if (started === undefined || signal.aborted) return;
    const { core, storage } = started;
    const saver = new Saver(core, storage, (error) => failed("storage", error));
    const transport = new Transport(core, this.#options.url, WebSocket, {
      event: (event) => this.#onEvent(event),
      fetchToken: () => this.#fetchToken(),
      noSocket: (error) => failed("connect", error),
      settled: () => saver.poke(),
    });
    const sleep = onWake(() => transport.input((nowMs) => core.wake(nowMs)));
    const running = { core, transport, storage, saver, sleep };
    this.#running = running;
    for (const { run } of this.#early.splice(0)) run(running);
    transport.input((nowMs) => core.connect(nowMs));
  }

  get state(): ClientState {
    if (this.#abort.signal.aborted) return { name: "closed" };
    return this.#running?.core.state(performance.now()) ?? { name: "connecting" };
  }

  get user(): string {
    return this.#running?.core.config.user ?? this.#options.user ?? "";
  }

  get device(): string {
    return this.#running?.core.device ?? this.#options.device ?? "";
  }

  on<Name extends keyof ClientEvents>(name: Name, handler: (event: ClientEvents[Name]) => void): () => void {
    return this.#listeners.on(name, handler);
  }

  // -------------------------------------------------------------------------------------------------------------- calls

  send(to: Recipient, body: Body, { clientMessageId }: { clientMessageId?: string } = {}): Promise<Sent> {
    return this.#call(
      (core, nowMs) => core.send(to, encodeBody(body), clientMessageId, nowMs),
      (outcome) => (outcome.kind === "acked" ? outcome.sent : undefined),
    );
  }

  pending(): PendingSend[] {
    return this.#running?.core.pending() ?? [];
  }

  conversations(): Conversation[] {
    return this.#running?.core.conversations.list() ?? [];
  }

  conversation(conversation: string): Conversation | undefined {
    return this.#running?.core.conversations.view(conversation);
  }

  directConversation(user: string): string {
    if (this.user === "") throw new UserUnknownError();
    return directConversationId(this.user, user);
  }

  pull(conversationId: string, fromSeq: bigint, limit = 0): Promise<wire.Pulled> {
    return this.#request(
      { case: "pull", value: create(wire.PullSchema, { conversationId, fromSeq, limit }) },
      "pulled",
    );
  }

  async storedEntries(
    conversation: string,
    { below, limit = STORED_ENTRIES_LIMIT }: { below?: bigint; limit?: number } = {},
  ): Promise<wire.Entry[]> {
    const { storage } = await new Promise<Running>((resolve, reject) => this.#whenRunning(resolve, reject));
    const { signal } = this.#abort;
    const stored = await within(STORAGE_TIMEOUT_MS, storage.entries(conversation, below, limit), signal);
    return stored.map(({ entry }) => fromBinary(wire.EntrySchema, entry));
  }

  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#whenRunning(({ core, transport }) => {
        this.#syncWaiters.push({ done: resolve, failed: reject });
        transport.input((nowMs) => core.syncNow(nowMs));
      }, reject);
    });
  }

  markRead(conversationId: string, seq: bigint): Promise<wire.ReadMarked> {
    const value = create(wire.MarkReadSchema, { conversationId, seq });
    return this.#request({ case: "markRead", value }, "readMarked");
  }

  createGroup({ name, members }: { name: string; members: readonly string[] }): Promise<wire.CommandAck> {
    const value = create(wire.CreateGroupSchema, { name, userIds: [...members] });
    return this.#request({ case: "createGroup", value }, "commandAck");
  }

  addMembers(conversationId: string, members: readonly string[]): Promise<wire.CommandAck> {
    const value = create(wire.AddMembersSchema, { conversationId, userIds: [...members] });
    return this.#request({ case: "addMembers", value }, "commandAck");
  }

  async removeMembers(conversationId: string, members: readonly string[]): Promise<wire.CommandAck[]> {
    const acks: wire.CommandAck[] = [];
    for (const userId of members) {
      const value = create(wire.RemoveMemberSchema, { conversationId, userId });
      acks.push(await this.#request({ case: "removeMember", value }, "commandAck"));
    }
    return acks;
  }

  leaveGroup(conversationId: string): Promise<wire.CommandAck> {
    return this.#request(
      { case: "leaveGroup", value: create(wire.LeaveGroupSchema, { conversationId }) },
      "commandAck",
    );
  }

  async listMembers(conversationId: string): Promise<MemberList> {
    const members: wire.Member[] = [];
    for (;;) {
      const value = create(wire.ListMembersSchema, { conversationId, afterUserId: members.at(-1)?.userId ?? "" });
      const page = await this.#request({ case: "listMembers", value }, "members");
      members.push(...page.members);
      if (page.complete || page.members.length === 0) {
        return { members, creatorUserId: page.creatorUserId, membersSeq: page.membersSeq };
      }
    }
  }

  reconnect(token?: TokenSource): void {
    if (token !== undefined) this.#tokenSource = token;
    this.#whenRunning(
      ({ core, transport }) =>
        transport.input((nowMs) => {
          core.renewsToken = typeof this.#tokenSource === "function";
          if (typeof token === "string") this.#setToken(core, token, nowMs);
          core.connect(nowMs);
        }),
      () => {},
    );
  }

  async close(): Promise<void> {
    if (!this.#abort.signal.aborted) {
      this.#abort.abort(new ClosedError());
      const running = this.#running;
      running?.sleep();
      running?.transport.input((nowMs) => running.core.stop(nowMs));
      this.#endCalls();
    }
    await this.#starting;
    await this.#running?.saver.close();
    this.#storage.close();
  }

  // ------------------------------------------------------------------------------------------------------------- inside

  #request<Case extends NonNullable<Answer["case"]>>(command: Command, answer: Case) {
    type Value = NonNullable<Extract<Answer, { case: Case }>["value"]>;
    return this.#call<Value>(
      (core, nowMs) => core.request(command, nowMs),
      (outcome) =>
        outcome.kind === "answered" && outcome.answer.case === answer ? (outcome.answer.value as Value) : undefined,
    );
  }

  /** `enqueue` returns a ticket; `read` what its outcome means, or `undefined` for an answer to something else. */
  #call<Value>(
    enqueue: (core: Core, nowMs: number) => number,
    read: (outcome: Outcome) => Value | undefined,
  ): Promise<Value> {
    return new Promise((resolve, reject) => {
      const done = (outcome: Outcome) => {
        const value = read(outcome);
        if (value === undefined) reject(new UnknownAnswerError());
        else resolve(value);
      };
      const take = (core: Core, nowMs: number) => {
        try {
          const ticket = enqueue(core, nowMs);
          this.#waiters.set(ticket, [...(this.#waiters.get(ticket) ?? []), { done, failed: reject }]);
        } catch (error) {
          reject(error);
        }
      };
      this.#whenRunning(({ core, transport }) => transport.input((nowMs) => take(core, nowMs)), reject);
    });
  }

  #whenRunning(run: (running: Running) => void, failed: (error: Error) => void): void {
    if (this.#abort.signal.aborted) failed(new ClosedError());
    else if (this.#running !== undefined) run(this.#running);
    else if (this.#early.length >= EARLY_CALLS_MAX) failed(new FullError());
    else this.#early.push({ run, failed });
  }

  #endCalls(): void {
    const waiters = [...this.#waiters.values()].flat();
    this.#waiters.clear();
    for (const { failed } of [...this.#early.splice(0), ...waiters, ...this.#syncWaiters.splice(0)]) {
      failed(new ClosedError());
    }
  }

  #fetchToken(): void {
    this.#tokenFetches += 1;
    const fetch = this.#tokenFetches;
    const input = (action: (core: Core, nowMs: number) => void) => {
      const running = this.#running;
      if (fetch !== this.#tokenFetches || this.#abort.signal.aborted) return;
      running?.transport.input((nowMs) => action(running.core, nowMs));
    };
    fetchToken(this.#tokenSource).then(
      (token) => input((core, nowMs) => this.#setToken(core, token, nowMs)),
      (error: unknown) => {
        this.#listeners.emit("error", { during: "token", error });
        input((core, nowMs) => core.tokenFailed(nowMs));
      },
    );
  }

  /** The device is the token's where the app names none. */
  #setToken(core: Core, token: string, nowMs: number): void {
    core.setToken(token, nowMs, this.#options.device ?? deviceOf(token));
  }

  #onEvent(event: CoreEvent): void {
    switch (event.kind) {
      case "state":
        return this.#listeners.emit("state", event.state);
      case "acked":
        this.#listeners.emit("sent", event.sent);
        return this.#end(event);
      case "refused": {
        const { conversation, clientMessageId, refusal } = event;
        this.#listeners.emit("refused", { conversation, clientMessageId, ...refusal });
        return this.#end(event, refusedError(refusal));
      }
      case "answered":
        return this.#end(event);
      case "request-refused":
        return this.#end(event, refusedError(event.refusal));
      case "conversation":
        return this.#listeners.emit("conversation", event.conversation);
      case "sync-refused":
        return this.#listeners.emit("error", { during: "sync", error: refusedError(event.refusal) });
      case "unreadable":
        return this.#listeners.emit("unreadable", { conversation: event.conversation, code: event.refusal.code });
      case "synced":
        for (const { done } of this.#syncWaiters.splice(0)) done();
        return this.#listeners.emit("synced", {});
      case "reset":
        return this.#listeners.emit("reset", {});
      case "entry":
      case "receipt":
      case "kicked": {
        const { kind, ...told } = event;
        return this.#listeners.emit(kind, told as never);
      }
    }
  }

  #end(outcome: Outcome, error?: RefusedError): void {
    const waiters = this.#waiters.get(outcome.ticket) ?? [];
    this.#waiters.delete(outcome.ticket);
    for (const waiter of waiters) {
      if (error === undefined) waiter.done(outcome);
      else waiter.failed(error);
    }
  }
}

function refusedError({ code, detail }: Refusal): RefusedError {
  return new RefusedError(code, detail);
}
