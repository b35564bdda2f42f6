// Who is in the open group, how far each has read; adding, removing, leaving.
//
// In: the state. Out: the dialog and the commands. Always: only what the person may do is offered (the creator adds and
// removes and leaves last); a refusal stays in the dialog.
import type { MemberList } from "@im-server/client";
import { avatar, element, found } from "./element.js";
import { nameOf } from "./conversation-list.js";
import { type Item, showItems } from "./keyed.js";
import type { State } from "./state.js";
import { errorWords } from "./words.js";

/** A group may have thousands. */
const MEMBERS_SHOWN_MAX = 200;

export class MembersView {
  #state: State;
  #dialog = found("members-dialog", HTMLDialogElement);
  #title = found("members-title", HTMLElement);
  #list = found("members", HTMLUListElement);
  #addForm = found("add-member", HTMLFormElement);
  #addUser = found("add-member-user", HTMLInputElement);
  #leave = found("leave-group", HTMLButtonElement);
  #problem = found("members-problem", HTMLElement);

  constructor(state: State) {
    this.#state = state;
    this.#addForm.addEventListener("submit", (event) => {
      event.preventDefault();
      const user = this.#addUser.value;
      this.#addForm.reset();
      void this.#do((conversation) => state.client.addMembers(conversation, [user]));
    });
    this.#leave.addEventListener("click", () => {
      void this.#do(async (conversation) => {
        await state.client.leaveGroup(conversation);
        this.#dialog.close();
      });
    });
  }

  show(): void {
    this.#problem.textContent = "";
    this.#dialog.showModal();
    void this.#do(() => Promise.resolve());
  }

  render(): void {
    const conversation = this.#state.open?.conversation;
    if (!this.#dialog.open || conversation === undefined) return;
    const { me, client } = this.#state;
    const members = this.#state.members(conversation);
    const isMember = client.conversation(conversation)?.member ?? true;
    const isCreator = isMember && members?.creatorUserId === me;
    this.#addForm.hidden = !isCreator;
    this.#leave.hidden = !isMember || (isCreator && (members?.members.length ?? 0) > 1);
    const shown = (members?.members ?? []).slice(0, MEMBERS_SHOWN_MAX);
    const hidden = (members?.members.length ?? 0) - shown.length;
    this.#title.textContent = hidden > 0 ? `Members, the first ${MEMBERS_SHOWN_MAX} of ${shown.length + hidden}` : "Members";
    const head = client.conversation(conversation)?.headSeq ?? 0n;
    const readers = this.#state.readers(conversation);
    const unread = (user: string) => (user === me ? "" : unreadWords(head, readers.get(user) ?? 0n));
    showItems(this.#list, shown.map(({ userId }) => this.#row(userId, unread(userId), isCreator, members)));
  }

  #row(user: string, unread: string, isCreator: boolean, members: MemberList | undefined): Item {
    const { me } = this.#state;
    const notes = [members?.creatorUserId === user ? "made the group" : "", unread];
    const words = notes.filter((note) => note !== "").join(" · ");
    const canRemove = isCreator && user !== me;
    return {
      key: user,
      version: JSON.stringify([words, canRemove]),
      make: () => {
        const who = element("span", { class: "who" }, nameOf(user, me), element("small", {}, words));
        const row = element("li", {}, avatar(user), who);
        if (canRemove) {
          const remove = element("button", { class: "quiet", "aria-label": `Remove ${user}` }, "Remove");
          remove.addEventListener("click", () => {
            void this.#do((group) => this.#state.client.removeMembers(group, [user]));
          });
          row.append(remove);
        }
        return row;
      },
    };
  }

  /** Runs a command on the open group and shows the members as they are then. */
  async #do(command: (conversation: string) => Promise<unknown>): Promise<void> {
    const conversation = this.#state.open?.conversation;
    if (conversation === undefined) return;
    this.#problem.textContent = "";
    try {
      await command(conversation);
      if (this.#dialog.open) await this.#state.refreshMembers(conversation);
    } catch (error) {
      this.#problem.textContent = `That did not work: ${errorWords(error)}.`;
    }
  }
}

function unreadWords(head: bigint, read: bigint): string {
  if (read >= head) return "has read everything";
  return read === 0n ? "has read nothing yet" : `has ${head - read} not read`;
}
