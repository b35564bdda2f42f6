// What a simulation leaves to chance, from one seed.
import { seeded } from "./script.js";

export const USERS = ["ann", "bob", "cid"];

export class Chance {
  readonly #random;

  constructor(seed: number) {
    this.#random = seeded(seed);
  }

  /** From 0 to below `end`. */
  below(end: number): number {
    return Buffer.from(this.#random(4)).readUInt32LE() % end;
  }

  of<One>(list: readonly One[]): One {
    return list[this.below(list.length)]!;
  }
}
