// A server that others can reach, met from another machine.
//
// In: a server on every address, whose origins nobody has set; its page by the address of the machine, and by a name that it
// does not know. Out: the claims that a phone in the same network signs in by token, and that a refused page says so.
import { test } from "node:test";
import { Person } from "./person.js";
import { stage } from "./stage.js";

const NO_ORIGINS = { IM_GATEWAY__ORIGINS: "[]" };
const on = stage(NO_ORIGINS, "0.0.0.0");
const elsewhere = stage(NO_ORIGINS);

test("a_phone_opens_the_page_by_the_machines_address_and_talks", async () => {
  const page = await on.page({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  await page.goto(on.server.addressUrl);
  await page.getByRole("textbox", { name: "Token" }).fill(on.server.token("erin"));
  await page.getByRole("button", { name: "Sign in" }).click();
  const erin = new Person("erin", page);
  await erin.isLive();
  await erin.writeTo("frank");
  await erin.type("from a phone");
  await erin.seesStatus("from a phone", "stored");
});

test("a_page_that_came_by_a_name_the_server_does_not_know_says_where_to_look", async () => {
  const page = await elsewhere.page();
  await elsewhere.away(async () => {
    await page.goto(elsewhere.server.otherUrl);
    await page.getByRole("textbox", { name: "Token" }).fill(elsewhere.server.token("erin"));
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").filter({ hasText: `${elsewhere.server.websocket} does not answer` }).waitFor();
    await page.close();
  });
});
