// Who listens to what.
//
// In: handlers, events. Out: calls of the handlers. Always: a handler that throws stops neither the client nor the
// other handlers; it is told as an `error` event.
import type { ClientEvents } from "./events.js";

type Handler = (event: never) => void;

export class Listeners {
  readonly #handlers = new Map<keyof ClientEvents, Set<Handler>>();

  on<Name extends keyof ClientEvents>(name: Name, handler: (event: ClientEvents[Name]) => void): () => void {
    const handlers = this.#handlers.get(name) ?? new Set<Handler>();
    this.#handlers.set(name, handlers);
    // The same function given twice is two subscriptions.
    const subscribed: Handler = (event) => handler(event);
    handlers.add(subscribed);
    return () => {
      handlers.delete(subscribed);
    };
  }

  emit<Name extends keyof ClientEvents>(name: Name, event: ClientEvents[Name]): void {
    for (const handler of [...(this.#handlers.get(name) ?? [])]) {
      try {
        handler(event as never);
      } catch (error) {
        // A failing handler of errors has nobody left to be told to but the console.
        if (name === "error") console.error(error);
        else this.emit("error", { during: "handler", error });
      }
    }
  }
}
