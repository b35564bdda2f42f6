// The compiled schema, from a short form of it.
//
// In: the messages and enums of one file, as `scripts/generate.mjs` writes them down. Out: the descriptor the protobuf
// runtime works with. Always: the same as from the full descriptor, whose decoding would bring the schema of schemas
// into every bundle: 5 KB more, gzipped.
import { createFileRegistry } from "@bufbuild/protobuf";
import type { GenFile } from "@bufbuild/protobuf/codegenv2";
import type { FileDescriptorProto } from "@bufbuild/protobuf/wkt";

/**
 * `type`: as in `FieldDescriptorProto`; `typeName` of a message or enum of the same file; `oneof`: its index, or -1.
 */
export type ShortField = readonly [
  name: string,
  number: number,
  type: number,
  typeName?: string,
  oneof?: number,
  isRepeated?: 1,
];
export type ShortEnum = readonly [name: string, values: readonly (readonly [name: string, number: number])[]];
export type ShortMessage = readonly [
  name: string,
  fields: readonly ShortField[],
  oneofs?: readonly string[],
  enums?: readonly ShortEnum[],
];

const LABEL_OPTIONAL = 1;
const LABEL_REPEATED = 3;
const NOTHING = {
  nestedType: [],
  enumType: [],
  extension: [],
  extensionRange: [],
  reservedRange: [],
  reservedName: [],
};

export function fileOf(
  name: string,
  packageName: string,
  messages: readonly ShortMessage[],
  enums: readonly ShortEnum[],
): GenFile {
  const file = {
    $typeName: "google.protobuf.FileDescriptorProto",
    name,
    package: packageName,
    syntax: "proto3",
    edition: 0,
    dependency: [],
    service: [],
    extension: [],
    messageType: messages.map((message) => messageOf(packageName, message)),
    enumType: enums.map(enumOf),
  };
  // The runtime reads no more of it than is here; the tests compare what comes out with the full descriptor.
  const registry = createFileRegistry(file as unknown as FileDescriptorProto, () => undefined);
  return registry.getFile(name)! as GenFile;
}

function messageOf(packageName: string, [name, fields, oneofs = [], enums = []]: ShortMessage) {
  return {
    ...NOTHING,
    name,
    field: fields.map((field) => fieldOf(packageName, field)),
    oneofDecl: oneofs.map((oneof) => ({ name: oneof })),
    enumType: enums.map(enumOf),
  };
}

function fieldOf(packageName: string, [name, number, type, typeName, oneof = -1, isRepeated]: ShortField) {
  return {
    name,
    number,
    type,
    typeName: !typeName ? "" : `.${packageName}.${typeName}`,
    label: isRepeated ? LABEL_REPEATED : LABEL_OPTIONAL,
    jsonName: name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
    proto3Optional: false,
    ...(oneof >= 0 && { oneofIndex: oneof }),
  };
}

function enumOf([name, values]: ShortEnum) {
  return { name, value: values.map(([name, number]) => ({ name, number })), reservedName: [], reservedRange: [] };
}
