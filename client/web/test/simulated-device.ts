// One device: a core, its connection to the model server, its storage, and everything its app was told.
import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { Core } from "../dist/core/core.js";
import { decode, delimited, frames } from "../dist/core/frames.js";
import { ClientFrameSchema, type Entry, ServerFrameSchema } from "../dist/gen/client_pb.js";
import { directConversationId } from "../dist/ids.js";
import type { StoredState } from "../dist/storage.js";
import { type Chance, USERS } from "./chance.js";
import type { Connection, ModelServer } from "./model-server.js";
import { applied, config, seeded } from "./script.js";

export class SimulatedDevice {
  readonly number: number;
  readonly user: string;
  core: Core;
  /** By conversation, in the order of sending. */
  readonly sent = new Map<string, string[]>();
  /** By client message id: the seq, or `undefined` for a refusal. */
  readonly ended = new Map<string, bigint | undefined>();
  /** By conversation, in the order of being told. */
  readonly shown = new Map<string, Entry[]>();
  #connection: Connection | undefined;
  #stored: StoredState | undefined;
  #sends = 0;
  readonly #server: ModelServer;
  readonly #chance: Chance;

  constructor(number: number, user: string, server: ModelServer, chance: Chance) {
    this.number = number;
    this.user = user;
    this.#server = server;
    this.#chance = chance;
    this.core = this.#newCore(0);
  }

  #newCore(nowMs: number): Core {
    const core = new Core(
      config({ user: this.user, outboxSendsMax: 10_000 }),
      seeded(this.#chance.below(1 << 30)),
      this.#stored,
    );
    core.setToken("token", nowMs);
    core.connect(nowMs);
    return core;
  }

  send(nowMs: number): void {
    this.#sends += 1;
    const id = `d${this.number}-${this.#sends}`;
    const peer = this.#chance.of(USERS);
    const log = directConversationId(this.user, peer);
    this.sent.set(log, [...(this.sent.get(log) ?? []), id]);
    this.core.send({ user: peer }, new TextEncoder().encode(`body of ${id}`), id, nowMs);
  }

  /** The page is closed and opened again with what was stored. */
  reload(nowMs: number): void {
    this.#takeEvents();
    this.#cut();
    this.core = this.#newCore(nowMs);
  }

  /** The network breaks the link, seen by this side at once. */
  breakLink(nowMs: number): void {
    this.#cut();
    this.core.disconnected(1006, nowMs);
  }

  #cut(): void {
    if (this.#connection === undefined) return;
    this.#connection.isOpen = false;
    this.#connection.downstream.length = 0;
    this.#connection = undefined;
  }

  /** Moves what can be moved: link, output, time. */
  turn(nowMs: number): void {
    if ((this.core.deadlineMs(nowMs) ?? Infinity) <= nowMs) this.core.timer(nowMs);
    for (let action = this.core.pollAction(); action !== undefined; action = this.core.pollAction()) {
      this.#cut();
      if (action !== "connect") continue;
      this.#connection = { user: this.user, isOpen: true, upstream: [], downstream: [] };
      this.#server.connections.push(this.#connection);
      this.core.connected(nowMs);
    }
    for (const message of this.core.takeMessages()) {
      assert.ok(this.#connection !== undefined, "output without a link");
      for (const frame of frames(message, 100_000)) {
        this.#connection.upstream.push(frame.length === 0 ? "heartbeat" : decode(ClientFrameSchema, frame));
      }
    }
    this.#takeEvents();
  }

  /** Some of what the server said arrives: one message of one or more frames. */
  hear(nowMs: number): void {
    const said = this.#connection?.downstream.splice(0, 1 + this.#chance.below(3)) ?? [];
    if (said.length === 0) return;
    const bytes = said.map((frame) => delimited(toBinary(ServerFrameSchema, create(ServerFrameSchema, frame))));
    this.core.received(new Uint8Array(Buffer.concat(bytes)), nowMs);
    this.#takeEvents();
  }

  #takeEvents(): void {
    for (let event = this.core.pollEvent(); event !== undefined; event = this.core.pollEvent()) {
      if (event.kind === "entry") {
        this.shown.set(event.conversation, [...(this.shown.get(event.conversation) ?? []), event.entry]);
      } else if (event.kind === "acked") this.#end(event.sent.clientMessageId, event.sent.seq);
      else if (event.kind === "refused") this.#end(event.clientMessageId, undefined);
      else assert.notEqual(event.kind, "reset", "a reset that nobody asked for");
    }
    this.#stored = applied(this.#stored, this.core.takeChanges());
  }

  #end(id: string, seq: bigint | undefined): void {
    assert.ok(!this.ended.has(id), `${id} ended twice`);
    this.ended.set(id, seq);
  }
}
