// Calls a recursive program that forks at the bottom, and prints whether it returned: {"ok": boolean}.
//
// usage: node depth.mjs KIND=FILE DEPTH recurse|rewind|warm
//
//   recurse   the fork import returns at once
//   rewind    the stack is unwound at the bottom and rewound in place; the result must be the same
//   warm      recurse, after calls that make V8 optimise the program

import { Guest, Program } from './guest.mjs';

const FRAME_LIMIT = 256;

const [text, depthText, mode] = process.argv.slice(2);
const depth = Number(depthText);
let rewinding = false;
let forking = false;

const guest = new Guest(new Program(text), [], {
  'kernel.kernel_fork'() {
    if (rewinding) {
      guest.driver.endRewind();
      rewinding = forking = false;
    } else if (forking) {
      guest.driver.beginUnwind();
    }
    return 1;
  },
});

function expected() {
  let sum = 1n;
  for (let at = 0; at <= depth; at++) {
    const terms = (Math.imul(at, 3) - (at ^ 85) + at) | 0;
    sum = BigInt.asIntN(64, (at === 0 ? 1n : sum) * 31n + BigInt(terms));
  }
  return sum;
}

function attempt() {
  let result = guest.call(depth);
  if (forking) {
    guest.driver.endUnwind();
    rewinding = true;
    guest.driver.beginRewind();
    result = guest.call(depth);
  }
  return result === expected();
}

if (mode === 'warm') {
  for (let call = 0; call < 20000; call++) guest.call(500);
  await new Promise((resolve) => setTimeout(resolve, 100));
}
if (mode === 'rewind') {
  forking = true;
  guest.prepare(depth * FRAME_LIMIT + 65536);
}
let ok = false;
try {
  ok = attempt();
} catch (error) {
  if (!(error instanceof RangeError)) throw error;
}
console.log(JSON.stringify({ ok }));
