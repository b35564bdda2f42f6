// Generates src/gen/client_pb.ts from the compiled schema.
//
// In: ../../proto/descriptor.bin. Out: src/gen/client_pb.ts, or with `--check` a verdict: exit code 1 if the committed
// file is another. Always: no protoc is needed; the plugin is asked the way protoc would ask it. Of what the plugin
// writes one thing is changed: the embedded descriptor is the short form that src/schema.ts reads.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  CodeGeneratorRequestSchema,
  CodeGeneratorResponseSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const target = here("../src/gen/client_pb.ts");

const { file: protoFile } = fromBinary(FileDescriptorSetSchema, readFileSync(here("../../../proto/descriptor.bin")));
const request = create(CodeGeneratorRequestSchema, {
  fileToGenerate: ["client.proto"],
  parameter: "target=ts,import_extension=js",
  protoFile,
});
const answer = execFileSync(process.execPath, [here("../node_modules/.bin/protoc-gen-es")], {
  input: toBinary(CodeGeneratorRequestSchema, request),
  maxBuffer: 1 << 24,
});
const { file: files, error } = fromBinary(CodeGeneratorResponseSchema, answer);
if (error || files.length !== 1) throw new Error(error || `expected one file, got ${files.length}`);
const file = protoFile.find(({ name }) => name === "client.proto");
const fresh = withShortSchema(files[0].content);

if (!process.argv.includes("--check")) {
  writeFileSync(target, fresh);
} else if (readFileSync(target, "utf8") !== fresh) {
  console.error("src/gen/client_pb.ts is stale: run `npm run generate` and commit");
  process.exit(1);
}

function withShortSchema(content) {
  const at = content.indexOf('fileDesc("');
  const end = content.indexOf('");', at);
  const short = [file.name, file.package, file.messageType.map(shortMessage), file.enumType.map(shortEnum)];
  const written = short.map((part) => `  ${lines(part)}`).join(",\n");
  return `${content.slice(0, at)}fileOf(\n${written},\n  );${content.slice(end + 3)}`
    .replace("enumDesc, fileDesc, messageDesc", "enumDesc, messageDesc")
    .replace('from "@bufbuild/protobuf/codegenv2";\nimport type { Message', (found) =>
      found.replace("\n", '\nimport { fileOf } from "../schema.js";\n'),
    );
}

function lines(part) {
  return typeof part === "string"
    ? JSON.stringify(part)
    : `[\n${part.map((one) => `    ${JSON.stringify(one)}`).join(",\n")},\n  ]`;
}

function shortMessage({ name, field, oneofDecl, enumType, nestedType }) {
  if (nestedType.length > 0) throw new Error(`${name}: the short form has no nested messages`);
  return trimmed([name, field.map(shortField), oneofDecl.map(({ name }) => name), enumType.map(shortEnum)]);
}

function shortField({ name, number, type, typeName, label, oneofIndex, proto3Optional, jsonName, ...field }) {
  const camel = name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
  if (proto3Optional || (jsonName && jsonName !== camel) || field.options) {
    throw new Error(`${name}: the short form has no options, presence or names of its own`);
  }
  const ownType = typeName.slice(`.${file.package}.`.length);
  const oneof = Object.hasOwn(arguments[0], "oneofIndex") ? oneofIndex : -1;
  return trimmed([name, number, type, ownType || undefined, oneof, label === 3 ? 1 : undefined]);
}

function shortEnum({ name, value }) {
  return [name, value.map(({ name, number }) => [name, number])];
}

/** Without what the reader takes for granted. JSON has no `undefined`: in the middle it is "". */
function trimmed(parts) {
  const isGranted = (part) => part === undefined || part === -1 || (Array.isArray(part) && part.length === 0);
  while (parts.length > 2 && isGranted(parts.at(-1))) parts.pop();
  return parts.map((part) => (part === undefined ? "" : part));
}
