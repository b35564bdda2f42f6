// The list of conversations: name, last line, time, unread.
//
// In: the state. Out: rows, the newest on top, and buttons to write to somebody. Always: a row is a button with a name that
// tells everything in it; the open conversation is marked.
import type { Conversation } from "@im-server/client";
import { avatar, element, found } from "./element.js";
import { type Item, showItems } from "./keyed.js";
import type { Target } from "./route.js";
import type { State } from "./state.js";
import { previewWords, shortTimeWords } from "./words.js";

const UNREAD_SHOWN_MAX = 99;

export class ConversationList {
  #state: State;
  #go: (target: Target) => void;
  #rows = found("conversations", HTMLUListElement);
  #people = found("people", HTMLUListElement);
  #none = found("no-conversations", HTMLElement);

  constructor(state: State, people: readonly string[], go: (target: Target) => void) {
    this.#state = state;
    this.#go = go;
    const form = found("write-to", HTMLFormElement);
    const user = found("write-to-user", HTMLInputElement);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      go({ user: user.value });
      form.reset();
    });
    const others = people.filter((person) => person !== state.me);
    this.#people.replaceChildren(...others.map((person) => this.#person(person)));
  }

  /** `current`: the conversation that is being read. */
  render(current: string | undefined): void {
    const conversations = this.#state.client.conversations().filter(({ headSeq }) => headSeq > 0n);
    const nowMs = Date.now();
    const rows = conversations
      .map((conversation) => ({ conversation, timeMs: this.#timeMs(conversation) }))
      .sort((one, other) => other.timeMs - one.timeMs || (one.conversation.conversation < other.conversation.conversation ? -1 : 1))
      .map(({ conversation, timeMs }) => this.#row(conversation, timeMs, nowMs, current));
    showItems(this.#rows, rows);
    this.#none.hidden = rows.length > 0;
  }

  #timeMs({ conversation }: Conversation): number {
    return Number(this.#state.timeline(conversation).last?.serverTimeMs ?? 0n);
  }

  #row(conversation: Conversation, timeMs: number, nowMs: number, current: string | undefined): Item {
    const { me, open } = this.#state;
    const group = conversation.kind === "group";
    const name = group ? conversation.groupName || "Group" : nameOf(conversation.peerUserId, me);
    const last = this.#state.timeline(conversation.conversation).last;
    const preview = last === undefined ? "" : previewWords(last, me, group);
    const time = timeMs === 0 ? "" : shortTimeWords(timeMs, nowMs);
    const unread = conversation.conversation === current ? 0 : conversation.unread;
    const isOpen = open?.conversation === conversation.conversation;
    return {
      key: conversation.conversation,
      version: JSON.stringify([name, preview, time, unread, isOpen]),
      make: () => {
        const badge = element("span", { class: "badge" }, unread > UNREAD_SHOWN_MAX ? `${UNREAD_SHOWN_MAX}+` : String(unread));
        badge.append(element("span", { class: "spoken" }, " unread"));
        const row = element(
          "button",
          { class: unread > 0 ? "row unread" : "row", "aria-current": isOpen ? "true" : undefined },
          avatar(name),
          element("span", { class: "name" }, name),
          element("time", {}, time),
          element("span", { class: "preview" }, preview),
          ...(unread > 0 ? [badge] : []),
        );
        row.addEventListener("click", () =>
          this.#go(group ? { conversation: conversation.conversation } : { user: conversation.peerUserId }),
        );
        return element("li", {}, row);
      },
    };
  }

  #person(person: string): HTMLElement {
    const button = element("button", {}, avatar(person), person);
    button.addEventListener("click", () => this.#go({ user: person }));
    return element("li", {}, button);
  }
}

/** Oneself is told as such. */
export function nameOf(user: string, me: string): string {
  return user === me ? `${user} (you)` : user;
}
