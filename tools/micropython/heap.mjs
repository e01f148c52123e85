// What the application needs of a 32-bit heap: the official WebAssembly build has the words of an ESP32, and between two
// calls from outside its collector sees everything, so what is allocated then is what lives.
//
//   node heap.mjs FOLDER MODULE ...      FOLDER holds the compiled packages; prints "<bytes> <module>" and the end "live"

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { loadMicroPython } from "@micropython/micropython-webassembly-pyscript/micropython.mjs";

const [root, ...modules] = process.argv.slice(2);
const lines = [];
const interpreter = await loadMicroPython({ heapsize: 1024 * 1024, linebuffer: true, stdout: (line) => lines.push(line) });

function copyFolder(from, to) {
  interpreter.FS.mkdirTree(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (entry.isDirectory()) {
      copyFolder(join(from, entry.name), `${to}/${entry.name}`);
    } else {
      interpreter.FS.writeFile(`${to}/${entry.name}`, readFileSync(join(from, entry.name)));
    }
  }
}
copyFolder(root, "/plug");

function allocated() {
  interpreter.runPython("gc.collect()");
  interpreter.runPython("gc.collect()");
  interpreter.runPython("print(gc.mem_alloc())");
  return Number(lines.pop());
}
interpreter.runPython("import gc, sys; sys.path[:] = ['/plug', '.frozen']");
const base = allocated();
let last = base;
for (const name of modules) {
  interpreter.runPython(`import ${name}`);
  const now = allocated();
  console.log(`${now - last} ${name}`);
  last = now;
}
console.log(`${last - base} live`);
process.exit(0);
