// SHA-256 (FIPS 180-4), without waiting: WebCrypto's is asynchronous, and absent on pages that are not secure.
//
// In: bytes. Out: 32 bytes. Always: used to derive ids, never to keep a secret.

const ROUNDS = 64;
const [INITIAL, CONSTANTS] = fractions();

/** The first 32 fractional bits of the roots of the first primes: square roots of 8, cube roots of 64. */
function fractions(): [Uint32Array, Uint32Array] {
  const bits = (root: number): number => (root - Math.floor(root)) * 2 ** 32;
  const primes: number[] = [];
  for (let n = 2; primes.length < ROUNDS; n++) {
    if (primes.every((prime) => n % prime !== 0)) primes.push(n);
  }
  return [
    Uint32Array.from(primes.slice(0, 8), (prime) => bits(Math.sqrt(prime))),
    Uint32Array.from(primes, (prime) => bits(Math.cbrt(prime))),
  ];
}

export function sha256(bytes: Uint8Array): Uint8Array {
  const padded = new Uint8Array((Math.floor((bytes.length + 8) / 64) + 1) * 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  // Below 512 MiB the upper half of the length in bits is 0.
  view.setUint32(padded.length - 4, bytes.length * 8);
  const hash = INITIAL.slice();
  for (let at = 0; at < padded.length; at += 64) compress(hash, view, at);
  const out = new DataView(new ArrayBuffer(32));
  hash.forEach((word, index) => out.setUint32(index * 4, word));
  return new Uint8Array(out.buffer);
}

function compress(hash: Uint32Array, block: DataView, at: number): void {
  const turn = (word: number, by: number): number => (word >>> by) | (word << (32 - by));
  const w = new Uint32Array(ROUNDS);
  for (let i = 0; i < 16; i++) w[i] = block.getUint32(at + i * 4);
  for (let i = 16; i < ROUNDS; i++) {
    const [before2, before15] = [w[i - 2]!, w[i - 15]!];
    const small0 = turn(before15, 7) ^ turn(before15, 18) ^ (before15 >>> 3);
    const small1 = turn(before2, 17) ^ turn(before2, 19) ^ (before2 >>> 10);
    w[i] = w[i - 16]! + small0 + w[i - 7]! + small1;
  }
  let [a, b, c, d, e, f, g, h] = hash as unknown as [number, number, number, number, number, number, number, number];
  for (let i = 0; i < ROUNDS; i++) {
    const big1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
    const t1 = (h + big1 + ((e & f) ^ (~e & g)) + CONSTANTS[i]! + w[i]!) | 0;
    const big0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
    const t2 = (big0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((word, index) => (hash[index]! += word));
}
