// Runs a module under the JavaScript that was published with it, its glue, but in its instrumented version, which forks
// in the same instance at all calls of imports that a root is on the stack of.
//
// usage: GLUE=SETTINGS node --import ./glue.mjs SCRIPT
//
// SETTINGS is JSON:
//   original, instrumented   files; where the glue compiles the one it gets the other
//   resume                   the file of resume functions, for a module with a memory for frames; without one, frames
//                            are in the program's memory, shared by modules that are linked dynamically
//   side, folder             the command that instruments a side module, without the files; and where these go
//   entries                  the imports that fork, as `module.name` or `module.*`
// Without GLUE the script runs as it is, but also without JSPI: stacks of which JavaScript is a part cannot be unwound.
// What was forked is told on standard error. A run fails without forks, and where the contract is broken (docs/abi.md).

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { describe } from '../module.mjs';

const wasm = globalThis.WebAssembly;
delete wasm.Suspending;
delete wasm.promising;

// Where the buffer begins in a memory of its own.
const BUFFER = 16;
const ROOM = 1 << 20;
const LINKING = '__wpk_fork_';
const [NORMAL, UNWINDING, REWINDING] = [0, 1, 2];

const { Module, Instance, Table } = wasm;
const { get, set, grow } = Table.prototype;

// A function of an instance, as the interface gives it.
const isOfWasm = (value) => typeof value === 'function' && /^\d+$/.test(value.name) && !('prototype' in value);

// Functions that the glue calls, and the functions themselves.
const [roots, originals] = [new WeakMap(), new WeakMap()];
const original = (value) => originals.get(value) ?? value;

// Something of the type, and not what the program expects: what an import returns while the program unwinds.
function any(type) {
  if (type === 'i64') return -77n;
  if (type === 'externref') return {};
  return ['i32', 'f32', 'f64'].includes(type) ? -77 : null;
}

class Forks {
  constructor(settings) {
    this.settings = settings;
    this.bytes = readFileSync(settings.original);
    this.own = describe(this.bytes).exports;
    const instrumented = readFileSync(settings.instrumented);
    this.described = describe(instrumented);
    this.module = new Module(instrumented);
    this.resume = settings.resume && new Module(readFileSync(settings.resume));
    this.programs = [];
    this.sides = new WeakMap();
    // What the glue or the program could keep to itself.
    this.breaches = [];
    [this.forks, this.size] = [0, 0];
    // Checksums of side modules.
    this.sideModules = new Set();
  }

  isEntry(module, name) {
    const matches = (entry) => entry === `${module}.*` || entry === `${module}.${name}`;
    return this.settings.entries.some(matches);
  }

  // The module to take for what the glue wants to compile.
  moduleFor(source) {
    if (source instanceof Module) return source;
    const bytes = ArrayBuffer.isView(source)
      ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
      : new Uint8Array(source);
    if (Buffer.compare(bytes, this.bytes) === 0) return this.module;
    return (this.programs.length > 0 && this.sideModule(bytes)) || new Module(bytes);
  }

  // An instrumented side module, if it is one of a program here: others have a stack pointer of their own.
  sideModule(bytes) {
    if (Buffer.from(bytes.subarray(8, 40)).indexOf('dylink.0') < 0) return null;
    if (!describe(bytes).imports.some(({ name }) => name === '__stack_pointer')) return null;
    const checksum = createHash('sha256').update(bytes).digest('hex').slice(0, 16);
    this.sideModules.add(checksum);
    const name = `${this.settings.folder}/side.${checksum}`;
    const [from, to] = [`${name}.original.wasm`, `${name}.wasm`];
    writeFileSync(from, bytes);
    const [command, ...words] = this.settings.side;
    const { status, stderr } = spawnSync(command, [from, ...words, '-o', to]);
    if (status !== 0) throw new Error(`a side module cannot be instrumented: ${stderr}`);
    const instrumented = readFileSync(to);
    const module = new Module(instrumented);
    const [section] = Module.customSections(module, 'fork-instrument.linking');
    // An unsigned LEB128 number.
    const slots = new Uint8Array(section).reduce((sum, byte, i) => sum + (byte & 127) * 128 ** i, 0);
    this.sides.set(module, { described: describe(instrumented), own: describe(bytes).exports, slots });
    return module;
  }

  instantiate(module, imports) {
    const side = this.sides.get(module);
    if (module !== this.module && !side) return new Instance(module, withOriginals(imports));
    const program = side
      ? this.programs.find(({ memory }) => memory === imports.env.memory)
      : { buffer: BUFFER, depth: 0, sides: [], tables: new Set() };
    const slots = side && program.main[`${LINKING}table`].grow(side.slots);
    const given = {};
    for (const { module: from, name, kind, type } of (side ?? this).described.imports) {
      given[from] ??= {};
      given[from][name] = this.imported(program, imports, { from, name, kind, type }, slots);
    }
    const { exports } = new Instance(module, given);
    if (side) program.sides.push(exports);
    else this.start(program, exports, imports);
    const own = Object.entries(exports).filter(([name]) => Object.hasOwn((side ?? this).own, name));
    own.filter(([, value]) => value instanceof Table).forEach(([, table]) => program.tables.add(table));
    const instance = Object.create(Instance.prototype);
    const wrapped = Object.fromEntries(own.map(([name, value]) => [name, this.root(program, value)]));
    Object.defineProperty(instance, 'exports', { value: Object.freeze(wrapped) });
    return instance;
  }

  start(program, exports, imports) {
    program.main = exports;
    if (this.resume) {
      new Instance(this.resume, { wpk_fork: exports });
      program.memory = exports.wpk_fork_memory;
      const pages = Math.ceil((BUFFER + ROOM - program.memory.buffer.byteLength) / 65536);
      if (pages > 0) program.memory.grow(pages);
    } else {
      program.memory = exports.memory ?? imports.env.memory;
      program.buffer = 0;
    }
    this.programs.push(program);
  }

  // What a module gets for one of its imports; a side module has slots in the resume table from `slots` on.
  imported(program, imports, { from, name, kind, type }, slots) {
    const isSide = slots !== undefined;
    if (isSide && name === `${LINKING}table_base`) return slots;
    if (isSide && name.startsWith(LINKING)) return program.main[name];
    const value = original(imports[from][name]);
    if (kind === 'table') program.tables.add(value);
    if (kind !== 'function') return value;
    // Functions of the other module go on to it.
    if (isOfWasm(value)) return value;
    const call = (...words) => value(...words.map((word) => (isOfWasm(word) ? this.root(program, word) : word)));
    return this.isEntry(from, name) ? this.entry(program, name, type.results, call) : call;
  }

  // A function that the glue calls: it goes on until the call is over, however often it is unwound.
  root(program, value) {
    if (typeof value !== 'function') return value;
    const known = roots.get(value);
    if (known) return known;
    const root = (...words) => {
      program.depth++;
      try {
        let result = value(...words);
        while (program.main?.wpk_fork_state() === UNWINDING) {
          program.main.wpk_fork_unwind_end();
          this.size += new DataView(program.memory.buffer).getUint32(program.buffer, true) - program.buffer;
          this.transition(program, 'wpk_fork_rewind_begin');
          result = value(...words);
        }
        return result;
      } finally {
        program.depth--;
      }
    };
    Object.defineProperty(root, 'name', { value: value.name });
    Object.defineProperty(root, 'length', { value: value.length });
    roots.set(value, root);
    originals.set(root, value);
    return root;
  }

  // Of all modules that share the frames, until one has no room.
  transition(program, name) {
    for (const module of [program.main, ...program.sides]) {
      module[name](program.buffer);
      if (program.main.wpk_fork_state() === NORMAL) throw this.breach('there is no room for a fork');
    }
  }

  breach(message) {
    this.breaches.push(message);
    return new Error(message);
  }

  entry(program, name, results, call) {
    const nothing = results.length > 1 ? results.map(any) : results.length === 1 ? any(results[0]) : undefined;
    return (...words) => {
      const { main } = program;
      if (!main) return call(...words);
      const state = main.wpk_fork_state();
      if (state === UNWINDING) throw this.breach(`${name} is called while the program unwinds`);
      if (state !== NORMAL) {
        if (state !== REWINDING) this.breach(`${name} is reached again, because a frame did not fit`);
        if (program.forked.name !== name || !isDeepStrictEqual(program.forked.words, words)) {
          this.breach(`${name}(${words}) is reached again, not ${program.forked.name}(${program.forked.words})`);
        }
        main.wpk_fork_rewind_end();
        return call(...words);
      }
      if (program.depth === 0 || !this.hasBuffer(program)) return call(...words);
      new DataView(program.memory.buffer).setUint32(program.buffer + 4, program.buffer + ROOM, true);
      program.forked = { name, words };
      this.transition(program, 'wpk_fork_unwind_begin');
      this.forks++;
      return nothing;
    };
  }

  // Whether there is one; else it is made, by a function that may call imports, which do not fork.
  hasBuffer(program) {
    if (program.buffer === 0) {
      program.buffer = null;
      const buffer = program.main.malloc(ROOM);
      if (buffer === 0) throw this.breach('the program has no memory for a buffer');
      program.buffer = buffer;
    }
    return program.buffer !== null;
  }

  report() {
    const size = Math.round(this.size / this.forks);
    process.stderr.write(`${this.forks} forks, ${size} bytes on average, ${this.sideModules.size} side modules\n`);
    this.breaches.slice(0, 5).forEach((message) => process.stderr.write(`${message}\n`));
    const isComplete = this.forks > 0 && (this.settings.resume || this.sideModules.size > 0);
    if (!isComplete || this.breaches.length > 0) process.exitCode ||= 1;
  }
}

// Imports of other modules, which get functions of instances themselves.
function withOriginals(imports) {
  const read = (target, name) => original(Reflect.get(target, name));
  return new Proxy(imports ?? {}, { get: (target, name) => target[name] && new Proxy(target[name], { get: read }) });
}

function install(forks) {
  const construct = (_, [source]) => forks.moduleFor(source);
  wasm.Module = new Proxy(Module, { construct });
  wasm.Instance = new Proxy(Instance, { construct: (_, [module, imports]) => forks.instantiate(module, imports) });
  wasm.compile = async (source) => forks.moduleFor(source);
  wasm.instantiate = async (source, imports) => {
    const module = forks.moduleFor(source);
    const instance = forks.instantiate(module, imports);
    return source instanceof Module ? instance : { module, instance };
  };
  const bytes = async (response) => new Uint8Array(await (await response).arrayBuffer());
  wasm.compileStreaming = async (response) => wasm.compile(await bytes(response));
  wasm.instantiateStreaming = async (response, imports) => wasm.instantiate(await bytes(response), imports);
  Table.prototype.get = function (index) {
    const program = forks.programs.find(({ tables }) => tables.has(this));
    const value = get.call(this, index);
    return program ? forks.root(program, value) : value;
  };
  Table.prototype.set = function (index, ...values) {
    return set.call(this, index, ...values.map(original));
  };
  Table.prototype.grow = function (count, ...values) {
    return grow.call(this, count, ...values.map(original));
  };
  process.on('exit', () => forks.report());
}

if (process.env.GLUE) install(new Forks(JSON.parse(process.env.GLUE)));
