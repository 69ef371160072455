// Forks that fail, and programs that end in the middle, on V8. For the modules of tests/failures/.
//
// usage: node failures.mjs failing-forks MODULE SIZE COUNT      every fork of COUNT fails, in a buffer of SIZE bytes
//        node failures.mjs ends MODULE                          traps and exceptions after a fork
//        node failures.mjs overflow MODULE                      the engine's stack overflows in a rewind
//
// Prints "ok", or throws.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { ABORTING, NORMAL, REWINDING, UNWINDING } from './host.mjs';

const FAILED = -1;

// One instance, which forks when `forks` is set.
class Guest {
  constructor(module, { address, size }) {
    Object.assign(this, { module, address, size, forks: false, answer: 0, failures: 0 });
    const kernel_fork = (argument) => this.fork(argument);
    this.exports = new WebAssembly.Instance(module, { kernel: { kernel_fork } }).exports;
  }

  state() {
    return this.exports.wpk_fork_state();
  }

  fork(argument) {
    const state = this.state();
    if (state === REWINDING || state === ABORTING) {
      assert.equal(argument, this.argument);
      this.exports.wpk_fork_rewind_end();
      if (state === REWINDING) return this.answer;
      this.failures++;
      return FAILED;
    }
    assert.equal(state, NORMAL);
    if (!this.forks) return this.answer;
    this.argument = argument;
    new DataView(this.exports.memory.buffer).setUint32(this.address + 4, this.address + this.size, true);
    this.exports.wpk_fork_unwind_begin(this.address);
    if (this.state() === UNWINDING) return 12345;
    this.failures++;
    return FAILED;
  }

  // Calls the root up to where it is unwound.
  unwind(argument) {
    this.forks = true;
    this.exports.run(argument);
    assert.equal(this.state(), UNWINDING);
    this.exports.wpk_fork_unwind_end();
    this.forks = false;
  }

  rewind() {
    this.exports.wpk_fork_rewind_begin(this.address);
    return this.exports.run(0);
  }

  child() {
    const child = new Guest(this.module, this);
    new Uint8Array(child.exports.memory.buffer).set(new Uint8Array(this.exports.memory.buffer));
    child.argument = this.argument;
    return child;
  }

  buffer() {
    return Buffer.from(new Uint8Array(this.exports.memory.buffer, this.address, this.size));
  }
}

const sum = (depth) => BigInt(1000 + (depth * (depth + 1)) / 2);
const ample = { address: 65536, size: 32768 };

function failingForks(module, size, count) {
  const guest = new Guest(module, { address: 1024, size });
  guest.forks = true;
  assert.equal(guest.exports.run(count), BigInt(count) * (3n + BigInt(FAILED)));
  assert.equal(guest.failures, count);
}

function ends(module) {
  const endsSo = (guest, answer, kind) => {
    guest.answer = answer;
    assert.throws(() => guest.rewind(), kind);
    assert.equal(guest.state(), NORMAL);
    guest.answer = 0;
    guest.unwind(4);
    assert.equal(guest.rewind(), sum(4));
    assert.equal(guest.state(), NORMAL);
  };
  for (const [answer, kind] of [[1, WebAssembly.RuntimeError], [2, WebAssembly.Exception]]) {
    const parent = new Guest(module, ample);
    parent.unwind(3);
    const child = parent.child();
    endsSo(child, answer, kind);
    endsSo(parent, answer, kind);
  }
}

// Rewinds a child with so many frames of JavaScript below. Which part of it ran out of stack?
function rewindAbove(height, parent) {
  const child = parent.child();
  let arrived = false;
  const climb = (rest) => (rest === 0 ? ((arrived = true), child.exports.run(0)) : climb(rest - 1));
  child.exports.wpk_fork_rewind_begin(child.address);
  try {
    climb(height);
    return { child, part: 'none' };
  } catch (error) {
    assert.ok(error instanceof RangeError, error);
    return { child, part: arrived ? 'rewind' : 'climb' };
  }
}

function overflow(module) {
  const DEPTH = 1500;
  const parent = new Guest(module, ample);
  parent.unwind(DEPTH);
  const saved = parent.buffer();
  // The engine's frames change their size while it optimises, so the height is searched for.
  let [low, high, found] = [0, 100000, undefined];
  for (let attempt = 0; !found; attempt++) {
    assert.ok(attempt < 60, 'no rewind runs out of stack');
    const height = (low + high) >> 1;
    const { child, part } = rewindAbove(height, parent);
    if (part === 'none') [low, high] = [height, high <= height + 1 ? high + 10000 : high];
    else if (part === 'climb') [low, high] = [low >= height - 1 ? Math.max(0, low - 10000) : low, height];
    else found = child;
  }
  assert.equal(found.state(), REWINDING);
  found.exports.wpk_fork_rewind_end();
  assert.equal(found.state(), NORMAL);
  assert.ok(found.buffer().equals(saved), 'the buffer has changed');
  for (const process of [found, parent]) {
    assert.equal(process.rewind(), sum(DEPTH));
    assert.equal(process.state(), NORMAL);
  }
}

const [what, path, ...rest] = process.argv.slice(2);
const module = new WebAssembly.Module(readFileSync(path));
({ 'failing-forks': failingForks, ends, overflow })[what](module, ...rest.map(Number));
console.log('ok');
