// Making a group.
//
// In: a name, people ticked and typed. Out: the group, and `made` with its id. Always: a refusal stays beside the form, with
// everything that was typed; a second press makes no second group.
import type { Client } from "@im-server/client";
import { element, found } from "./element.js";
import { isId } from "./route.js";
import { errorWords } from "./words.js";

export class NewGroup {
  #dialog = found("group-dialog", HTMLDialogElement);
  #form = found("group-form", HTMLFormElement);
  #name = found("group-name", HTMLInputElement);
  #others = found("group-others", HTMLInputElement);
  #people = found("group-people", HTMLElement);
  #problem = found("group-problem", HTMLElement);
  #isBusy = false;

  constructor(client: Client, people: readonly string[], made: (conversation: string) => void) {
    const others = people.filter((person) => person !== client.user);
    this.#people.replaceChildren(
      ...others.map((person) => element("label", {}, element("input", { type: "checkbox", value: person }), person)),
    );
    found("new-group", HTMLButtonElement).addEventListener("click", () => {
      this.#problem.textContent = "";
      this.#dialog.showModal();
      this.#name.focus();
    });
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#make(client, made);
    });
  }

  async #make(client: Client, made: (conversation: string) => void): Promise<void> {
    const typed = this.#others.value.split(/\s+/).filter((user) => user !== "");
    const wrong = typed.find((user) => !isId(user));
    this.#problem.textContent = wrong === undefined ? "" : `“${wrong}” is no user id.`;
    if (wrong !== undefined || this.#isBusy) return;
    const ticked = [...this.#people.querySelectorAll<HTMLInputElement>("input:checked")].map((input) => input.value);
    this.#isBusy = true;
    try {
      const members = [...new Set([...ticked, ...typed])].filter((user) => user !== client.user);
      const { conversationId } = await client.createGroup({ name: this.#name.value.trim(), members });
      this.#dialog.close();
      this.#form.reset();
      made(conversationId);
    } catch (error) {
      this.#problem.textContent = `Not made: ${errorWords(error)}.`;
    } finally {
      this.#isBusy = false;
    }
  }
}
