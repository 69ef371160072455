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

function overflow(module) {
  const DEPTH = 1500;
  const parent = new Guest(module, ample);
  parent.unwind(DEPTH);
  const saved = parent.buffer();
  const climb = (height, top) => (height === 0 ? top() : climb(height - 1, top));
  let highest = 0;
  try {
    for (; ; highest += 64) climb(highest, () => 0);
  } catch (error) {
    assert.ok(error instanceof RangeError);
  }
  for (let attempt = 0; attempt < 3; attempt++) {
    parent.exports.wpk_fork_rewind_begin(parent.address);
    assert.throws(() => climb(highest - 128, () => parent.exports.run(0)), RangeError);
    assert.equal(parent.state(), REWINDING);
    parent.exports.wpk_fork_rewind_end();
    assert.equal(parent.state(), NORMAL);
    assert.ok(parent.buffer().equals(saved), 'the buffer has changed');
  }
  assert.equal(parent.child().rewind(), sum(DEPTH));
  assert.equal(parent.rewind(), sum(DEPTH));
  assert.equal(parent.state(), NORMAL);
}

const [what, path, ...rest] = process.argv.slice(2);
const module = new WebAssembly.Module(readFileSync(path));
({ 'failing-forks': failingForks, ends, overflow })[what](module, ...rest.map(Number));
console.log('ok');
