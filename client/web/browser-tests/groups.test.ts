// Groups.
//
// In: three people. Out: claims on making, reading, adding, removing and leaving.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Person } from "./person.js";
import { stage } from "./stage.js";

const on = stage();

test("a_group_counts_unread_and_tells_who_has_read", async () => {
  const [alice, bob, carol] = [await on.person("alice"), await on.person("bob"), await on.person("carol")];
  await makeGroup(alice, "Picnic", ["bob", "carol"]);
  await alice.type("Saturday?", "Bring bread");
  await Promise.all([bob.unread("Picnic", 2), carol.unread("Picnic", 2)]);

  await bob.openRow("Picnic");
  await bob.sees("Bring bread");
  await alice.page.getByText("Read by bob").waitFor();
  await carol.unread("Picnic", 2);
  await carol.openRow("Picnic");
  await alice.page.getByText("Read by everyone").waitFor();
  await alice.page.getByRole("img", { name: "Read up to here by bob and carol" }).waitFor();

  await carol.type("With pleasure");
  await Promise.all([alice.sees("With pleasure"), bob.sees("With pleasure")]);
  await alice.page.getByRole("button", { name: "Members" }).click();
  await alice.page.getByRole("listitem").filter({ hasText: "carol" }).getByText("has read everything").waitFor();
});

test("the_creator_adds_and_removes_and_anyone_leaves", async () => {
  const [alice, bob, dave] = [await on.person("alice"), await on.person("bob"), await on.person("dave")];
  await makeGroup(alice, "Choir", ["bob"]);
  await bob.openRow("Choir");
  await alice.page.getByRole("button", { name: "Members" }).click();
  await alice.page.getByRole("textbox", { name: "User id to add" }).fill("dave");
  await alice.page.getByRole("button", { name: "Add", exact: true }).click();
  await bob.page.locator("#messages").getByText("alice added dave").waitFor();
  await dave.openRow("Choir");
  await dave.type("Here I am");
  await bob.sees("Here I am");

  await alice.page.getByRole("button", { name: "Remove bob" }).click();
  await bob.page.getByText("You are no longer a member of this group.").waitFor();
  await dave.page.locator("#messages").getByText("alice removed bob").waitFor();

  await dave.page.getByRole("button", { name: "Members" }).click();
  await dave.page.getByRole("button", { name: "Leave the group" }).click();
  await dave.page.getByText("You are no longer a member of this group.").waitFor();
  await alice.page.locator("#messages").getByText("dave left").waitFor();
});

test("who_was_removed_and_added_again_sees_no_messages_side_by_side_that_were_not", async () => {
  const [alice, carol] = [await on.person("alice"), await on.person("carol")];
  await makeGroup(alice, "Band", ["carol"]);
  await carol.openRow("Band");
  await alice.type("before");
  await carol.sees("before");
  const members = async (name: string, action: () => Promise<void>) => {
    await alice.page.getByRole("button", { name: "Members" }).click();
    await action();
    await alice.page.getByRole("button", { name: "Close" }).click();
    await alice.page.locator("#messages").getByText(name).waitFor();
  };
  await members("You removed carol", () => alice.page.getByRole("button", { name: "Remove carol" }).click());
  await carol.page.getByText("You are no longer a member of this group.").waitFor();
  await alice.type("without carol");
  await members("You added carol", async () => {
    await alice.page.getByRole("textbox", { name: "User id to add" }).fill("carol");
    await alice.page.getByRole("button", { name: "Add", exact: true }).click();
  });
  await alice.type("after");
  await carol.sees("after");
  await carol.page.reload();
  await carol.sees("after");
  assert.deepEqual(await carol.texts(), ["after"]);
});

test("back_closes_the_dialog_that_was_about_the_chat", async () => {
  const alice = await on.person("alice");
  await makeGroup(alice, "Walk", ["bob"]);
  const { page } = alice;
  await page.getByRole("button", { name: "Members" }).click();
  const dialog = page.getByRole("dialog", { name: "Members" });
  await dialog.waitFor();
  await page.goBack();
  await dialog.waitFor({ state: "hidden" });
});

async function makeGroup(creator: Person, name: string, members: readonly string[]): Promise<void> {
  const { page } = creator;
  await page.getByRole("button", { name: "New group" }).click();
  await page.getByRole("textbox", { name: "Name", exact: true }).fill(name);
  for (const member of members) await page.getByRole("checkbox", { name: member }).check();
  await page.getByRole("button", { name: "Make the group" }).click();
  await creator.chatIsOpen(name);
}
