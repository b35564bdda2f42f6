// Everything the page shows, in one place.
//
// In: the events of the client, and what a person does. Out: timelines, readers, members, outgoing messages, the open chat;
// `changed` once for all changes of one turn of the event loop. Always: no element of the page is known here, and nothing is
// shown that is not here or in the client.
import type { Client, ClientState, Entry, MemberList } from "@im-server/client";
import { pendingText } from "./entries.js";
import { OutgoingMessages } from "./outgoing.js";
import type { Target } from "./route.js";
import { Timeline } from "./timeline.js";
import { errorWords } from "./words.js";

/** The chat that is open. It need not exist yet: the first message to a user makes it. */
export interface OpenChat {
  readonly conversation: string;
  readonly target: Target;
  /** What was unread when it was opened, from above `read` up to `head`: the line "new" stands in front of it. */
  readonly unreadAtOpening: { readonly read: bigint; readonly head: bigint };
}

/** By every content there is, so that the compiler asks for a new one. */
const CHANGES_MEMBERS: Readonly<Record<NonNullable<Entry["content"]["case"]>, boolean>> = {
  message: false,
  tombstone: false,
  readMoved: false,
  groupCreated: false,
  membersAdded: true,
  memberRemoved: true,
  memberLeft: true,
};

export class State {
  readonly client: Client;
  readonly me: string;
  readonly outgoing = new OutgoingMessages();
  connection: ClientState;
  /** When `waiting`: the time of `performance.now()` at which the next attempt is due. */
  retryAtMs = 0;
  open: OpenChat | undefined;
  /** A problem the person should know of; empty: none. */
  notice = "";

  #timelines = new Map<string, Timeline>();
  #readers = new Map<string, Map<string, bigint>>();
  #members = new Map<string, MemberList>();
  #changed: () => void;
  #changing = false;

  constructor(client: Client, me: string, changed: () => void) {
    this.client = client;
    this.me = me;
    this.connection = client.state;
    this.#changed = changed;
    this.#listen();
  }

  // ------------------------------------------------------------------------------------------------------------- asked

  timeline(conversation: string): Timeline {
    let timeline = this.#timelines.get(conversation);
    if (timeline === undefined) this.#timelines.set(conversation, (timeline = new Timeline()));
    return timeline;
  }

  /** How far each of the others has read. */
  readers(conversation: string): ReadonlyMap<string, bigint> {
    const readers = new Map(this.#readers.get(conversation));
    const known = this.client.conversation(conversation);
    if (known?.kind === "direct" && known.peerUserId !== this.me) {
      readers.set(known.peerUserId, larger(readers.get(known.peerUserId), known.peerReadSeq));
    }
    readers.delete(this.me);
    return readers;
  }

  members(conversation: string): MemberList | undefined {
    return this.#members.get(conversation);
  }

  /** Of all conversations but the open one that is being looked at. */
  unread(except: string | undefined): number {
    return this.client
      .conversations()
      .reduce((sum, { conversation, unread }) => sum + (conversation === except ? 0 : unread), 0);
  }

  // -------------------------------------------------------------------------------------------------------------- done

  openChat(target: Target): void {
    const conversation = "user" in target ? this.client.directConversation(target.user) : target.conversation;
    const known = this.client.conversation(conversation);
    const unreadAtOpening = { read: known?.readSeq ?? 0n, head: known?.headSeq ?? 0n };
    this.open = { conversation, target, unreadAtOpening };
    this.change();
  }

  closeChat(): void {
    this.open = undefined;
    this.change();
  }

  send(chat: OpenChat, text: string): void {
    const id = crypto.getRandomValues(new Uint32Array(4)).join("-");
    this.outgoing.sending(chat.conversation, id, text);
    // A refusal comes as an event too; what is left is a bound of the client.
    this.client.send(chat.target, text, { clientMessageId: id }).catch((error: unknown) => {
      this.outgoing.failed(id, errorWords(error));
      this.change();
    });
    this.change();
  }

  addEntries(conversation: string, run: readonly Entry[]): void {
    this.timeline(conversation).add(run);
    for (const entry of run) this.#reconcile(conversation, entry);
    this.change();
  }

  async refreshMembers(conversation: string): Promise<void> {
    const list = await this.client.listMembers(conversation);
    this.#members.set(conversation, list);
    for (const member of list.members) this.#read(conversation, member.userId, member.readSeq);
    this.change();
  }

  tell(notice: string): void {
    this.notice = notice;
    this.change();
  }

  change(): void {
    if (this.#changing) return;
    this.#changing = true;
    queueMicrotask(() => {
      this.#changing = false;
      this.#changed();
    });
  }

  // ------------------------------------------------------------------------------------------------------------- heard

  #listen(): void {
    const { client } = this;
    client.on("state", (state) => {
      this.connection = state;
      this.retryAtMs = performance.now() + (state.retryInMs ?? 0);
      this.outgoing.restore(client.pending(), pendingText);
      this.change();
    });
    client.on("entry", ({ conversation, entry }) => this.#entry(conversation, entry));
    client.on("conversation", () => this.change());
    client.on("receipt", ({ conversation, userId, readSeq }) => {
      this.#read(conversation, userId, readSeq);
      this.change();
    });
    client.on("sent", ({ conversation, clientMessageId, seq }) => {
      const shown = this.timeline(conversation).last;
      if (shown !== undefined && shown.seq >= seq) this.outgoing.drop(clientMessageId);
      else this.outgoing.stored(clientMessageId, seq);
      this.change();
    });
    client.on("refused", ({ clientMessageId, code }) => {
      this.outgoing.refused(clientMessageId, code);
      this.change();
    });
    client.on("unreadable", () => this.tell("The server does not show a part of a conversation any more."));
    client.on("reset", () => {
      this.#timelines.clear();
      this.#readers.clear();
      this.#members.clear();
      if (this.open !== undefined) this.openChat(this.open.target);
      this.tell("The server's history was replaced by an older copy; everything is loaded again.");
    });
    client.on("error", ({ during, error }) => {
      if (during !== "token") this.tell(`${during}: ${errorWords(error)}`);
    });
  }

  #entry(conversation: string, entry: Entry): void {
    this.addEntries(conversation, [entry]);
    const { content } = entry;
    if (content.case !== undefined && CHANGES_MEMBERS[content.case] && this.#members.has(conversation)) {
      // Somebody removed may no longer list; what is shown then stays.
      this.refreshMembers(conversation).catch(() => {});
    }
  }

  /** What an entry says beside its text: its sender has read up to it, and a message of ours is in the log. */
  #reconcile(conversation: string, entry: Entry): void {
    this.#read(conversation, entry.senderUserId, entry.seq);
    if (entry.senderUserId === this.me) this.outgoing.drop(entry.clientId);
  }

  #read(conversation: string, user: string, seq: bigint): void {
    let readers = this.#readers.get(conversation);
    if (readers === undefined) this.#readers.set(conversation, (readers = new Map()));
    readers.set(user, larger(readers.get(user), seq));
  }
}

function larger(one: bigint | undefined, other: bigint): bigint {
  return one !== undefined && one > other ? one : other;
}
