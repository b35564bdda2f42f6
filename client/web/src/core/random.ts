// Chance, as an argument.
//
// In: a source of random bytes; the system's in an app, a seeded one in a test. Out: numbers and ids. Always: nothing
// else in the core is random.
import { base64url } from "../base64url.js";

export type RandomBytes = (count: number) => Uint8Array;

/** A whole number from 0 to `most`, both included. */
export function drawn(most: number, random: RandomBytes): number {
  const bytes = random(4);
  const share = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) / 2 ** 32;
  return Math.floor(share * (most + 1));
}

/** 16 random bytes as 22 characters. */
export function newId(random: RandomBytes): string {
  return base64url(random(16));
}

/** A random odd number of 64 bits: 0 would say nothing. */
export function newRun(random: RandomBytes): bigint {
  const bytes = random(8);
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0) | 1n;
}
