// The connection's state, always in view.
//
// In: the state of the client. Out: the pill in the bar, with a countdown while waiting, and a way to try at once. Always: a
// screen reader hears each new state once, not each second of the countdown.
import { CloseCode } from "@im-server/client";
import { found } from "./element.js";
import type { State } from "./state.js";
import { stateWords } from "./words.js";

const COUNTDOWN_MS = 250;

export class ConnectionView {
  #state: State;
  #pill = found("connection", HTMLElement);
  #text = found("connection-text", HTMLElement);
  #spoken = found("connection-spoken", HTMLElement);
  #retry = found("connection-retry", HTMLButtonElement);
  #told = "";

  constructor(state: State) {
    this.#state = state;
    this.#retry.addEventListener("click", () => state.client.reconnect());
    setInterval(() => {
      if (state.connection.name === "waiting") this.render();
    }, COUNTDOWN_MS);
  }

  render(): void {
    const { connection, retryAtMs } = this.#state;
    const { words, tone } = stateWords(connection, retryAtMs - performance.now());
    this.#text.textContent = words;
    this.#pill.dataset.tone = tone;
    this.#pill.dataset.state = connection.name;
    this.#retry.hidden = connection.name !== "waiting" && connection.name !== "closed";
    this.#retry.textContent = connection.code === CloseCode.REPLACED_BY_NEWER ? "Use here" : "Try now";
    const told = connection.name === "waiting" ? "reconnecting" : words;
    if (told !== this.#told) this.#spoken.textContent = this.#told = told;
  }
}
