// Runs watt_plug in the official WebAssembly build of MicroPython: lines on standard input and output
// (firmware/watt_plug/pipe.py), files of the plug in a directory of the host.
//
//   node plug.mjs MICROPYTHON.mjs FIRMWARE_ROOT STATE_DIR

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const HEAP_BYTES = 256 * 1024;
const [modulePath, root, stateDir] = process.argv.slice(2);
const { loadMicroPython } = await import(pathToFileURL(modulePath).href);

const interpreter = await loadMicroPython({
  heapsize: HEAP_BYTES,
  linebuffer: true,
  stdout: (line) => console.error(line),
  stderr: (line) => console.error(line),
});

function copyFolder(from, to) {
  interpreter.FS.mkdirTree(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (entry.isDirectory() && entry.name !== "__pycache__") {
      copyFolder(join(from, entry.name), `${to}/${entry.name}`);
    } else if (entry.isFile() && entry.name.endsWith(".py")) {
      interpreter.FS.writeFile(`${to}/${entry.name}`, readFileSync(join(from, entry.name)));
    }
  }
}
for (const name of ["watt_wire", "watt_plug"]) {
  copyFolder(join(root, name), `/firmware/${name}`);
}

mkdirSync(stateDir, { recursive: true });
const lines = [];
let waiting = null;
function give(line) {
  if (waiting) {
    const resolve = waiting;
    waiting = null;
    resolve(line);
  } else {
    lines.push(line);
  }
}
const input = createInterface({ input: process.stdin, crlfDelay: Infinity });
input.on("line", (line) => give(line));
input.on("close", () => give(""));

interpreter.registerJsModule("hostio", {
  readline: () =>
    new Promise((resolve) => {
      if (lines.length > 0) {
        resolve(lines.shift());
      } else {
        waiting = resolve;
      }
    }),
  writeline: (text) => process.stdout.write(`${text}\n`),
  // A leading mark tells an empty file from a missing one.
  load: (name) => (existsSync(join(stateDir, name)) ? `=${readFileSync(join(stateDir, name)).toString("hex")}` : ""),
  save: (name, hex) => {
    writeFileSync(join(stateDir, "new.tmp"), Buffer.from(hex, "hex"));
    renameSync(join(stateDir, "new.tmp"), join(stateDir, name));
  },
  remove: (name) => rmSync(join(stateDir, name), { force: true }),
  names: () => readdirSync(stateDir).filter((name) => !name.endsWith(".tmp")).join(" "),
});

await interpreter.runPythonAsync(`
import sys
sys.path[:] = ["/firmware"]
import hostio
from watt_plug import pipe
await pipe.run_hostio(hostio)
`);
process.exit(0);
