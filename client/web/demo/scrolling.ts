// Where the messages are scrolled to.
//
// In: a change of the list, scrolling. Out: the scroll position, the button to the newest message, a call for older ones near
// the top. Always: who is at the end stays at the end; who reads further up sees nothing move, whatever is added above or below.
import { found } from "./element.js";

/** So near to an edge counts as being there. */
const EDGE_PX = 80;

export class Scrolling {
  #box = found("scroller", HTMLElement);
  #messages = found("messages", HTMLElement);
  #button = found("to-newest", HTMLButtonElement);
  #buttonText = found("to-newest-text", HTMLElement);
  #atEnd = true;

  constructor(nearTop: () => void, moved: () => void) {
    this.#box.addEventListener("scroll", () => {
      this.#atEnd = this.#distanceToEnd() < EDGE_PX;
      if (this.#box.scrollTop < EDGE_PX) nearTop();
      moved();
    }, { passive: true });
    this.#button.addEventListener("click", () => this.toEnd());
    // The keyboard of a phone, a turned phone, a composer that grows.
    new ResizeObserver(() => {
      if (this.#atEnd) this.toEnd();
    }).observe(this.#box);
  }

  /** False also while the chat is not displayed. */
  get isAtEnd(): boolean {
    return this.#atEnd && this.#box.clientHeight > 0;
  }

  toEnd(): void {
    this.#box.scrollTop = this.#box.scrollHeight;
    this.#atEnd = true;
  }

  /** Runs `change`, which adds to the list, and keeps what is in view where it is. */
  keep(change: () => void): void {
    const anchor = this.#anchor();
    const before = anchor?.getBoundingClientRect().top ?? 0;
    change();
    if (this.#atEnd) this.toEnd();
    else if (anchor?.isConnected === true) this.#box.scrollTop += anchor.getBoundingClientRect().top - before;
  }

  /** `unread`: messages below the view. */
  showButton(unread: number): void {
    this.#button.hidden = this.#atEnd;
    this.#buttonText.textContent = unread > 0 ? `${unread} new` : "Newest";
  }

  /** True where the list does not fill the view, so that no scrolling could ask for older messages. */
  get hasRoom(): boolean {
    return this.#box.clientHeight > 0 && this.#box.scrollHeight <= this.#box.clientHeight + EDGE_PX;
  }

  /** The first message in view. The line of a day will not do: it stays on top of what is added above. */
  #anchor(): Element | undefined {
    const top = this.#box.getBoundingClientRect().top;
    const messages = [...this.#messages.querySelectorAll(".message, .system")];
    return messages.find((message) => message.getBoundingClientRect().bottom > top);
  }

  #distanceToEnd(): number {
    return this.#box.scrollHeight - this.#box.scrollTop - this.#box.clientHeight;
  }
}
