// The open chat: head, messages, composer.
//
// In: the state. Out: what the right side shows. Always: opening a chat loads its newest page; older pages come when the top
// is near; without an open chat it says what to do next.
import { Composer } from "./composer.js";
import { avatar, element, found } from "./element.js";
import { nameOf } from "./conversation-list.js";
import type { History } from "./history.js";
import { showItems } from "./keyed.js";
import { messageItems } from "./messages.js";
import { Scrolling } from "./scrolling.js";
import type { OpenChat, State } from "./state.js";
import { ENTRIES_MAX } from "./timeline.js";
import { nameList } from "./words.js";

interface Head {
  readonly name: string;
  readonly subtitle: string;
  readonly group: boolean;
  readonly member: boolean;
  readonly others: readonly string[];
}

export class ChatView {
  readonly scrolling: Scrolling;
  #state: State;
  #history: History;
  #composer: Composer;
  #shownConversation = "";
  #empty = found("chat-empty", HTMLElement);
  #body = found("chat", HTMLElement);
  #avatar = found("chat-avatar", HTMLElement);
  #title = found("chat-title", HTMLElement);
  #subtitle = found("chat-subtitle", HTMLElement);
  #messages = found("messages", HTMLOListElement);
  #scroller = found("scroller", HTMLElement);
  #older = found("older", HTMLButtonElement);
  #full = found("full", HTMLElement);
  #members = found("show-members", HTMLButtonElement);
  #notMember = found("not-member", HTMLElement);

  constructor(state: State, history: History, people: readonly string[], showMembers: () => void) {
    this.#state = state;
    this.#history = history;
    this.#composer = new Composer((text) => {
      if (state.open === undefined) return;
      state.send(state.open, text);
      this.scrolling.toEnd();
    });
    this.scrolling = new Scrolling(() => this.#loadOlder(false), () => state.change());
    this.#older.addEventListener("click", () => this.#loadOlder(true));
    this.#members.addEventListener("click", showMembers);
    const shown = ENTRIES_MAX.toLocaleString("en");
    this.#full.textContent = `This page shows the newest ${shown} entries of a chat; the older ones are on the server.`;
    this.#sayWhatToDo(people);
  }

  render(): void {
    const { open } = this.#state;
    this.#body.hidden = open === undefined;
    this.#empty.hidden = open !== undefined;
    if (open === undefined) {
      if (this.#shownConversation !== "" && !isWide()) found("list-title", HTMLElement).focus();
      this.#shownConversation = "";
      return;
    }
    const isOther = open.conversation !== this.#shownConversation;
    this.#shownConversation = open.conversation;
    const head = this.#head(open);
    this.#renderHead(open, head);
    this.#renderMessages(open, head, isOther);
    if (isOther) this.#opened(open, head);
  }

  #opened(open: OpenChat, head: Head): void {
    this.scrolling.toEnd();
    // On a phone the keyboard would hide what was just opened; but what was tapped is out of view.
    if (isWide()) this.#composer.focus();
    else this.#title.focus();
    if (head.group) this.#state.refreshMembers(open.conversation).catch(() => {});
    this.#loadOlder(false);
  }

  #head({ conversation, target }: OpenChat): Head {
    const { client, me } = this.#state;
    const known = client.conversation(conversation);
    const peer = "user" in target ? target.user : undefined;
    if (peer !== undefined) {
      const others = peer === me ? [] : [peer];
      return { name: nameOf(peer, me), subtitle: peer === me ? "Notes to yourself" : "", group: false, member: true, others };
    }
    const members = this.#state.members(conversation)?.members.map((member) => member.userId) ?? [];
    const others = members.filter((member) => member !== me);
    const member = known?.member ?? true;
    const subtitle = member && members.length > 0 ? nameList([...others, "you"]) : "";
    return { name: known?.groupName || "Group", subtitle, group: true, member, others };
  }

  #renderHead(open: OpenChat, head: Head): void {
    if (this.#title.textContent !== head.name) {
      this.#title.textContent = head.name;
      this.#avatar.replaceChildren(avatar(head.name));
    }
    this.#subtitle.textContent = head.subtitle;
    this.#members.hidden = !head.group;
    this.#notMember.hidden = head.member;
    this.#composer.open(open.conversation, head.name, head.member);
  }

  #renderMessages(open: OpenChat, head: Head, isOther: boolean): void {
    const { conversation } = open;
    const timeline = this.#state.timeline(conversation);
    const items = messageItems({
      me: this.#state.me,
      group: head.group,
      entries: timeline.entries,
      outgoing: this.#state.outgoing.of(conversation),
      readers: this.#state.readers(conversation),
      others: head.others,
      unreadAtOpening: open.unreadAtOpening,
      nowMs: Date.now(),
      edit: (message) => {
        this.#composer.edit(message.text);
        this.#state.outgoing.drop(message.id);
        this.#state.change();
      },
      dismiss: (message) => {
        this.#state.outgoing.drop(message.id);
        this.#state.change();
      },
    });
    // Nothing that was there before is news to a screen reader.
    const isLoading = this.#history.isLoading(conversation);
    this.#scroller.setAttribute("aria-busy", String(isLoading || isOther));
    this.scrolling.keep(() => {
      showItems(this.#messages, items);
      this.#older.hidden = !this.#history.hasOlder(conversation);
      this.#older.textContent = isLoading ? "Loading…" : "Earlier messages";
      this.#full.hidden = !this.#history.isFull(conversation);
    });
    this.scrolling.showButton(this.#state.client.conversation(conversation)?.unread ?? 0);
    if (this.scrolling.hasRoom && !isLoading) this.#loadOlder(false);
  }

  #loadOlder(asked: boolean): void {
    const { open } = this.#state;
    if (open !== undefined) void this.#history.older(open.conversation, asked);
  }

  /** In the empty chat, and on a phone, where that is not in view, in the empty list. */
  #sayWhatToDo(people: readonly string[]): void {
    const { me } = this.#state;
    const other = people.find((person) => person !== me);
    for (const place of [found("chat-empty-text", HTMLElement), found("list-hint", HTMLElement)]) {
      if (other === undefined) {
        place.textContent = "Write to somebody: type a user id.";
        continue;
      }
      const link = element("a", { href: `#${other}/${me}`, target: "_blank", rel: "noopener" }, `Open a second tab as ${other}`);
      place.replaceChildren(link, `, then write to ${other} here.`);
    }
  }
}

/** Both columns are in view. */
function isWide(): boolean {
  return matchMedia("(min-width: 45rem)").matches;
}
