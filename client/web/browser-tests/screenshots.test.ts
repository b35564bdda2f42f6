// Pictures of every view, for the eyes of whoever changes the page.
//
// In: a small scene with four people. Out: PNG files in target/screenshots. Always: the scene is the same each time; nothing
// is compared, only made.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import type { Person } from "./person.js";
import { stage } from "./stage.js";

const on = stage();
const folder = join(import.meta.dirname, "../../../../target/screenshots");
const PHONE = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true } as const;

test("every_view_is_photographed", async () => {
  await mkdir(folder, { recursive: true });
  const first = await on.page();
  await first.goto(on.server.url);
  await first.getByRole("button", { name: "alice" }).waitFor();
  await first.screenshot({ path: join(folder, "sign-in.png") });
  const stranger = await on.page(PHONE);
  await stranger.goto(on.server.otherUrl);
  await stranger.getByText("There are no demo users here").waitFor();
  await stranger.screenshot({ path: join(folder, "phone-token.png") });

  const [alice, bob] = [await on.person("alice"), await on.person("bob")];
  const [carol, dave] = [await on.person("carol", { colorScheme: "dark" }), await on.person("dave", PHONE)];
  await picture(alice, "desktop-empty");
  await picture(dave, "phone-empty");

  await talk(alice, bob);
  await picture(alice, "desktop-two-people-alice");
  await picture(bob, "desktop-two-people-bob");
  await meet(alice, bob, carol);
  await picture(carol, "dark-group");
  await dave.unread("Release party", 4);
  await picture(dave, "phone-list");
  await dave.openRow("Release party");
  await dave.type("Apple, please");
  await dave.seesStatus("Apple, please", "stored");
  await picture(dave, "phone-chat");

  await alice.openRow("Release party");
  await alice.sees("Apple, please");
  await alice.page.getByRole("button", { name: "Members" }).click();
  await alice.page.getByRole("button", { name: "Remove bob" }).waitFor();
  await picture(alice, "desktop-members");
  await alice.page.keyboard.press("Escape");

  await on.away(async () => {
    await on.server.kill();
    await Promise.all([alice, dave].map((person) => person.connection("reconnecting")));
    await alice.type("This one waits until the server is back");
    await alice.seesStatus("This one waits until the server is back", "sending");
    await picture(alice, "desktop-reconnecting");
    await picture(dave, "phone-reconnecting");
    await on.server.start();
    await Promise.all([alice, bob, carol, dave].map((person) => person.isLive()));
  });
});

async function talk(alice: Person, bob: Person): Promise<void> {
  await alice.writeTo("bob");
  await bob.writeTo("alice");
  await alice.type("Hi Bob!", "Did you see the new build?");
  await bob.sees("Did you see the new build?");
  await bob.type("Yes \u{1F44D} and it survives kill -9", "I pulled the plug three times. Every message was there, once, in order.");
  await alice.sees("I pulled the plug three times. Every message was there, once, in order.");
  await alice.type("That is how it should be");
  await alice.seesStatus("That is how it should be", "read");
  await bob.sees("That is how it should be");
}

async function meet(alice: Person, bob: Person, carol: Person): Promise<void> {
  const { page } = alice;
  await page.getByRole("button", { name: "New group" }).click();
  await page.getByRole("textbox", { name: "Name", exact: true }).fill("Release party");
  for (const member of ["bob", "carol", "dave"]) await page.getByRole("checkbox", { name: member }).check();
  await picture(alice, "desktop-new-group");
  await page.getByRole("button", { name: "Make the group" }).click();
  await alice.chatIsOpen("Release party");
  await alice.type("Who brings the cake?", "I have plates and coffee for everybody.");
  await carol.openRow("Release party");
  await carol.sees("I have plates and coffee for everybody.");
  await carol.type("Me! Chocolate or apple?", "It is a long evening, so perhaps both, and some fruit for whoever wants something light.");
  await carol.page.getByText("Read by alice").waitFor();
  await bob.unread("Release party", 4);
}

async function picture(person: Person, name: string): Promise<void> {
  await person.page.screenshot({ path: join(folder, `${name}.png`) });
}
