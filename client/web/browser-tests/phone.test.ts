// A phone's width.
//
// In: a view of 360 by 740 points. Out: claims on the two views and on what fits.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { stage } from "./stage.js";

const on = stage();
const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true } as const;

test("on_a_phone_the_list_and_the_chat_are_two_views", async () => {
  const alice = await on.person("alice", PHONE);
  const { page } = alice;
  await alice.writeTo("bob");
  assert.equal(await page.getByRole("heading", { name: "Conversations" }).isVisible(), false);
  await alice.type("from a phone");
  await alice.seesStatus("from a phone", "stored");
  await page.getByRole("link", { name: "Back to conversations" }).click();
  await page.getByRole("heading", { name: "Conversations" }).waitFor();
  assert.equal(await page.getByRole("textbox", { name: "Message" }).isVisible(), false);
  await alice.openRow("bob");
  await page.goBack();
  await page.getByRole("heading", { name: "Conversations" }).waitFor();
});

test("focus_goes_with_the_view", async () => {
  const alice = await on.person("alice", PHONE);
  await alice.writeTo("bob");
  await alice.type("hello");
  const focused = () => alice.page.evaluate(() => document.activeElement?.textContent);
  await alice.page.getByRole("link", { name: "Back to conversations" }).click();
  await alice.page.getByRole("heading", { name: "Conversations" }).waitFor();
  assert.equal(await focused(), "Conversations");
  await alice.openRow("bob");
  assert.equal(await focused(), "bob");
});

test("a_chat_that_is_not_in_view_is_not_marked_read", async () => {
  const [alice, bob] = [await on.person("alice", PHONE), await on.person("bob")];
  await alice.writeTo("bob");
  await alice.page.getByRole("link", { name: "Back to conversations" }).click();
  await bob.writeTo("alice");
  await bob.type("are you there?");
  await alice.unread("bob", 1);
  await bob.seesStatus("are you there?", "stored");
  await alice.openRow("bob");
  await bob.seesStatus("are you there?", "read");
});

test("nothing_is_wider_than_the_phone_and_every_target_is_large_enough", async () => {
  const first = await on.page(PHONE);
  await first.goto(on.server.url);
  await first.getByRole("button", { name: "alice" }).waitFor();
  await fits(first);
  const alice = await on.person("alice", PHONE);
  await fits(alice.page);
  await alice.writeTo("a-long-id-".repeat(6) + "1234");
  await alice.type(`a-word-without-an-end-${"x".repeat(300)}`);
  await alice.page.locator('#messages [data-status="stored"]').waitFor();
  await fits(alice.page);
});

test("while_reconnecting_nothing_in_the_bar_covers_anything_else", async () => {
  const alice = await on.person("alice", PHONE);
  await on.away(async () => {
    await on.server.kill();
    await alice.connection(/reconnecting in \d+ s/);
    const boxes = await alice.page.locator(".bar > :visible").evaluateAll((parts) =>
      parts
        // One that was visible when it was looked for may be gone by now: the countdown goes on.
        .filter((part) => !part.classList.contains("spoken") && part.getClientRects().length > 0)
        .map((part) => ({ left: part.getBoundingClientRect().left, right: part.getBoundingClientRect().left + part.scrollWidth })),
    );
    for (const [index, box] of boxes.slice(1).entries()) assert(box.left >= boxes[index]!.right, JSON.stringify(boxes));
    await fits(alice.page);
    await on.server.start();
    await alice.isLive();
  });
});

/** No sideways scrolling; what is to be tapped is at least 24 points in both directions (WCAG 2.5.8). */
async function fits(page: Page): Promise<void> {
  const found = await page.evaluate(() => {
    const small = [...document.querySelectorAll<HTMLElement>("button, input, textarea, summary, a")]
      .map((target) => ({ target, box: target.getBoundingClientRect() }))
      .filter(({ box }) => box.width > 0 && (box.width < 24 || box.height < 24))
      .map(({ target }) => target.outerHTML);
    return { wide: document.documentElement.scrollWidth - document.documentElement.clientWidth, small };
  });
  assert.deepEqual(found, { wide: 0, small: [] });
}
