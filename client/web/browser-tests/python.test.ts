// A person in the browser and a program in Python, which has none of our code, talk to each other.
//
// In: a server; Python with the official protobuf package, as scripts/web installs it (IM_PYTHON). Out: the claim that both
// see what the other writes, in order, over a restart of the page.
import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { after, test } from "node:test";
import { stage } from "./stage.js";

const PATIENCE_MS = 20_000;
const program = join(import.meta.dirname, "../../../python/proof.py");
const on = stage();

/** proof.py, and what it prints. */
class Python {
  readonly #process: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor(address: string, token: string, peer: string) {
    const python = process.env.IM_PYTHON ?? "python3";
    this.#process = spawn(python, [program, address, token, peer], { stdio: ["pipe", "pipe", "inherit"] });
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  type(line: string): void {
    this.#process.stdin.write(`${line}\n`);
  }

  async prints(): Promise<string> {
    const late = AbortSignal.timeout(PATIENCE_MS);
    const line = await Promise.race([this.#lines.next(), once(late, "abort").then(() => undefined)]);
    assert(line !== undefined && line.done !== true, "Python prints nothing more");
    return line.value;
  }

  stop(): void {
    this.#process.kill();
  }
}

let python: Python | undefined;
after(() => python?.stop());

test("a_program_in_python_and_a_person_at_the_page_talk_to_each_other", async () => {
  const demo = await fetch(`${on.server.url}demo.json`);
  const { users } = (await demo.json()) as { users: { user: string; token: string }[] };
  const token = users.find(({ user }) => user === "bob")?.token;
  assert(token !== undefined);
  python = new Python(on.server.tcp, token, "alice");
  assert.equal(await python.prints(), "ready");

  const alice = await on.person("alice");
  python.type("salut from Python");
  assert.equal(await python.prints(), "acked #1");
  await alice.unread("bob", 1);
  await alice.openRow("bob");
  await alice.sees("salut from Python");

  await alice.type("hello from the page", "and once more");
  assert.equal(await python.prints(), "#2 alice: hello from the page");
  assert.equal(await python.prints(), "#3 alice: and once more");
  python.type("understood");
  await alice.sees("understood");
  assert.deepEqual(await alice.texts(), ["salut from Python", "hello from the page", "and once more", "understood"]);

  await alice.page.reload();
  await alice.isLive();
  assert.deepEqual(await alice.texts(), ["salut from Python", "hello from the page", "and once more", "understood"]);
});
