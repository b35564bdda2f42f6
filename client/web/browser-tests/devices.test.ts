// One user on several devices.
//
// In: several browser profiles of one user. Out: claims on what they all show.
import assert from "node:assert/strict";
import { test } from "node:test";
import { stage } from "./stage.js";

const on = stage();

test("a_third_device_of_the_same_user_converges", async () => {
  const [phone, laptop, bob] = [await on.person("alice"), await on.person("alice"), await on.person("bob")];
  await phone.writeTo("bob");
  await laptop.writeTo("bob");
  await bob.writeTo("alice");
  await phone.type("from the phone");
  await laptop.sees("from the phone");
  await laptop.type("from the laptop");
  await phone.sees("from the laptop");
  await bob.sees("from the laptop");
  await bob.type("from bob");
  await Promise.all([phone.sees("from bob"), laptop.sees("from bob")]);

  const tablet = await on.person("alice");
  await tablet.openRow("bob");
  await tablet.sees("from bob");
  await tablet.type("from the tablet");
  await Promise.all([phone.sees("from the tablet"), laptop.sees("from the tablet"), bob.sees("from the tablet")]);
  const all = await Promise.all([phone, laptop, tablet, bob].map((person) => person.texts()));
  for (const texts of all) assert.deepEqual(texts, ["from the phone", "from the laptop", "from bob", "from the tablet"]);
});

test("what_is_read_on_one_device_is_read_on_all", async () => {
  const [phone, laptop, dave] = [await on.person("carol"), await on.person("carol"), await on.person("dave")];
  await dave.writeTo("carol");
  await dave.type("unread yet");
  await Promise.all([phone.unread("dave", 1), laptop.unread("dave", 1)]);
  assert.match(await laptop.page.title(), /^\(1\) /);
  await phone.openRow("dave");
  await laptop.unread("dave", 0);
  assert.doesNotMatch(await laptop.page.title(), /^\(/);
});

test("two_tabs_of_one_user_in_one_profile_are_two_devices", async () => {
  const [first, bob] = [await on.person("alice"), await on.person("bob")];
  await bob.writeTo("alice");
  const second = await first.context.newPage();
  await second.goto(`${on.server.url}#alice`);
  await second.locator("#connection", { hasText: "live" }).waitFor();
  await bob.type("to both tabs");
  await first.unread("bob", 1);
  await second.locator("#conversations .badge").waitFor();
  await first.isLive();
});

test("a_newer_login_of_the_same_device_signs_the_older_out_and_either_may_take_over", async () => {
  const older = await on.person("alice");
  // A copy of the profile is the same device.
  const newer = await on.person("alice", { storageState: await older.context.storageState() });
  await older.connection("signed in elsewhere");
  await older.page.getByRole("button", { name: "Use here" }).click();
  await older.isLive();
  await newer.connection("signed in elsewhere");
});
