// An instance of a measured module, and how each of the instrumentations is unwound and rewound.

import { readFileSync } from 'node:fs';
import { Exit, Wasi } from './wasi.mjs';

const PAGE = 65536;

// A module as the command line names it: KIND=FILE or KIND=FILE,RESUME_FILE, where KIND is plain, asyncify or fork.
export class Program {
  constructor(text) {
    const [, kind, files] = /^(\w+)=(.*)$/.exec(text);
    const [file, resume] = files.split(',');
    this.kind = kind;
    this.module = new WebAssembly.Module(readFileSync(file));
    this.resumeFile = resume;
    const names = WebAssembly.Module.exports(this.module).map(({ name }) => name);
    this.root = names.includes('_start') ? '_start' : 'run';
  }
  get resumeModule() {
    if (this.resumeFile) this.compiledResume ??= new WebAssembly.Module(readFileSync(this.resumeFile));
    return this.compiledResume;
  }
}

const DRIVERS = {
  asyncify: (exports, buffer, size, view) => ({
    beginUnwind() {
      view().setUint32(buffer, buffer + 8, true);
      view().setUint32(buffer + 4, buffer + size, true);
      exports.asyncify_start_unwind(buffer);
    },
    endUnwind: () => exports.asyncify_stop_unwind(),
    beginRewind: () => exports.asyncify_start_rewind(buffer),
    endRewind: () => exports.asyncify_stop_rewind(),
    state: () => exports.asyncify_get_state(),
  }),
  fork: (exports, buffer, size, view) => ({
    beginUnwind() {
      view().setUint32(buffer + 4, buffer + size, true);
      exports.wpk_fork_unwind_begin(buffer);
    },
    endUnwind: () => exports.wpk_fork_unwind_end(),
    beginRewind: () => exports.wpk_fork_rewind_begin(buffer),
    endRewind: () => exports.wpk_fork_rewind_end(),
    state: () => exports.wpk_fork_state(),
  }),
};

export class Guest {
  // `override` maps names of imports to functions that replace those of WASI.
  constructor(program, args, override = {}) {
    this.program = program;
    this.wasi = new Wasi(args);
    this.instance = new WebAssembly.Instance(program.module, this.wasi.imports(program.module, override));
    this.exports = this.instance.exports;
    this.wasi.memory = this.exports.memory;
  }

  // Calls the root; the exit status of a WASI program is not looked at.
  call(...args) {
    try {
      return this.exports[this.program.root](...args);
    } catch (error) {
      if (error instanceof Exit) return error.code;
      throw error;
    }
  }

  // Sets memory aside for the buffer, and makes the functions that unwind and rewind.
  prepare(size) {
    const pages = Math.ceil(size / PAGE);
    this.buffer = this.exports.memory.grow(pages) * PAGE;
    if (this.program.resumeModule) new WebAssembly.Instance(this.program.resumeModule, { wpk_fork: this.exports });
    const view = () => this.wasi.view;
    this.driver = DRIVERS[this.program.kind](this.exports, this.buffer, pages * PAGE, view);
  }

  // Bytes in the buffer, its header included.
  saved() {
    return this.wasi.view.getUint32(this.buffer, true) - this.buffer;
  }
}
