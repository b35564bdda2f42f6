// Builds the page into src/page, from where the server takes it.
//
// In: this folder, the client in ../src. Out: page.js (one module), page.css, index.html, icon.svg. Always: the same sources
// and the pinned esbuild give the same bytes; with --check nothing is written and a difference is an error.
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = new URL(".", import.meta.url);
const page = new URL("../../../src/page/", here);

async function bundle(entry, options) {
  const { outputFiles } = await build({
    absWorkingDir: fileURLToPath(here),
    entryPoints: [entry],
    bundle: true,
    minify: true,
    write: false,
    charset: "utf8",
    legalComments: "inline",
    logLevel: "warning",
    target: ["es2022", "chrome109", "firefox115", "safari16.4"],
    ...options,
  });
  return outputFiles[0].contents;
}

const source = "client/web/demo; build it with scripts/web demo";
const files = {
  "page.js": await bundle("main.ts", {
    format: "esm",
    alias: { "@im-server/client/tab-device": "../src/tab-device.ts", "@im-server/client": "../src/index.ts" },
    banner: { js: `// Built from ${source}.` },
  }),
  "page.css": await bundle("page.css", { banner: { css: `/* Built from ${source}. */` } }),
  "index.html": await readFile(new URL("index.html", here)),
  "icon.svg": await readFile(new URL("icon.svg", here)),
};

let different = 0;
for (const [name, contents] of Object.entries(files)) {
  const path = new URL(name, page);
  if (process.argv.includes("--check")) {
    const committed = await readFile(path).catch(() => undefined);
    if (committed !== undefined && Buffer.compare(committed, contents) === 0) continue;
    console.error(`src/page/${name} is not what ${source} builds`);
    different += 1;
  } else {
    await writeFile(path, contents);
    console.log(`src/page/${name} ${contents.length} bytes`);
  }
}
process.exitCode = different === 0 ? 0 : 1;
