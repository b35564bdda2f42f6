// Without a mouse, without eyes, in the dark.
//
// In: the page in each of its views, light and dark. Out: claims on names, announcements, keys and contrast.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { contrastsTooLow } from "./contrast.js";
import { stage } from "./stage.js";

const on = stage();

test("every_button_link_and_field_has_a_name", async () => {
  const first = await on.page();
  await first.goto(on.server.url);
  await first.getByText("Sign in with a token of your own").click();
  await everythingHasAName(first);

  const alice = await on.person("alice");
  await everythingHasAName(alice.page);
  await alice.writeTo("bob");
  await alice.type("hello");
  await everythingHasAName(alice.page);
  await alice.page.getByRole("button", { name: "New group" }).click();
  await everythingHasAName(alice.page);
  assert.equal(await alice.page.locator("html").getAttribute("lang"), "en");
});

test("arriving_messages_and_the_connection_are_announced", async () => {
  const alice = await on.person("alice");
  await alice.writeTo("bob");
  await alice.page.getByRole("log", { name: "Messages" }).waitFor();
  await alice.page.getByRole("status").filter({ hasText: "live" }).waitFor();
});

test("two_people_can_talk_by_keyboard_alone", async () => {
  const page = await on.page();
  await page.goto(on.server.url);
  const { keyboard } = page;
  await page.getByRole("button", { name: "alice" }).waitFor();
  await keyboard.press("Tab");
  await keyboard.press("Enter");
  await page.locator("#connection", { hasText: "live" }).waitFor();
  await tabTo(page, "carol");
  await keyboard.press("Enter");
  await page.locator("#chat-title", { hasText: "carol" }).waitFor();
  await keyboard.type("typed only");
  await keyboard.press("Shift+Enter");
  await keyboard.type("on two lines");
  await keyboard.press("Enter");
  await page.locator('#messages [data-status="stored"]', { hasText: "typed only\non two lines" }).waitFor();
});

for (const colorScheme of ["light", "dark"] as const) {
  test(`text_has_enough_contrast_in_${colorScheme}`, async () => {
    const first = await on.page({ colorScheme });
    await first.goto(on.server.url);
    await first.getByRole("button", { name: "alice" }).waitFor();
    assert.deepEqual(await contrastsTooLow(first), []);
    const [alice, bob] = [await on.person("alice", { colorScheme }), await on.person("bob")];
    await alice.writeTo("bob");
    await alice.type("x".repeat(17_000), "fine");
    await alice.page.getByText("Not sent: that is too long.").waitFor();
    await bob.writeTo("alice");
    await bob.type(`an answer in ${colorScheme}`);
    await alice.sees(`an answer in ${colorScheme}`);
    assert.deepEqual(await contrastsTooLow(alice.page), []);
  });
}

async function everythingHasAName(page: Page): Promise<void> {
  const session = await page.context().newCDPSession(page);
  const { nodes } = (await session.send("Accessibility.getFullAXTree")) as { nodes: AccessibilityNode[] };
  const roles = ["button", "link", "textbox", "checkbox", "listbox", "dialog", "log", "navigation"];
  const targets = nodes.filter((node) => !node.ignored && roles.includes(node.role?.value ?? ""));
  assert(targets.length > 3);
  const nameless = targets.filter((node) => (node.name?.value ?? "") === "").map((node) => node.role?.value);
  assert.deepEqual(nameless, []);
  await session.detach();
}

interface AccessibilityNode {
  readonly ignored: boolean;
  readonly role?: { readonly value: string };
  readonly name?: { readonly value: string };
}

/** Presses Tab until the focus is on the button with that text. */
async function tabTo(page: Page, text: string): Promise<void> {
  for (let pressed = 0; pressed < 30; pressed += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate((wanted) => document.activeElement?.textContent?.endsWith(wanted) === true, text)) return;
  }
  assert.fail(`Tab does not reach ${text}`);
}
