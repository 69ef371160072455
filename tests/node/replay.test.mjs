// The replay harness against modules that were instrumented by hand: right ones pass under every schedule, and each
// kind of mistake is found. Wants `scripts/fetch-test-tools binaryen node`.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { replay } from './replay.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
const deps = resolve(root, process.env.FORK_INSTRUMENT_DEPS ?? 'third_party');
const scratch = mkdtempSync(join(tmpdir(), 'replay-'));
after(() => rmSync(scratch, { recursive: true }));

const assembled = new Map();

// Imports in the compact encoding are not for V8 yet.
function assemble(text) {
  if (!assembled.has(text)) assembled.set(text, assembleNow(text));
  return assembled.get(text);
}

function assembleNow(text) {
  const [source, binary] = [join(scratch, 'module.wat'), join(scratch, 'module.wasm')];
  writeFileSync(source, text);
  const features = ['-all', '--disable-compact-imports'];
  execFileSync(process.execPath, [join(deps, 'binaryen-tools-132.0.0/bin/wasm-as'), ...features, source, '-o', binary]);
  return readFileSync(binary);
}

const interfaceOf = (ptr) => `
  (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
  (import "log" "i32" (func $log (param i32)))
  (memory (export "memory") ${ptr} 1)`;

// Five rounds: $x and $round live across the fork, and a global that changes.
const original = (ptr) => `(module ${interfaceOf(ptr)}
  (global $sum (mut i32) (i32.const 7))
  (func (export "run") (result i32) (local $x i32) (local $round i32)
    (loop $again
      (local.set $x (i32.add (i32.mul (local.get $x) (i32.const 3)) (call $fork (local.get $round))))
      (global.set $sum (i32.add (global.get $sum) (local.get $x)))
      (call $log (local.get $x))
      (i32.store (${ptr}.const 64) (local.get $x))
      (local.set $round (i32.add (local.get $round) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $round) (i32.const 5))))
    (i32.xor (local.get $x) (global.get $sum))))`;

const P = { i32: 4, i64: 8 };

// The five exports. The buffer: next, end, $sum, frames.
const runtime = (ptr) => `
  (global $state (export "state") (mut i32) (i32.const 0))
  (global $buffer (export "buffer") (mut ${ptr}) (${ptr}.const 0))
  (global $position (export "position") (mut ${ptr}) (${ptr}.const 0))
  (global $sum (mut i32) (i32.const 7))
  (func $room (param $to ${ptr}) (result i32)
    (local $end ${ptr})
    (local.set $end (${ptr}.load offset=${P[ptr]} (global.get $buffer)))
    (i32.or (${ptr}.eqz (local.get $end)) (${ptr}.le_u (local.get $to) (local.get $end))))
  (func (export "wpk_fork_state") (result i32) (global.get $state))
  (func (export "wpk_fork_unwind_begin") (param $buffer ${ptr})
    (if (global.get $state) (then unreachable))
    (global.set $buffer (local.get $buffer))
    (if (i32.eqz (call $room (${ptr}.add (local.get $buffer) (${ptr}.const 20)))) (then (return)))
    (${ptr}.store (local.get $buffer) (${ptr}.add (local.get $buffer) (${ptr}.const 20)))
    (i32.store offset=16 (local.get $buffer) (global.get $sum))
    (global.set $state (i32.const 1)))
  (func (export "wpk_fork_unwind_end")
    (if (i32.ne (global.get $state) (i32.const 1)) (then unreachable))
    (global.set $state (i32.const 0)))
  (func (export "wpk_fork_rewind_begin") (param $buffer ${ptr})
    (if (global.get $state) (then unreachable))
    (global.set $buffer (local.get $buffer))
    (global.set $position (${ptr}.load (local.get $buffer)))
    (global.set $sum (i32.load offset=16 (local.get $buffer)))
    (global.set $state (i32.const 2)))
  (func (export "wpk_fork_rewind_end")
    (if (i32.lt_u (global.get $state) (i32.const 2)) (then unreachable))
    (global.set $state (i32.const 0)))`;

const instrumented = (ptr) => `(module ${interfaceOf(ptr)} ${runtime(ptr)}
  (func (export "run") (result i32) (local $x i32) (local $round i32) (local $result i32) (local $top ${ptr})
    (if (i32.eq (global.get $state) (i32.const 2))
      (then
        (global.set $position (${ptr}.sub (global.get $position) (${ptr}.const 8)))
        (local.set $x (i32.load (global.get $position)))
        (local.set $round (i32.load offset=4 (global.get $position)))))
    (loop $again
      (local.set $result (call $fork (local.get $round)))
      (if (i32.eq (global.get $state) (i32.const 1))
        (then
          (local.set $top (${ptr}.load (global.get $buffer)))
          (if (i32.eqz (call $room (${ptr}.add (local.get $top) (${ptr}.const 8))))
            (then (global.set $state (i32.const 3)) (br $again)))
          (i32.store (local.get $top) (local.get $x))
          (i32.store offset=4 (local.get $top) (local.get $round))
          (${ptr}.store (global.get $buffer) (${ptr}.add (local.get $top) (${ptr}.const 8)))
          (return (i32.const 0))))
      (local.set $x (i32.add (i32.mul (local.get $x) (i32.const 3)) (local.get $result)))
      (global.set $sum (i32.add (global.get $sum) (local.get $x)))
      (call $log (local.get $x))
      (i32.store (${ptr}.const 64) (local.get $x))
      (local.set $round (i32.add (local.get $round) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $round) (i32.const 5))))
    (i32.xor (local.get $x) (global.get $sum))))`;

const everything = ['never', 'child', 'parent', 'at:100'];

function run(plain, forking, options = {}) {
  return replay({ original: assemble(plain), instrumented: assemble(forking), schedules: everything, ...options });
}

// A mistake, made in the hand-instrumented module.
function broken(text, replacement, options) {
  const right = instrumented('i32');
  assert.ok(right.includes(text), `the module holds ${text}`);
  return run(original('i32'), right.replace(text, replacement), options).differences;
}

for (const ptr of ['i32', 'i64']) {
  test(`a right module agrees under every schedule, with ${ptr} addresses`, () => {
    const { calls, forks, frameBytes, differences } = run(original(ptr), instrumented(ptr));
    assert.deepEqual(differences, []);
    assert.equal(calls, 5);
    assert.equal(forks, 5 + 5 + 5);
    assert.equal(frameBytes, forks * 28);
  });

  test(`a buffer that is too small at first is grown, with ${ptr} addresses`, () => {
    assert.deepEqual(run(original(ptr), instrumented(ptr), { bufferSize: 8 }).differences, []);
    const { aborts, differences } = run(original(ptr), instrumented(ptr), { bufferSize: 24, schedules: ['child', 'parent'] });
    assert.deepEqual(differences, []);
    assert.equal(aborts, 2, 'the larger buffer is kept');
  });
}

test('a local that is not saved is found', () => {
  const differences = broken('(i32.store (local.get $top) (local.get $x))', '');
  assert.match(differences.join('\n'), /^child: call \d+ is log\.i32/m);
});

test('a global that is not restored is found in a fresh instance only', () => {
  const differences = broken('(global.set $sum (i32.load offset=16 (local.get $buffer)))', '');
  assert.match(differences.join('\n'), /^child: the program returned/m);
  assert.doesNotMatch(differences.join('\n'), /^parent: /m);
});

test('other arguments on rewind are found', () => {
  const differences = broken('(i32.store offset=4 (local.get $top) (local.get $round))', '');
  assert.match(differences.join('\n'), /rewinding reached kernel\.kernel_fork\(0\) instead of kernel\.kernel_fork\(1\)/);
});

test('a side effect on the way out is found', () => {
  const differences = broken('(return (i32.const 0))', '(call $log (i32.const 1)) (return (i32.const 0))');
  assert.match(differences.join('\n'), /log\.i32 is called in state 1/);
});

test('a write to the memory outside of the buffer is found', () => {
  const differences = broken('(return (i32.const 0))', '(i32.store (i32.const 4000) (i32.const 9)) (return (i32.const 0))');
  assert.match(differences.join('\n'), /^parent: memory memory at 4000 has 9 instead of 0/m);
});

test('frames beyond the end of the buffer are found', () => {
  const differences = broken('(then (global.set $state (i32.const 3)) (br $again))', '(then)', { bufferSize: 24 });
  assert.match(differences.join('\n'), /frames end at \d+, outside of the buffer/);
});

test('a module that is not instrumented is found when it should fork', () => {
  const { differences } = run(original('i32'), original('i32'), { schedules: ['never', 'child'] });
  assert.deepEqual(differences, ['child: the module is not instrumented']);
});

// The resume function is in the second module, which the table of the first leads to.
const split = {
  original: `(module ${interfaceOf('i32')}
    (func (export "run") (result i32) (local $x i32)
      (local.set $x (i32.const 11))
      (i32.mul (call $fork (i32.const 3)) (local.get $x))))`,
  first: `(module ${interfaceOf('i32')} ${runtime('i32')}
    (table $resume (export "table") 1 funcref)
    (export "fork" (func $fork))
    (func (export "run") (result i32) (local $x i32) (local $result i32) (local $top i32)
      (if (i32.eq (global.get $state) (i32.const 2))
        (then (return (call_indirect $resume (result i32) (i32.const 0)))))
      (local.set $x (i32.const 11))
      (local.set $result (call $fork (i32.const 3)))
      (if (i32.eq (global.get $state) (i32.const 1))
        (then
          (local.set $top (i32.load (global.get $buffer)))
          (i32.store (local.get $top) (local.get $x))
          (i32.store (global.get $buffer) (i32.add (local.get $top) (i32.const 4)))
          (return (i32.const 0))))
      (i32.mul (local.get $result) (local.get $x))))`,
  second: `(module
    (import "wpk_fork" "memory" (memory 1))
    (import "wpk_fork" "table" (table 1 funcref))
    (import "wpk_fork" "position" (global $position (mut i32)))
    (import "wpk_fork" "fork" (func $fork (param i32) (result i32)))
    (elem (i32.const 0) $run.resume)
    (func $run.resume (result i32) (local $x i32)
      (global.set $position (i32.sub (global.get $position) (i32.const 4)))
      (local.set $x (i32.load (global.get $position)))
      (i32.mul (call $fork (i32.const 3)) (local.get $x))))`,
};

test('resume functions in a second module are found', () => {
  const { forks, differences } = run(split.original, split.first, { resume: assemble(split.second) });
  assert.deepEqual(differences, []);
  assert.equal(forks, 3);
});

test('the command prints a difference and exits with 1', () => {
  const [left, right] = [join(scratch, 'left.wasm'), join(scratch, 'right.wasm')];
  writeFileSync(left, assemble(original('i32')));
  writeFileSync(right, assemble(instrumented('i32')));
  const command = fileURLToPath(new URL('replay.mjs', import.meta.url));
  const start = (...args) => execFileSync(process.execPath, [command, ...args], { encoding: 'utf8', stdio: 'pipe' });
  assert.match(start(left, right, '--stats'), /^returned \d+; 5 calls of an entry, 15 forks, 28 bytes a fork, 0 aborts/);
  assert.throws(() => start(left, left), (error) => error.status === 1 && error.stderr.includes('not instrumented'));
});
