// Unwinds and rewinds a program in place at every call of an import, and prints what that took:
// {"forks": n, "bytes": total, "most": bytes, "unwind": [microseconds, ...], "rewind": [...], "written": bytes in a run}.
//
// V8 optimises what has run often: helpers and small resume functions after a hundred thousand forks. So the program runs
// again, in instances of one compiled module, until it has forked that often, or has taken long enough.
//
// usage: node fork.mjs ENTRY KIND=FILE -- [argument...]

import { Guest, Program } from './guest.mjs';

const BUFFER = 1 << 20;
const ENOUGH_FORKS = 200_000;
const ENOUGH_MILLISECONDS = 5_000;

const split = process.argv.indexOf('--');
const [entry, text] = process.argv.slice(2, split);
const args = process.argv.slice(split + 1);
const numbers = args.filter((word) => word.startsWith('=')).map((word) => Number(word.slice(1)));

const program = new Program(text);
const unwind = [];
const rewind = [];
let [bytes, most, begun, rewinding, guest] = [0, 0, 0, false, null];

function enter(...words) {
  if (rewinding) {
    guest.driver.endRewind();
    rewind.push((performance.now() - begun) * 1000);
    rewinding = false;
    return original(...words);
  }
  begun = performance.now();
  guest.driver.beginUnwind();
  return 0;
}

function original(...words) {
  return entry === 'kernel.kernel_fork' ? 1 : guest.wasi.function(entry.split('.')[1])(...words);
}

// Runs the root to its end, forking at every call of the import.
function run() {
  guest.call(...numbers);
  while (guest.driver.state() !== 0) {
    guest.driver.endUnwind();
    unwind.push((performance.now() - begun) * 1000);
    const saved = guest.saved();
    bytes += saved;
    most = Math.max(most, saved);
    rewinding = true;
    begun = performance.now();
    guest.driver.beginRewind();
    guest.call(...numbers);
  }
}

let written = null;
const end = performance.now() + ENOUGH_MILLISECONDS;
do {
  // A function with arguments can be called again, a program cannot.
  if (guest === null || numbers.length === 0) {
    guest = new Guest(program, args, { [entry]: enter });
    guest.prepare(BUFFER);
  }
  run();
  if ((written ??= guest.wasi.written) !== guest.wasi.written) throw new Error('another run wrote something else');
} while (unwind.length < ENOUGH_FORKS && performance.now() < end);
console.log(JSON.stringify({ forks: unwind.length, bytes, most, unwind, rewind, written }));
