// Moves bytes, time and events between a core and the world. It decides nothing.
//
// In: the app's inputs, a WebSocket, a clock. Out: what the core asks for. Always: nothing of a socket that was given
// up reaches the core; an input that a handler makes is carried out at once, and what follows from it is told after
// that handler.
import type { WebSocketLike } from "./api.js";
import type { Core } from "./core/core.js";
import type { CoreEvent } from "./core/event.js";

export interface TransportListener {
  event(event: CoreEvent): void;
  fetchToken(): void;
  /** The platform refuses to make a socket; the core tries again as after any lost link. */
  noSocket(error: unknown): void;
  /** An input was carried out and its events were told. */
  settled(): void;
}

export class Transport {
  readonly #core: Core;
  readonly #url: string;
  readonly #WebSocket: new (url: string) => WebSocketLike;
  readonly #listener: TransportListener;
  #socket: WebSocketLike | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isPumping = false;

  constructor(core: Core, url: string, WebSocket: new (url: string) => WebSocketLike, listener: TransportListener) {
    this.#core = core;
    this.#url = url;
    this.#WebSocket = WebSocket;
    this.#listener = listener;
  }

  input<Result>(action: (nowMs: number) => Result): Result {
    try {
      return action(performance.now());
    } finally {
      this.#pump();
    }
  }

  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    try {
      for (let isMore = true; isMore;) {
        isMore = false;
        for (let action = this.#core.pollAction(); action !== undefined; action = this.#core.pollAction()) {
          if (action === "close") this.#closeSocket();
          else if (action === "connect") this.#openSocket();
          else this.#listener.fetchToken();
        }
        for (const message of this.#core.takeMessages()) this.#socket?.send(message);
        for (let event = this.#core.pollEvent(); event !== undefined; event = this.#core.pollEvent()) {
          isMore = true;
          this.#listener.event(event);
        }
      }
    } finally {
      this.#isPumping = false;
    }
    this.#listener.settled();
    this.#arm();
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const nowMs = performance.now();
    const deadlineMs = this.#core.deadlineMs(nowMs);
    if (deadlineMs === undefined) return;
    this.#timer = setTimeout(() => this.input((nowMs) => this.#core.timer(nowMs)), Math.max(0, deadlineMs - nowMs));
  }

  #openSocket(): void {
    this.#closeSocket();
    const socket = this.#newSocket();
    if (socket === undefined) return;
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const ifCurrent = (action: (nowMs: number) => void) => {
      if (this.#socket === socket) this.input(action);
    };
    socket.onopen = () => ifCurrent((nowMs) => this.#core.connected(nowMs));
    socket.onmessage = ({ data }: { data: unknown }) => {
      const message = data instanceof ArrayBuffer ? new Uint8Array(data) : undefined;
      ifCurrent((nowMs) => this.#core.received(message, nowMs));
    };
    socket.onclose = ({ code }: { code: number }) => {
      ifCurrent((nowMs) => {
        this.#socket = undefined;
        this.#core.disconnected(code, nowMs);
      });
    };
    // `close` follows, and tells as much.
    socket.onerror = () => {};
  }

  /** `undefined`: the page may not, as by its content policy. */
  #newSocket(): WebSocketLike | undefined {
    try {
      return new this.#WebSocket(this.#url);
    } catch (error) {
      this.#listener.noSocket(error);
      this.#core.disconnected(undefined, performance.now());
      return undefined;
    }
  }

  #closeSocket(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close(1000);
  }
}
