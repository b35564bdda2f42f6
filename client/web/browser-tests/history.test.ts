// What was said before.
//
// In: a long conversation, a device that is new to it. Out: claims on older messages.
import assert from "node:assert/strict";
import { test } from "node:test";
import { stage } from "./stage.js";

const on = stage();

test("a_new_device_shows_the_newest_page_and_loads_older_ones_on_scrolling_up", async () => {
  const alice = await on.person("alice");
  await alice.writeTo("bob");
  const typed = Array.from({ length: 130 }, (_, index) => `line ${index + 1}`);
  await alice.type(...typed);
  await alice.everythingIsStored();

  const bob = await on.person("bob");
  await bob.openRow("alice");
  await bob.sees("line 130");
  const first = await bob.texts();
  assert(first.length < typed.length, "not everything is loaded at once");
  assert.deepEqual(first, typed.slice(-first.length));

  const scroller = bob.page.locator("#scroller");
  while ((await bob.texts()).length < typed.length) {
    const shown = (await bob.texts()).length;
    await scroller.evaluate((box) => box.scrollTo({ top: 0 }));
    await bob.seesCount(Math.min(typed.length, shown + 1));
  }
  assert.deepEqual(await bob.texts(), typed);
  await bob.page.getByRole("button", { name: "Earlier messages" }).waitFor({ state: "hidden" });
});

test("who_reads_further_up_sees_nothing_move_when_a_message_arrives", async () => {
  const [alice, bob] = [await on.person("alice"), await on.person("bob")];
  await alice.writeTo("bob");
  await bob.writeTo("alice");
  await alice.sees("line 130");
  const scroller = alice.page.locator("#scroller");
  await scroller.evaluate((box) => box.scrollTo({ top: box.scrollHeight / 2 }));
  await alice.page.getByRole("button", { name: "Newest" }).waitFor();
  const before = await scroller.evaluate((box) => box.scrollTop);
  await bob.type("from below");
  await alice.page.getByRole("button", { name: "1 new" }).waitFor();
  assert.equal(await scroller.evaluate((box) => box.scrollTop), before);
  await bob.seesStatus("from below", "stored");
  await alice.page.getByRole("button", { name: "1 new" }).click();
  await bob.seesStatus("from below", "read");
});
