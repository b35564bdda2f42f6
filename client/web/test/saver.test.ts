// Claims about a storage that fails, and how it is tried again.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { STORAGE_TIMEOUT_MS } from "../dist/deadline.js";
import { Saver } from "../dist/saver.js";
import { type Storage, type StorageChanges, memoryStorage } from "../dist/storage.js";
import { ANN_BOB, Script, ack } from "./script.js";

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A core, its saver, and a storage that does what `save` says. */
function saving(context: TestContext, save: (changes: StorageChanges) => Promise<void>) {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const [script, saves, told] = [Script.live(), [] as StorageChanges[], [] as string[]];
  const storage: Storage = memoryStorage();
  storage.save = (changes) => {
    saves.push(changes);
    return save(changes);
  };
  const saver = new Saver(script.core, storage, (error) => told.push((error as Error).message));
  const tick = async (ms: number) => {
    context.mock.timers.tick(ms);
    await turn();
  };
  return { script, saver, saves, told, tick };
}

test("a storage that fails is told once, and tried again after ever longer waits", async (context) => {
  let isFull = true;
  const { saver, saves, told, tick } = saving(context, async () => {
    if (isFull) throw new Error("quota");
  });
  saver.poke();
  await turn();
  const waitsS: number[] = [];
  while (waitsS.length < 9) {
    const before = saves.length;
    let waitedS = 0;
    for (; saves.length === before; waitedS++) {
      assert.ok(waitedS < 100, "it is not tried again");
      await tick(1_000);
    }
    waitsS.push(waitedS);
  }
  assert.deepEqual(waitsS, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
  assert.deepEqual(told, ["quota"]);
  isFull = false;
  await tick(60_000);
  const all = saves.length;
  await tick(60_000);
  assert.equal(saves.length, all, "saved, and nothing has changed since");
});

test("a storage that took something in between is told of again, and tried again soon", async (context) => {
  const outcomes = [true, false, true];
  const { script, saver, saves, told, tick } = saving(context, async () => {
    if (outcomes.shift()) throw new Error("quota");
  });
  saver.poke();
  await turn();
  await tick(1_000);
  script.send("m1");
  saver.poke();
  await turn();
  assert.deepEqual([saves.length, told], [3, ["quota", "quota"]]);
  await tick(1_000);
  assert.equal(saves.length, 4);
});

test("a storage that does not answer is told, and gets no second save before it has", async (context) => {
  let answer = () => {};
  const { script, saver, saves, told, tick } = saving(context, () => new Promise((resolve) => (answer = resolve)));
  saver.poke();
  script.send("m1");
  saver.poke();
  await tick(STORAGE_TIMEOUT_MS - 1);
  assert.deepEqual(told, []);
  await tick(STORAGE_TIMEOUT_MS);
  assert.deepEqual([saves.length, told.length], [1, 1]);
  answer();
  await turn();
  assert.deepEqual(
    saves.map(({ outboxAdded }) => outboxAdded.map(({ clientMessageId }) => clientMessageId)),
    [[], ["m1"]],
  );
  const closed = saver.close();
  await tick(STORAGE_TIMEOUT_MS);
  await closed;
});

test("closing tries what has failed once more", async (context) => {
  let isFull = true;
  const { script, saver, saves } = saving(context, async () => {
    if (isFull) throw new Error("quota");
  });
  script.send("m1");
  script.send("m2");
  script.answer(script.nextSend().request, ack(ANN_BOB, 1n));
  saver.poke();
  await turn();
  isFull = false;
  await saver.close();
  assert.deepEqual(
    saves.at(-1)?.outboxAdded.map(({ clientMessageId }) => clientMessageId),
    ["m2"],
  );
  assert.equal(script.core.takeChanges(), undefined);
});
