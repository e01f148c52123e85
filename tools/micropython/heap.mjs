// What the application needs of a 32-bit heap: the official WebAssembly build has the words of an ESP32, and between two
// calls from outside its collector sees everything, so what is allocated then is what lives.
//
//   node heap.mjs FOLDER STUBS LIFE MODULE ...
//
// FOLDER holds the compiled packages, STUBS modules of the board that are not counted, LIFE is a script that defines
// `begin()`, `step(n)` and STEPS: a plug that lives. Prints "<bytes> <module>", "<bytes> code", "<bytes> plug" (what its
// objects take at the most, between two steps) and the end "<bytes> live".

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { loadMicroPython } from "@micropython/micropython-webassembly-pyscript/micropython.mjs";

const [root, stubs, life, ...modules] = process.argv.slice(2);
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
copyFolder(stubs, "/stubs");

function allocated() {
  interpreter.runPython("gc.collect()");
  interpreter.runPython("gc.collect()");
  interpreter.runPython("print(gc.mem_alloc())");
  return Number(lines.pop());
}
interpreter.runPython("import gc, sys; sys.path[:] = ['/plug', '/stubs', '.frozen']");
for (const name of readdirSync(stubs)) {
  interpreter.runPython(`import ${name.replace(".py", "")}`);
}
const base = allocated();
let last = base;
for (const name of modules) {
  interpreter.runPython(`import ${name}`);
  const now = allocated();
  console.log(`${now - last} ${name}`);
  last = now;
}
console.log(`${last - base} code`);
const code = last;
interpreter.runPython(readFileSync(life, "utf8"));
const script = allocated() - code;
interpreter.runPython("begin()");
interpreter.runPython("print(STEPS)");
const steps = Number(lines.pop());
let most = 0;
for (let step = 0; step < steps; step++) {
  interpreter.runPython(`step(${step})`);
  most = Math.max(most, allocated() - code - script);
}
console.log(`${most} plug`);
console.log(`${code - base + most} live`);
process.exit(0);
