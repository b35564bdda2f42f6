// A server in the same process, behind something that looks like a WebSocket.
//
// In: frames of clients. Out: sign-ins, empty syncs, acks, and what a test asks for. Always: it answers each message
// once it is written, in a later turn of the event loop, as a network would.
import { create, toBinary } from "@bufbuild/protobuf";
import type { WebSocketLike } from "../dist/api.js";
import { decode, delimited, frames } from "../dist/core/frames.js";
import * as wire from "../dist/gen/client_pb.js";
import { directConversationId, groupConversationId } from "../dist/ids.js";

type Body = wire.ServerFrame["body"];

export class FakeServer {
  readonly sockets: FakeSocket[] = [];
  readonly signIns: wire.SignIn[] = [];
  readonly sends: wire.Send[] = [];
  /** Acks are given; otherwise sends stay without an answer. */
  acks = true;
  /** Tokens that have expired. */
  readonly expired = new Set<string>();
  readonly #heads = new Map<string, bigint>();

  /** To be given to a client as `webSocket`. */
  get webSocket(): new (url: string) => WebSocketLike {
    const server = this;
    return class extends FakeSocket {
      constructor() {
        super(server);
      }
    };
  }

  get last(): FakeSocket {
    return this.sockets.at(-1)!;
  }

  answer(user: string, command: wire.ClientFrame["command"]): Body {
    switch (command.case) {
      case "signIn":
        return {
          case: "signedIn",
          value: create(wire.SignedInSchema, { userId: user, epoch: 7n, pendingSendsMax: 32, frameBytesMax: 65_536 }),
        };
      case "sync":
        return {
          case: "synced",
          value: create(wire.SyncedSchema, { token: Uint8Array.of(1), complete: true, epoch: 7n }),
        };
      case "send":
        return this.#ack(user, command.value);
      case "createGroup": {
        const conversationId = groupConversationId(user, command.value.commandId);
        return { case: "commandAck", value: create(wire.CommandAckSchema, { conversationId, epoch: 7n }) };
      }
      case "listMembers": {
        const isFirst = command.value.afterUserId === "";
        const members = [{ userId: isFirst ? "ann" : "bob", joinedSeq: 1n }];
        return {
          case: "members",
          value: create(wire.MembersSchema, { members, complete: !isFirst, creatorUserId: "ann" }),
        };
      }
      case "pull":
        return {
          case: "pulled",
          value: create(wire.PulledSchema, { conversationId: command.value.conversationId, epoch: 7n }),
        };
      default:
        return { case: undefined };
    }
  }

  #ack(user: string, send: wire.Send): Body {
    this.sends.push(send);
    if (send.clientMessageId === "refused") {
      const code = wire.ErrorCode.CONFLICT;
      return {
        case: "error",
        value: create(wire.ErrorSchema, { class: wire.ErrorClass.FINAL, code, detail: "other body" }),
      };
    }
    const conversationId = directConversationId(user, send.to.value!);
    const seq = (this.#heads.get(conversationId) ?? 0n) + 1n;
    this.#heads.set(conversationId, seq);
    const value = { conversationId, epoch: 7n, seq, ordinal: seq, serverTimeMs: 5n };
    return { case: "sendAck", value: create(wire.SendAckSchema, value) };
  }
}

export class FakeSocket implements WebSocketLike {
  binaryType = "blob";
  readyState = 0;
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  readonly #server: FakeServer;
  #user = "";

  constructor(server: FakeServer) {
    this.#server = server;
    server.sockets.push(this);
    setImmediate(() => {
      this.readyState = 1;
      this.onopen?.({} as never);
    });
  }

  send(message: Uint8Array): void {
    for (const frame of [...frames(message.slice(), 100_000)]) {
      if (frame.length > 0) setImmediate(() => this.#hear(decode(wire.ClientFrameSchema, frame)));
    }
  }

  #hear({ requestId, command }: wire.ClientFrame): void {
    if (this.readyState !== 1) return;
    if (command.case === "signIn") {
      this.#server.signIns.push(command.value);
      this.#user = claimsOf(command.value.token).sub;
      if (this.#server.expired.has(command.value.token)) return this.end(wire.CloseCode.TOKEN_EXPIRED);
      const { device = command.value.deviceId } = claimsOf(command.value.token);
      if (command.value.deviceId !== device) return this.end(wire.CloseCode.BAD_TOKEN);
    }
    if (command.case === "send" && !this.#server.acks) {
      this.#server.sends.push(command.value);
      return;
    }
    this.say(this.#server.answer(this.#user, command), requestId);
  }

  say(body: Body, requestId = 0n): void {
    const frame = create(wire.ServerFrameSchema, { requestId, body });
    this.sayBytes(delimited(toBinary(wire.ServerFrameSchema, frame)));
  }

  sayBytes(data: Uint8Array): void {
    this.onmessage?.({ data: data.slice().buffer } as never);
  }

  /** The server's side ends, with this close code. */
  end(code: number): void {
    this.readyState = 3;
    this.onclose?.({ code } as never);
  }

  close(): void {
    this.readyState = 3;
  }
}

/** A token as a backend makes it, but for the signature. `device`: the one it is bound to. */
export function tokenOf(user: string, serial = 0, device?: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "none" })}.${part({ sub: user, serial, device })}.`;
}

function claimsOf(token: string): { sub: string; device?: string } {
  return JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString());
}
