// Where a message is written.
//
// In: keys. Out: `send` with the text. Always: Enter sends and Shift+Enter breaks the line, also in the middle of a burst;
// blank text is not sent; the text stays per chat until it is sent.
import { found } from "./element.js";

const COMPOSING_KEY_CODE = 229;

export class Composer {
  #form = found("composer", HTMLFormElement);
  #text = found("text", HTMLTextAreaElement);
  #conversation = "";
  #drafts = new Map<string, string>();

  constructor(send: (text: string) => void) {
    const submit = () => {
      const text = this.#text.value.trim();
      if (text === "") return;
      this.#text.value = "";
      send(text);
    };
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
      this.#text.focus();
    });
    this.#text.addEventListener("keydown", (event) => {
      // While a character is being composed, Enter belongs to the input method. Safari ends the composition first and tells
      // it by the code alone.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === COMPOSING_KEY_CODE) return;
      event.preventDefault();
      submit();
    });
  }

  open(conversation: string, name: string, isAllowed: boolean): void {
    this.#form.hidden = !isAllowed;
    this.#text.placeholder = `Message to ${name}`;
    if (conversation === this.#conversation) return;
    this.#drafts.set(this.#conversation, this.#text.value);
    this.#text.value = this.#drafts.get(conversation) ?? "";
    this.#drafts.delete(conversation);
    this.#conversation = conversation;
  }

  focus(): void {
    this.#text.focus();
  }

  /** Puts a text back, in front of what is being written. */
  edit(text: string): void {
    const written = this.#text.value;
    this.#text.value = written.trim() === "" ? text : `${text}\n${written}`;
    this.#text.focus();
  }
}
