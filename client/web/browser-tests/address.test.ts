// A server that others can reach, met from another machine.
//
// In: a server on every address, whose origins nobody has set; its page by the address of the machine. Out: the claim that a
// phone in the same network signs in by token.
import { test } from "node:test";
import { Person } from "./person.js";
import { stage } from "./stage.js";

const on = stage({ IM_GATEWAY__ORIGINS: "[]" }, "0.0.0.0");

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
