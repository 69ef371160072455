// Compiles groups of files round by round and prints the CPU time that each took, of all threads:
// {"cpu": [[seconds, ...], ...]}. Start it with --expose-gc and --no-wasm-lazy-compilation.
//
// usage: node --expose-gc --no-wasm-lazy-compilation [--liftoff-only | --no-liftoff] compile-times.mjs ROUNDS GROUP...
// where GROUP is FILE or FILE,FILE

import { readFileSync } from 'node:fs';

const rounds = Number(process.argv[2]);
const groups = process.argv.slice(3).map((group) => group.split(',').map((file) => readFileSync(file)));
const cpu = groups.map(() => []);

// V8 gives out what it has compiled when it gets the same bytes again. A custom section of a module's own prevents that.
let compiled = 0;
function unlike(bytes) {
  const copy = new Uint8Array(bytes.length + 8);
  copy.set(bytes);
  copy.set([0, 6, 1, 0x6e, compiled & 255, (compiled >> 8) & 255, compiled >> 16, 0], bytes.length);
  compiled++;
  return copy;
}

for (let round = 0; round < rounds; round++) {
  groups.forEach((files, index) => {
    const copies = files.map(unlike);
    globalThis.gc();
    const before = process.cpuUsage();
    const modules = copies.map((copy) => new WebAssembly.Module(copy));
    const { user, system } = process.cpuUsage(before);
    if (modules.length !== files.length) throw new Error('not everything was compiled');
    cpu[index].push((user + system) / 1e6);
  });
}
console.log(JSON.stringify({ cpu }));
