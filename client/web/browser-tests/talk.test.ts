// Two people talk.
//
// In: a server, two browser profiles. Out: claims on messages, their order and their states.
import assert from "node:assert/strict";
import { test } from "node:test";
import { stage } from "./stage.js";

const on = stage();

test("messages_go_both_ways_and_tell_that_they_were_read", async () => {
  const [alice, bob] = [await on.person("alice"), await on.person("bob")];
  await alice.page.getByRole("button", { name: "bob", exact: true }).click();
  await alice.type("Hello Bob");
  await alice.seesStatus("Hello Bob", "stored");

  await bob.unread("alice", 1);
  await bob.openRow("alice");
  await bob.sees("Hello Bob");
  await bob.unread("alice", 0);
  await alice.seesStatus("Hello Bob", "read");
  await alice.page.getByText("Read by bob").waitFor();

  await bob.type("Hello Alice");
  await alice.sees("Hello Alice");
  await bob.seesStatus("Hello Alice", "read");
  assert.deepEqual(await alice.texts(), ["Hello Bob", "Hello Alice"]);
  assert.deepEqual(await bob.texts(), await alice.texts());
});

test("two_hundred_messages_typed_fast_arrive_in_order", async () => {
  const [alice, bob] = [await on.person("alice"), await on.person("bob")];
  await alice.writeTo("bob");
  await bob.writeTo("alice");
  const before = (await bob.texts()).length;
  const typed = Array.from({ length: 200 }, (_, index) => `message ${index + 1}`);
  await alice.type(...typed);
  await bob.seesCount(before + typed.length);
  await alice.everythingIsStored();
  assert.deepEqual((await bob.texts()).slice(before), typed);
  assert.deepEqual((await alice.texts()).slice(before), typed);
});

test("what_people_write_stays_text", async () => {
  const [alice, bob] = [await on.person("alice"), await on.person("bob")];
  const markup = `<img src=x onerror="document.title='taken'"><b>bold</b> & "quotes" \u{1F44D}`;
  await alice.writeTo("bob");
  await bob.writeTo("alice");
  await alice.type(markup);
  await bob.sees(markup);
  assert.equal(await bob.page.locator("#messages img, #messages b, #conversations b").count(), 0);
  assert.match(await bob.page.title(), /bob · im-server$/);
});

test("a_refused_message_stays_with_its_reason_until_it_is_dismissed", async () => {
  const alice = await on.person("alice");
  await alice.writeTo("bob");
  const tooLong = "too long ".repeat(2000).trim();
  await alice.type(tooLong, "short enough");
  await alice.page.getByText("Not sent: that is too long.").waitFor();
  await alice.seesStatus("short enough", "stored");
  await alice.page.getByRole("button", { name: "Dismiss" }).click();
  await alice.page.getByText("Not sent: that is too long.").waitFor({ state: "detached" });
});

test("what_is_being_written_stays_when_a_refused_message_is_edited", async () => {
  const alice = await on.person("alice");
  await alice.writeTo("bob");
  await alice.type("too long ".repeat(2000).trim());
  await alice.page.getByText("Not sent: that is too long.").waitFor();
  const box = alice.page.getByRole("textbox", { name: "Message" });
  await box.fill("half a thought");
  await alice.page.getByRole("button", { name: "Edit" }).click();
  assert.match(await box.inputValue(), /^too long .* too long\nhalf a thought$/);
  await alice.page.getByText("Not sent: that is too long.").waitFor({ state: "detached" });
});

test("the_enter_that_ends_a_composition_sends_nothing", async () => {
  const alice = await on.person("alice");
  await alice.writeTo("bob");
  const box = alice.page.getByRole("textbox", { name: "Message" });
  await box.fill("\u3053\u3093");
  // Safari tells it by the code alone: the composition is over by then.
  const sent = await box.evaluate((field) => {
    const enter = new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true, cancelable: true });
    return !field.dispatchEvent(enter);
  });
  assert.deepEqual([sent, await box.inputValue()], [false, "\u3053\u3093"]);
  await box.press("Enter");
  await alice.seesStatus("\u3053\u3093", "stored");
});

test("one_may_write_to_oneself_and_to_any_user_id", async () => {
  const alice = await on.person("alice");
  await alice.page.getByRole("textbox", { name: "User id to write to" }).fill("alice");
  await alice.page.keyboard.press("Enter");
  await alice.chatIsOpen("alice (you)");
  await alice.type("a note");
  await alice.seesStatus("a note", "stored");
  await alice.writeTo("somebody-new_1");
  await alice.type("welcome");
  await alice.seesStatus("welcome", "stored");
  await alice.row("somebody-new_1").waitFor();
});

test("a_tab_can_become_somebody_else", async () => {
  const alice = await on.person("alice");
  await alice.page.getByRole("button", { name: "Switch" }).click();
  await alice.page.getByText("Be alice in this tab, then open a second tab as bob").waitFor();
  await alice.page.getByRole("button", { name: "carol" }).click();
  await alice.page.locator("#me", { hasText: "carol" }).waitFor();
  await alice.isLive();
  const opened = alice.context.waitForEvent("page");
  await alice.page.getByRole("link", { name: "Open a second tab as alice" }).click();
  const second = await opened;
  await second.locator("#me", { hasText: "alice" }).waitFor();
  await second.locator("#chat-title", { hasText: "carol" }).waitFor();
});

test("the_page_follows_the_content_policy_it_is_served_with", async () => {
  const page = await on.page();
  const response = await page.goto(on.server.url);
  const policy = response?.headers()["content-security-policy"] ?? "";
  assert.doesNotMatch(policy, /unsafe-inline|unsafe-eval|\*/);
  assert.match(policy, /default-src 'none'/);
  await page.getByRole("button", { name: "alice" }).waitFor();
  // A breach of it would be an error in the console.
});
