// Unwinds and rewinds a program in place at every call of an import, and prints what that took:
// {"forks": n, "bytes": total, "most": bytes, "unwind": [microseconds, ...], "rewind": [...], "written": bytes}.
//
// usage: node fork.mjs ENTRY KIND=FILE -- [argument...]

import { Guest, Program } from './guest.mjs';

const BUFFER = 1 << 20;

const split = process.argv.indexOf('--');
const [entry, text] = process.argv.slice(2, split);
const args = process.argv.slice(split + 1);
const numbers = args.filter((word) => word.startsWith('=')).map((word) => Number(word.slice(1)));

const guest = new Guest(new Program(text), args, { [entry]: enter });
const original = entry === 'kernel.kernel_fork' ? () => 1 : guest.wasi.function(entry.split('.')[1]);
guest.prepare(BUFFER);

const unwind = [];
const rewind = [];
let [bytes, most, begun, rewinding] = [0, 0, 0, false];

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

// A function with arguments forks once a call, so often that V8 has optimised it in the first half of them.
let calls = numbers.length > 0 ? 5000 : 1;
while (calls > 0) {
  guest.call(...numbers);
  if (guest.driver.state() === 0) {
    calls--;
    continue;
  }
  guest.driver.endUnwind();
  unwind.push((performance.now() - begun) * 1000);
  const saved = guest.saved();
  bytes += saved;
  most = Math.max(most, saved);
  rewinding = true;
  begun = performance.now();
  guest.driver.beginRewind();
}
console.log(JSON.stringify({ forks: unwind.length, bytes, most, unwind, rewind, written: guest.wasi.written }));
