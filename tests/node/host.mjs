// A host of instrumented modules on V8: processes that are unwound, copied and rewound.
//
// A Process is an instance with the state of its system calls. Calls of the *entry imports* (those at which the
// program can be forked) are numbered; for each the process asks its `plan` what to do:
//
//   'stay'    the call is made as if there were no fork
//   'parent'  the stack is unwound, and rewound in the same instance
//   'child'   the stack is unwound, and rewound in a fresh instance with copied memories and tables
//   'both'    as 'child', and then in the old instance too: two processes go on from there
//
// Whatever the plan, call number n returns the same value, so every run must behave like one without forks. What can
// be observed (calls of imports with arguments and results, output, the outcome, memories) is recorded.

import { describe, exposeFunctions } from './module.mjs';
import { SystemCalls } from './system.mjs';

const PAGE = 65536;

export const NORMAL = 0;
export const UNWINDING = 1;
export const REWINDING = 2;
export const ABORTING = 3;

// The program broke the contract between pass and host.
export class ContractError extends Error {}

// Throws a trap, which is the one thing that no handler in a module can catch.
const { trap } = new WebAssembly.Instance(
  new WebAssembly.Module(
    // (module (func (export "trap") unreachable))
    Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 8, 1, 4, 116, 114, 97, 112, 0, 0, 10, 5, 1, 3, 0, 0, 11]),
  ),
).exports;

// A table with resume functions is as it must be in any instance.
function isResumeTable(name) {
  return name.startsWith('wpk_fork_table_');
}

// A compiled module, and the second one with its resume functions if it has one.
export class Program {
  constructor(bytes, resumeBytes) {
    Object.assign(this, describe(bytes));
    this.module = new WebAssembly.Module(this.hasReferences() ? exposeFunctions(bytes) : bytes);
    this.resumeModule = resumeBytes && new WebAssembly.Module(resumeBytes);
  }

  // Whether there are references for a child to get.
  hasReferences() {
    const isTable = ([name, { kind }]) => kind === 'table' && !isResumeTable(name);
    const isOfFunctions = ({ kind, type }) => kind === 'table' || (kind === 'global' && type.value === 'anyfunc');
    return Object.entries(this.exports).some(isTable) || this.imports.some(isOfFunctions);
  }

  // Whether an import can be forked at. Patterns are `module.name`; a trailing `*` stands for anything.
  static isEntry(patterns, { module, name }) {
    const full = `${module}.${name}`;
    return patterns.some((pattern) => (pattern.endsWith('*') ? full.startsWith(pattern.slice(0, -1)) : full === pattern));
  }
}

export const defaults = {
  entries: ['kernel.kernel_fork'],
  root: undefined, // the export to call: _start if there is one, else run
  args: [],
  steps: undefined, // or several, one after the other: (process) => [export, ...arguments]
  plan: () => 'stay',
  bufferPages: 16, // set aside for the buffer at the end of memory
  bufferAt: undefined, // or an address, in a memory that cannot grow: the buffer is all from there
  bufferSize: undefined, // bytes of the buffer at first; doubled when frames do not fit
  memory: undefined, // the name of the memory that holds the frames
  system: SystemCalls, // the class that answers imports
  programName: 'program',
  programArgs: [],
  stdin: new Uint8Array(),
};

export class Process {
  constructor(program, options) {
    this.program = program;
    this.options = { ...defaults, ...options };
    const root = this.options.root ?? ('_start' in program.exports ? '_start' : 'run');
    this.steps = this.options.steps ?? [() => [root, ...this.options.args]];
    if (!this.options.steps && program.exports[root]?.kind !== 'function') {
      throw new Error(`the module exports no function ${root}`);
    }
    this.system = new this.options.system(this.options);
    this.trace = [];
    this.entryCalls = 0;
    this.calls = {};
    this.instantiate();
    this.reserveBuffer();
    this.bufferSize = this.options.bufferSize ?? this.bufferLimit;
  }

  // A process of its own with the same past. What it shares with the old one, neither changes.
  copy() {
    const copy = Object.create(Process.prototype);
    Object.assign(copy, this);
    copy.system = this.system.copy();
    copy.trace = [...this.trace];
    copy.calls = { ...this.calls };
    copy.pending = this.pending && { ...this.pending };
    copy.renew();
    return copy;
  }

  instantiate() {
    this.imported = { memory: {}, global: {}, table: {} };
    this.resumeInstance = this.exports = undefined;
    const imports = {};
    for (const item of this.program.imports) {
      imports[item.module] ??= {};
      imports[item.module][item.name] = this.makeImport(item);
    }
    this.instance = new WebAssembly.Instance(this.program.module, imports);
    this.exports = this.instance.exports;
    this.memories = { ...this.imported.memory };
    for (const [name, value] of Object.entries(this.exports)) {
      if (value instanceof WebAssembly.Memory && !Object.values(this.memories).includes(value)) this.memories[name] = value;
    }
    this.tables = { ...this.imported.table };
    for (const [name, value] of Object.entries(this.exports)) {
      if (value instanceof WebAssembly.Table && !isResumeTable(name)) this.tables[name] = value;
    }
    const { memory } = this.options;
    const names = Object.keys(this.memories);
    this.memoryName = memory ?? (names.includes('memory') ? 'memory' : names[0]);
    this.memory = this.memories[this.memoryName];
    // The pass can have added it.
    if (memory && !this.memory && this.exports.wpk_fork_state) {
      throw new Error(`no memory is imported or exported as ${memory}`);
    }
    this.wide = this.memory !== undefined && this.isWide(this.memoryName);
    this.system.memory = this.memory;
    this.system.wide = this.wide;
  }

  // Replaces the instance by a fresh one with the same memories, tables and imported globals: functions in these are its
  // own, structs and arrays, which JavaScript cannot look into, are shared. What its start function does is not part of
  // the program's past.
  renew() {
    const { memories, tables, exports, imported, system, trace, calls, entryCalls } = this;
    Object.assign(this, { system: system.copy(), trace: [], calls: {} });
    this.instantiate();
    system.memory = this.memory;
    Object.assign(this, { system, trace, calls, entryCalls });
    for (const [name, old] of Object.entries(memories)) {
      const memory = this.memories[name];
      const more = (old.buffer.byteLength - memory.buffer.byteLength) / PAGE;
      if (more > 0) memory.grow(this.isWide(name) ? BigInt(more) : more);
      new Uint8Array(memory.buffer).set(new Uint8Array(old.buffer));
    }
    this.instantiateResume();
    const functions = new Map(Object.entries(exports).map(([name, theirs]) => [theirs, this.exports[name]]));
    // Undefined for functions of a module of resume functions, which are in their places already.
    const carry = (value) => (typeof value === 'function' ? functions.get(value) : value);
    for (const [name, old] of Object.entries(tables)) copyTable(old, this.tables[name], carry);
    for (const [name, old] of Object.entries(imported.global)) {
      if (old.mutable) this.imported.global[name].global.value = carry(old.global.value);
    }
  }

  isWide(memoryName) {
    const exported = this.program.exports[memoryName];
    const item =
      (exported?.kind === 'memory' && exported) ||
      this.program.imports.find(({ kind, module, name }) => kind === 'memory' && `${module}.${name}` === memoryName);
    return item.type.wide;
  }

  reserveBuffer() {
    if (!this.memory) return;
    const { bufferPages, bufferAt } = this.options;
    if (bufferAt !== undefined) {
      this.buffer = bufferAt;
      this.bufferLimit = this.memory.buffer.byteLength - bufferAt;
      return;
    }
    try {
      this.buffer = Number(this.memory.grow(this.wide ? BigInt(bufferPages) : bufferPages)) * PAGE;
    } catch {
      throw new Error(`the memory cannot grow by ${bufferPages} pages: give the address of a buffer in it`);
    }
    this.bufferLimit = bufferPages * PAGE;
  }

  pointer(address) {
    return this.wide ? BigInt(address) : address;
  }

  makeImport(item) {
    const full = `${item.module}.${item.name}`;
    const { type } = item;
    switch (item.kind) {
      case 'function': {
        if ([...type.params, ...type.results].includes('v128')) {
          throw new Error(`JavaScript cannot be called with a v128: ${full}`);
        }
        const isEntry = Program.isEntry(this.options.entries, item);
        return (...args) => (isEntry ? this.callEntry(full, item, args) : this.call(full, item, args));
      }
      case 'memory': {
        const limit = (pages) => (pages === undefined ? undefined : type.wide ? BigInt(pages) : pages);
        const memory = new WebAssembly.Memory({
          initial: limit(type.initial),
          ...(type.maximum === undefined ? {} : { maximum: limit(type.maximum) }),
          ...(type.shared ? { shared: true } : {}),
          ...(type.wide ? { address: 'i64' } : {}),
        });
        return (this.imported.memory[full] = memory);
      }
      case 'table': {
        const limit = (size) => (type.wide ? BigInt(size) : size);
        const table = new WebAssembly.Table({
          element: type.element,
          initial: limit(type.initial),
          ...(type.maximum === undefined ? {} : { maximum: limit(type.maximum) }),
          ...(type.wide ? { address: 'i64' } : {}),
        });
        return (this.imported.table[full] = table);
      }
      case 'global': {
        const start = { i32: 1024, i64: 1024n, f32: 1.5, f64: 2.5, externref: null, anyfunc: null }[type.value];
        const global = new WebAssembly.Global({ value: type.value, mutable: type.mutable }, start);
        this.imported.global[full] = { global, mutable: type.mutable };
        return global;
      }
      case 'tag':
        return new WebAssembly.Tag({ parameters: type.params });
    }
  }

  // Ends the program from inside an import.
  stop(reason) {
    this.stopped ??= reason;
    trap();
  }

  breakContract(message) {
    this.stop(new ContractError(message));
  }

  forkState() {
    return this.exports?.wpk_fork_state?.() ?? NORMAL;
  }

  // An import that is not an entry: never reached while the stack is on its way out or in.
  call(full, item, args) {
    const state = this.forkState();
    if (state !== NORMAL) this.breakContract(`${full} is called in state ${state}`);
    return this.answer(full, item, args);
  }

  // What the program sees of a call, and its record.
  answer(full, item, args) {
    const number = (this.calls[full] = (this.calls[full] ?? -1) + 1);
    const result = this.system.answer(item, args, number, (reason) => this.stop(reason));
    this.trace.push(`${full}(${args.map(show).join(', ')}) = ${show(result)}`);
    return result;
  }

  callEntry(full, item, args) {
    const state = this.forkState();
    if (state === UNWINDING) this.breakContract(`${full} is called while unwinding`);
    if (state === REWINDING || state === ABORTING) return this.arriveAgain(state, full, item, args);
    // A start function runs before there is anything to unwind with.
    const plan = this.exports ? this.options.plan(this.entryCalls) : 'stay';
    if (plan === 'stay') {
      this.entryCalls++;
      return this.answer(full, item, args);
    }
    if (!this.exports.wpk_fork_state) this.breakContract('the module is not instrumented');
    this.pending = { full, args, plan };
    return this.beginUnwind(full, item, args);
  }

  arriveAgain(state, full, item, args) {
    const { pending } = this;
    if (!pending) this.breakContract(`${full} is reached in state ${state}, and nothing was forked`);
    if (pending.full !== full || pending.args.map(show).join() !== args.map(show).join()) {
      this.breakContract(
        `rewinding reached ${full}(${args.map(show)}) instead of ${pending.full}(${pending.args.map(show)})`,
      );
    }
    this.exports.wpk_fork_rewind_end();
    if (state === ABORTING) {
      this.aborts = (this.aborts ?? 0) + 1;
      this.growBuffer();
      return this.beginUnwind(full, item, args);
    }
    this.pending = undefined;
    this.entryCalls++;
    return this.answer(full, item, args);
  }

  growBuffer() {
    if (this.bufferSize >= this.bufferLimit) {
      this.breakContract(`a buffer of ${this.bufferSize} bytes is too small`);
    }
    this.bufferSize = Math.min(this.bufferSize * 2, this.bufferLimit);
  }

  beginUnwind(full, item, args) {
    if (!this.memory) this.breakContract('no memory is exported or imported that could hold the buffer');
    this.instantiateResume();
    for (;;) {
      const view = new DataView(this.memory.buffer);
      const end = this.buffer + this.bufferSize;
      if (this.wide) view.setBigUint64(this.buffer + 8, BigInt(end), true);
      else view.setUint32(this.buffer + 4, end, true);
      this.exports.wpk_fork_unwind_begin(this.pointer(this.buffer));
      if (this.forkState() === UNWINDING) break;
      this.growBuffer();
    }
    // Returns anything: the value must not be used.
    const dummies = item.type.results.map((type) => (type === 'i64' ? -77n : type === 'ref' ? null : -77));
    return dummies.length > 1 ? dummies : dummies[0];
  }

  instantiateResume() {
    if (!this.program.resumeModule || this.resumeInstance) return;
    this.resumeInstance = new WebAssembly.Instance(this.program.resumeModule, { wpk_fork: this.exports });
  }

  // Runs the program to its end, forks and all. Returns the processes that reached it: one, or two after 'both'.
  run() {
    const others = [];
    for (;;) {
      try {
        this.current ??= this.steps[0](this);
        const [name, ...args] = this.current;
        this.returned = this.exports[name](...args);
      } catch (error) {
        if (this.stopped instanceof Error) throw this.stopped;
        this.outcome = this.stopped ? this.stopped.toString() : describeError(error);
        return [this, ...others];
      }
      if (this.forkState() === NORMAL) {
        if (this.pending) throw new ContractError(`${this.pending.full} began to unwind, and the root returned in the normal state`);
        this.current = undefined;
        this.steps = this.steps.slice(1);
        if (this.steps.length > 0) continue;
        this.outcome = `returned ${show(this.returned)}`;
        return [this, ...others];
      }
      if (this.forkState() !== UNWINDING) throw new ContractError(`the root returned in state ${this.forkState()}`);
      this.exports.wpk_fork_unwind_end();
      if (this.forkState() !== NORMAL) throw new ContractError('unwind_end does not lead to the normal state');
      this.forks = (this.forks ?? 0) + 1;
      this.measureFrames();
      const { plan } = this.pending;
      if (plan === 'both') {
        const child = this.copy();
        child.name = 'child';
        child.options = { ...this.options, plan: () => 'stay' };
        child.rewind();
        others.push(...child.run());
        this.name = 'parent';
      } else if (plan === 'child') {
        this.renew();
      }
      this.rewind();
    }
  }

  rewind() {
    this.instantiateResume();
    this.exports.wpk_fork_rewind_begin(this.pointer(this.buffer));
    if (this.forkState() !== REWINDING) throw new ContractError('rewind_begin does not lead to the rewinding state');
  }

  measureFrames() {
    const view = new DataView(this.memory.buffer);
    const next = this.wide ? Number(view.getBigUint64(this.buffer, true)) : view.getUint32(this.buffer, true);
    if (next < this.buffer || next > this.buffer + this.bufferSize) {
      throw new ContractError(`frames end at ${next}, outside of the buffer`);
    }
    this.frameBytes = (this.frameBytes ?? 0) + next - this.buffer;
  }

  // The memories, without what lies in the buffer.
  memoryImages() {
    const images = {};
    for (const [name, memory] of Object.entries(this.memories)) {
      const image = Buffer.from(new Uint8Array(memory.buffer));
      if (name === this.memoryName) image.fill(0, this.buffer, this.buffer + this.bufferLimit);
      images[name] = image;
    }
    return images;
  }

  // Everything that can be observed of a run that has ended.
  result() {
    return { outcome: this.outcome, output: this.system.outputs(), trace: this.trace, memories: this.memoryImages() };
  }
}

// Makes the contents of `to` those of `from`, each as `carry` says; what it does not know stays as it is.
function copyTable(from, to, carry) {
  const [length, size] = [from.length, to.length];
  for (let index = typeof length === 'bigint' ? 0n : 0; index < length; index++) {
    const value = carry(from.get(index));
    if (value === undefined && index < size && to.get(index)) continue;
    if (value === undefined) throw new ContractError('a table holds a function of another instance');
    if (index < size) to.set(index, value);
    else to.grow(typeof length === 'bigint' ? 1n : 1, value);
  }
}

function describeError(error) {
  if (error instanceof RangeError) return 'ran out of stack';
  if (error instanceof WebAssembly.RuntimeError) return `trapped: ${error.message}`;
  if (error instanceof WebAssembly.Exception) return 'threw an exception';
  throw error;
}

function show(value) {
  if (Array.isArray(value)) return `[${value.map(show).join(', ')}]`;
  if (typeof value === 'function') return 'a function';
  if (Object.is(value, -0)) return '-0';
  if (typeof value === 'object' && value !== null) return 'an object';
  return `${value}${typeof value === 'bigint' ? 'n' : ''}`;
}
