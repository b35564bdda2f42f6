// The page is loaded again.
//
// In: a server, two browser profiles. Out: claims on what outlives a reload.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Person } from "./person.js";
import { stage } from "./stage.js";

const on = stage();

test("a_reload_loses_nothing_and_doubles_nothing", async () => {
  const [alice, bob] = [await on.person("alice"), await on.person("bob")];
  await alice.writeTo("bob");
  await bob.writeTo("alice");
  await alice.type("one", "two");
  await bob.sees("two");
  await bob.type("three");
  await alice.sees("three");
  await alice.page.reload();
  await alice.isLive();
  await alice.sees("three");
  assert.deepEqual(await alice.texts(), ["one", "two", "three"]);

  // In the middle of a burst.
  const burst = Array.from({ length: 40 }, (_, index) => `burst ${index + 1}`);
  await alice.type(...burst);
  await outboxIsKept(alice, "burst 40");
  await alice.page.reload();
  await alice.isLive();
  await alice.sees("burst 40");
  await alice.everythingIsStored();
  await bob.sees("burst 40");
  assert.deepEqual(await alice.texts(), ["one", "two", "three", ...burst]);
  assert.deepEqual(await bob.texts(), await alice.texts());
});

test("what_was_not_sent_before_the_page_was_left_is_sent_when_it_is_back", async () => {
  const [carol, dave] = [await on.person("carol"), await on.person("dave")];
  await carol.writeTo("dave");
  await dave.writeTo("carol");
  await carol.type("first");
  await dave.sees("first");
  await on.away(async () => {
    await on.server.kill();
    await carol.connection("reconnecting");
    await carol.type("written without a server", "and one more");
    await carol.seesStatus("and one more", "sending");
    await outboxIsKept(carol, "and one more");
    await carol.page.goto("about:blank");
    await on.server.start();
    await dave.isLive();
    assert.deepEqual(await dave.texts(), ["first"]);
    await carol.page.goto(`${on.server.url}#carol/dave`);
    await carol.isLive();
  });
  await dave.sees("and one more");
  await carol.seesStatus("and one more", "read");
  assert.deepEqual(await dave.texts(), ["first", "written without a server", "and one more"]);
  assert.deepEqual(await carol.texts(), await dave.texts());
});

test("a_reload_keeps_the_open_chat_and_the_device", async () => {
  const alice = await on.person("alice");
  await alice.writeTo("carol");
  const devices = () => alice.page.evaluate(async () => (await indexedDB.databases()).map(({ name }) => name));
  const before = await devices();
  assert.equal(before.length, 1);
  await alice.page.reload();
  await alice.isLive();
  await alice.chatIsOpen("carol");
  assert.deepEqual(await devices(), before);
});

/** The message is in the browser's storage, or has its answer: from here on it may not be lost. */
async function outboxIsKept(person: Person, text: string): Promise<void> {
  await person.page.waitForFunction(async (wanted) => {
    const answered = [...document.querySelectorAll('#messages .mine:not([data-status="sending"])')];
    if (answered.some((message) => message.querySelector(".text")?.textContent === wanted)) return true;
    for (const { name } of await indexedDB.databases()) {
      const kept = await new Promise<{ body: Uint8Array }[]>((resolve, reject) => {
        const opening = indexedDB.open(name ?? "");
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => {
          const all = opening.result.transaction("outbox").objectStore("outbox").getAll();
          all.onsuccess = () => {
            opening.result.close();
            resolve(all.result);
          };
        };
      });
      if (kept.some(({ body }) => new TextDecoder().decode(body).includes(wanted))) return true;
    }
    return false;
  }, text);
}
