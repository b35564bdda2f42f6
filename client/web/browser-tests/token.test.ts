// Where there are no demo users.
//
// In: the page by a name that is not loopback, so that it is told of no users and the context is not a secure one. Out: claims
// on signing in by token.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Person } from "./person.js";
import { stage } from "./stage.js";

const on = stage();

test("without_demo_users_the_page_says_so_and_takes_a_token", async () => {
  const page = await on.page();
  await page.goto(on.server.otherUrl);
  assert.equal(await page.evaluate(() => isSecureContext), false);
  await page.getByText("There are no demo users here").waitFor();
  await page.getByText("keeps unsent messages only while its tab is open").waitFor();
  await page.getByRole("textbox", { name: "Token" }).fill(on.server.token("erin"));
  await page.getByRole("button", { name: "Sign in" }).click();
  const erin = new Person("erin", page);
  await erin.isLive();
  await erin.writeTo("alice");
  await erin.type("by token");
  await erin.seesStatus("by token", "stored");
  await page.reload();
  await erin.isLive();
});

test("a_token_the_server_refuses_is_told_as_such", async () => {
  const page = await on.page();
  await page.goto(on.server.url);
  await page.getByText("Sign in with a token of your own").click();
  await page.getByRole("textbox", { name: "Token" }).fill("not-a-token");
  await page.getByRole("textbox", { name: "User id", exact: true }).fill("mallory");
  await page.getByRole("button", { name: "Sign in" }).click();
  await new Person("mallory", page).connection("token refused");
});
