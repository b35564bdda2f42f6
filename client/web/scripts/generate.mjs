// Generates src/gen/client_pb.ts from the compiled schema.
//
// In: ../../proto/descriptor.bin. Out: src/gen/client_pb.ts, or with `--check` a verdict: exit code 1 if the committed
// file is another. Always: no protoc is needed; the plugin is asked the way protoc would ask it.
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
const fresh = files[0].content;

if (!process.argv.includes("--check")) {
  writeFileSync(target, fresh);
} else if (readFileSync(target, "utf8") !== fresh) {
  console.error("src/gen/client_pb.ts is stale: run `npm run generate` and commit");
  process.exit(1);
}
