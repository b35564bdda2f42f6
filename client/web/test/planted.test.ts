// Deliberate bugs in the compiled client, each of which a test must find.
//
// In: dist and dist-test. Out: a copy with one place changed, and the verdict of the named test on it. Always: a bug
// that can no longer be planted is a failure too.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

interface Planted {
  readonly bug: string;
  readonly file: string;
  readonly was: string;
  readonly becomes: string;
  /** File and name of the test that finds it. */
  readonly test: readonly [file: string, name: string];
}

const PLANTED: readonly Planted[] = [
  {
    bug: "a gap is ignored",
    file: "core/gaps.js",
    was: "if (entry.seq === place.seq + 1n) {",
    becomes: "if (entry.seq > place.seq) {",
    test: ["gaps", "a gap is pulled"],
  },
  {
    bug: "a doubled push is handed over twice",
    file: "core/gaps.js",
    was: "if (entry.seq === place.seq + 1n) {",
    becomes: "if (entry.seq <= place.seq + 1n) {",
    test: ["gaps", "entries that come twice are handed over once"],
  },
  {
    bug: "`after` is left out",
    file: "core/outbox.js",
    was: "commandOf(attempt.write, after(lane))",
    becomes: 'commandOf(attempt.write, "")',
    test: ["outbox", "pipelined sends name the one before and stop at the server's limit"],
  },
  {
    bug: "`after` is that of the first attempt",
    file: "core/outbox.js",
    was: "commandOf(attempt.write, after(lane))",
    becomes: "commandOf(attempt.write, (attempt.after ??= after(lane)))",
    test: ["outbox", "sends behind a retry are resent in order, with `after` computed anew"],
  },
  {
    bug: "a group command is no link of the chain",
    file: "core/write.js",
    was: "command.value.after = after;",
    becomes: 'command.value.after = "";',
    test: ["requests", "a group command between two sends keeps their order when the first is refused"],
  },
  {
    bug: "a repetition gets a new id",
    file: "core/write.js",
    was: "create(SendSchema, { to, clientMessageId, after, body })",
    becomes: "create(SendSchema, { to, clientMessageId: `${clientMessageId}-${Date.now()}`, after, body })",
    test: ["outbox", "a send is repeated with the same id until it is answered"],
  },
  {
    bug: "only the failed send is repeated, not those behind it",
    file: "core/outbox.js",
    was: "lane.failures += 1;\n        goBack(lane, index);",
    becomes: "lane.failures += 1;\n        goBack(lane, lane.written - 1);",
    test: ["outbox", "sends behind a retry are resent in order, with `after` computed anew"],
  },
  {
    bug: "BUSY pauses nobody",
    file: "core/outbox.js",
    was: "this.#pausedUntilMs = Math.max(",
    becomes: "void Math.max(",
    test: ["outbox", "BUSY pauses every conversation for as long as the server asked"],
  },
  {
    bug: "live pushes are applied before the sync",
    file: "core/sync.js",
    was: 'if (this.#step.name === "live")\n            gaps.apply',
    becomes: "if (true)\n            gaps.apply",
    test: ["sync", "sync comes before live on every connection"],
  },
  {
    bug: "a new epoch forgets nothing",
    file: "core/receive.js",
    was: "core.epoch !== signedIn.epoch)",
    becomes: "false)",
    test: ["sync", "a new epoch forgets cursors and conversations, and keeps sends"],
  },
  {
    bug: "the server's delay is not obeyed",
    file: "core/backoff.js",
    was: "return atLeastMs + ",
    becomes: "return ",
    test: ["link", "back-off obeys the server"],
  },
  {
    bug: "every close code reconnects",
    file: "core/link.js",
    was: "return cause.code >= FINAL_CLOSE_CODES || cause.code < 4000;",
    becomes: "return false;",
    test: ["link", "no reconnect after a final close code"],
  },
  {
    bug: "an expired token is used again",
    file: "core/core.js",
    was: "this.#token = undefined;",
    becomes: "",
    test: ["link", "an expired token is fetched anew and never used again"],
  },
  {
    bug: "sends are not stored",
    file: "core/core.js",
    was: "this.changes.added(send);",
    becomes: "",
    test: ["state", "sends without an answer survive a reload, in order and with their ids"],
  },
  {
    bug: "who the storage names comes before who the token names",
    file: "start.js",
    was: "user === undefined && token === undefined ? undefined : named(token)",
    becomes: "named(token)",
    test: ["client", "somebody else's storage is emptied also where the token has to be fetched to know"],
  },
  {
    bug: "a token's device is not signed in with",
    file: "client.js",
    was: "this.#options.device ?? deviceOf(token)",
    becomes: "this.#options.device",
    test: ["client", "the device is that of the token, whoever names the user and whichever way the token comes"],
  },
  {
    bug: "a storage that was emptied is given only what is new",
    file: "saver.js",
    was: "this.#core.saveAgain();",
    becomes: "",
    test: ["client", "a database that is deleted under the page is filled again, with everything"],
  },
  {
    bug: "a connection that the browser ended is used again",
    file: "indexeddb.js",
    was: "if (this.#connection === connection)\n                this.close();",
    becomes: "",
    test: ["storage", "IndexedDB: a connection that the browser ended is opened anew"],
  },
  {
    bug: "a storage that could not be read is written to",
    file: "start.js",
    was: "storage: memoryStorage({ entriesKept: storage.entriesKept })",
    becomes: "storage",
    test: ["client", "a storage that cannot be read is told, and memory takes its place until the next start"],
  },
  {
    bug: "every final refusal of a sync forgets the cursors",
    file: "core/receive.js",
    was: "isFinal && error.code === ErrorCode.RESET && core.sync",
    becomes: "isFinal && core.sync",
    test: ["sync", "any other final refusal of a sync forgets nothing, is told once, and asks again later"],
  },
  {
    bug: "a device without history begins behind what it wrote itself",
    file: "core/sync.js",
    was: "held.log === log && held.entry.seq <= headSeq",
    becomes: "false",
    test: ["sync", "a device that wants no history is told what it writes itself while it begins"],
  },
  {
    bug: "an old token that has expired is replaced later",
    file: "core/link.js",
    was: "(this.#failures === 0 || !this.#isTokenUntried)",
    becomes: "this.#failures === 0",
    test: ["link", "a token that expired while there was no link is replaced at once, however long that was"],
  },
  {
    bug: "stored conversations are not told",
    file: "core/conversations.js",
    was: "this.#told.add(state.conversationId);\n        this.#moved.add(state.conversationId);",
    becomes: "this.#told.add(state.conversationId);",
    test: ["client", "after a reload each stored conversation is told, also where nothing has moved"],
  },
  {
    bug: "unread counts from the head's seq",
    file: "core/conversations.js",
    was: "Number(state.headOrdinal - covered)",
    becomes: "Number(state.headSeq - covered)",
    test: ["conversations", "unread is what lies behind the higher of read cursor and floor, and never negative"],
  },
];

const HERE = fileURLToPath(new URL("..", import.meta.url));

function outcomes(folder: string, [file, name]: Planted["test"]): { passed: number; failed: number } {
  const env: NodeJS.ProcessEnv = { ...process.env };
  // This process is itself a test of a runner: the one it starts is not.
  delete env["NODE_TEST_CONTEXT"];
  const pattern = `^${name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`;
  const args = [
    "--test",
    "--test-reporter=tap",
    `--test-name-pattern=${pattern}`,
    join(folder, `dist-test/${file}.test.js`),
  ];
  const { stdout } = spawnSync(process.execPath, args, { env, encoding: "utf8", timeout: 120_000, killSignal: "SIGKILL" });
  const count = (word: string) => Number(new RegExp(`^# ${word} (\\d+)$`, "m").exec(stdout)?.[1]);
  return { passed: count("pass"), failed: count("fail") };
}

for (const { bug, file, was, becomes, test: finder } of PLANTED) {
  test(`planted: ${bug}; found by "${finder[1]}"`, () => {
    const folder = mkdtempSync(join(HERE, "dist-planted-"));
    try {
      for (const part of ["dist", "dist-test", "package.json"])
        cpSync(join(HERE, part), join(folder, part), { recursive: true });
      assert.deepEqual(outcomes(folder, finder), { passed: 1, failed: 0 }, "the test passes without the bug");
      const path = join(folder, "dist", file);
      const code = readFileSync(path, "utf8");
      assert.equal(code.split(was).length, 2, `found once: ${was}`);
      writeFileSync(
        path,
        code.replace(was, () => becomes),
      );
      assert.deepEqual(outcomes(folder, finder), { passed: 0, failed: 1 }, "the test fails with the bug");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}
