// Many seeds, each another run of four devices against an unkind server: whatever happens on the way, in the end every
// send has one answer, stands once and in its order, and every device was told every entry once, in order.
//
// `IM_SEED=n` runs one seed, `IM_SEEDS=n` so many.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type MessageShape, toBinary } from "@bufbuild/protobuf";
import { EntrySchema } from "../dist/gen/client_pb.js";
import { directConversationId } from "../dist/ids.js";
import { Chance, USERS } from "./chance.js";
import { ModelServer } from "./model-server.js";
import { SimulatedDevice } from "./simulated-device.js";

const UNKIND_STEPS = 2_000;
const KIND_STEPS_MAX = 60_000;
const SEEDS_DEFAULT = 20;

class World {
  readonly server: ModelServer;
  readonly devices: SimulatedDevice[];
  readonly #chance: Chance;
  #nowMs = 0;

  constructor(seed: number) {
    this.#chance = new Chance(seed);
    this.server = new ModelServer(this.#chance);
    this.devices = ["ann", "ann", "bob", "cid"].map(
      (user, number) => new SimulatedDevice(number, user, this.server, this.#chance),
    );
  }

  step(): void {
    this.#nowMs += this.#chance.below(20);
    for (const device of this.devices) device.turn(this.#nowMs);
    for (let steps = this.#chance.below(4); steps > 0; steps--) this.server.step();
    const device = this.#chance.of(this.devices);
    for (let messages = this.#chance.below(4); messages > 0; messages--) device.hear(this.#nowMs);
  }

  unkindStep(): void {
    const device = this.#chance.of(this.devices);
    const what = this.#chance.below(1_000);
    if (what < 80) for (let sends = 1 + this.#chance.below(3); sends > 0; sends--) device.send(this.#nowMs);
    else if (what < 83) device.breakLink(this.#nowMs);
    else if (what < 85) device.reload(this.#nowMs);
    // Nothing moves for a while: requests time out, heartbeats are due, links fall silent.
    else if (what < 87) this.#nowMs += this.#chance.below(12_000);
    this.step();
  }

  /** Every send has its answer and every device was told every entry of its conversations. */
  isSettled(): boolean {
    return this.devices.every((device) => {
      const sent = [...device.sent.values()].flat().length;
      const isShown = this.#logsOf(device).every(([log, all]) => (device.shown.get(log)?.length ?? 0) >= all.length);
      return sent === device.ended.size && isShown;
    });
  }

  #logsOf(device: SimulatedDevice) {
    const own = USERS.map((peer) => directConversationId(device.user, peer));
    return [...this.server.logs].filter(([log]) => own.includes(log));
  }

  check(seed: number): void {
    const text = (entries: readonly MessageShape<typeof EntrySchema>[] = []) => entries.map(bytesOf);
    for (const device of this.devices) {
      const where = (log: string) => `seed ${seed}: device ${device.number} in ${log}`;
      for (const [log, entries] of this.#logsOf(device)) {
        assert.deepEqual(text(device.shown.get(log)), text(entries), where(log));
      }
      for (const [log, sent] of device.sent) {
        const entries = this.server.logs.get(log) ?? [];
        const own = entries.filter(({ clientId }) => clientId.startsWith(`d${device.number}-`));
        const kept = sent.filter((id) => device.ended.get(id) !== undefined);
        assert.deepEqual(
          own.map(({ clientId }) => clientId),
          kept,
          where(log),
        );
        for (const id of kept) assert.equal(entries[Number(device.ended.get(id)) - 1]?.clientId, id, where(log));
      }
    }
  }
}

function bytesOf(entry: MessageShape<typeof EntrySchema>): string {
  return Buffer.from(toBinary(EntrySchema, entry)).toString("hex");
}

function run(seed: number): void {
  const world = new World(seed);
  try {
    for (let step = 0; step < UNKIND_STEPS; step++) world.unkindStep();
    world.server.isKind = true;
    for (let step = 0; step < KIND_STEPS_MAX; step++) {
      if (world.isSettled()) return world.check(seed);
      world.step();
    }
  } catch (error) {
    throw new Error(`seed ${seed}`, { cause: error });
  }
  assert.fail(`seed ${seed}: not settled`);
}

test("nothing is lost, doubled or reordered, whatever the server and the network do", (context) => {
  const number = (name: string) => (process.env[name] === undefined ? undefined : Number(process.env[name]));
  const only = number("IM_SEED");
  const first = only ?? 0;
  const count = only === undefined ? (number("IM_SEEDS") ?? SEEDS_DEFAULT) : 1;
  context.diagnostic(`seeds ${first} to ${first + count - 1}`);
  for (let seed = first; seed < first + count; seed++) run(seed);
});
