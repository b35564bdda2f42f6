// The server dies, the network goes.
//
// In: a server that is killed with kill -9, a browser that is taken offline. Out: claims on what is there afterwards.
import assert from "node:assert/strict";
import { test } from "node:test";
import { stage } from "./stage.js";

// So that a link gone silent is noticed soon: nothing closes the sockets of a browser that is taken offline.
const on = stage({ IM_GATEWAY__HEARTBEAT_INTERVAL_MS: "1000", IM_GATEWAY__IDLE_TIMEOUT_MS: "4000" });

test("a_kill_9_and_a_restart_lose_nothing_and_double_nothing", async () => {
  const [alice, bob] = [await on.person("alice"), await on.person("bob")];
  await alice.writeTo("bob");
  await bob.writeTo("alice");
  const numbered = (prefix: string) => Array.from({ length: 20 }, (_, index) => `${prefix} ${index + 1}`);
  await alice.type(...numbered("before"));
  await on.away(async () => {
    // Some of them have their answer by now, some do not.
    await on.server.kill();
    await alice.connection("reconnecting");
    await alice.type(...numbered("without"));
    await bob.type("from bob, without");
    await alice.seesStatus("without 20", "sending");
    await on.server.start();
    await Promise.all([alice.isLive(), bob.isLive()]);
  });
  await alice.type("after");
  await bob.sees("after");
  await alice.sees("from bob, without");
  await Promise.all([alice.everythingIsStored(), bob.everythingIsStored()]);

  const seen = await bob.texts();
  assert.deepEqual(await alice.texts(), seen);
  const fromAlice = seen.filter((text) => text !== "from bob, without");
  assert.deepEqual(fromAlice, [...numbered("before"), ...numbered("without"), "after"]);
  assert.equal(seen.length, fromAlice.length + 1);
});

test("after_being_offline_for_a_while_both_sides_have_everything", async () => {
  const [carol, dave] = [await on.person("carol"), await on.person("dave")];
  await carol.writeTo("dave");
  await dave.writeTo("carol");
  await on.away(async () => {
    await carol.context.setOffline(true);
    await carol.connection("reconnecting");
    await carol.type("written offline 1", "written offline 2");
    await carol.seesStatus("written offline 2", "sending");
    await dave.type("meanwhile");
    await dave.seesStatus("meanwhile", "stored");
    assert.deepEqual(await dave.texts(), ["meanwhile"]);
    await carol.context.setOffline(false);
    await carol.isLive();
  });
  await carol.sees("meanwhile");
  await dave.sees("written offline 2");
  await carol.everythingIsStored();
  assert.deepEqual(await carol.texts(), ["meanwhile", "written offline 1", "written offline 2"]);
  assert.deepEqual(await dave.texts(), await carol.texts());
});

test("while_away_the_page_says_so_and_counts_down", async () => {
  const alice = await on.person("alice");
  await on.away(async () => {
    await on.server.kill();
    await alice.connection(/reconnecting in \d+ s/);
    await alice.page.getByRole("button", { name: "Try now" }).waitFor();
    await on.server.start();
    await alice.isLive();
  });
  await alice.page.getByRole("button", { name: "Try now" }).waitFor({ state: "hidden" });
});

test("a_server_that_was_set_up_anew_is_met_with_a_fresh_token_and_an_empty_list", async () => {
  const [alice, bob] = [await on.person("alice"), await on.person("bob")];
  await alice.writeTo("bob");
  await alice.type("of the old days");
  await bob.row("alice").waitFor();
  // Unanswered it would be sent again, to the new server.
  await alice.everythingIsStored();
  await on.away(async () => {
    await on.server.kill();
    await Promise.all([alice.connection("reconnecting"), bob.connection("reconnecting")]);
    await on.server.wipe();
    await on.server.start();
    await Promise.all([alice.isLive(), bob.isLive()]);
  });
  await alice.page.getByText("The server's history was replaced").waitFor();
  await bob.row("alice").waitFor({ state: "detached" });
  assert.deepEqual(await alice.texts(), []);
  await alice.type("of the new days");
  await bob.openRow("alice");
  await bob.sees("of the new days");
  assert.deepEqual(await bob.texts(), ["of the new days"]);
});
