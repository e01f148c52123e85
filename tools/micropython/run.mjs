// Runs a piece of Python in the official WebAssembly build of MicroPython, with a heap as small as a device's.
//
//   node run.mjs HEAP_BYTES ROOT FOLDER[,FOLDER...] CODE
//
// The named folders below ROOT are copied to /repo in the interpreter's own file system (the build has no other), then
// CODE runs there. Output goes to stdout line by line; an uncaught exception ends with exit code 1.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { loadMicroPython } from "@micropython/micropython-webassembly-pyscript";

const KEPT = [".py", ".txt", ".json"];

function copyFolder(fs, from, to) {
  fs.mkdirTree(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (entry.isDirectory() && entry.name !== "__pycache__" && entry.name !== "node_modules") {
      copyFolder(fs, join(from, entry.name), `${to}/${entry.name}`);
    } else if (entry.isFile() && KEPT.some((suffix) => entry.name.endsWith(suffix))) {
      fs.writeFile(`${to}/${entry.name}`, readFileSync(join(from, entry.name)));
    }
  }
}

const [heap, root, folders, code] = process.argv.slice(2);
const interpreter = await loadMicroPython({
  heapsize: Number(heap),
  linebuffer: true,
  stdout: (line) => console.log(line),
  stderr: (line) => console.log(line),
});
for (const folder of folders.split(",")) {
  copyFolder(interpreter.FS, join(root, folder), `/repo/${folder}`);
}
try {
  interpreter.runPython(code);
} catch (error) {
  console.log(String(error.message ?? error));
  process.exitCode = 1;
}
