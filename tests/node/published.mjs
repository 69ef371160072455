// Runs a program as its packagers published it, and its instrumented version, which forks, and says where they differ: a
// compiler and language runtimes, none of them built for this.
//
// usage: node published.mjs PROGRAM ORIGINAL.wasm INSTRUMENTED.wasm RESUME.wasm
//
// PROGRAM is one of those below. They fork where they write, and clang where it reads, too: at every call in the same
// instance, at some of them in a fresh one, and at others with both sides going on to the end.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { replay } from './replay.mjs';
import { SystemCalls } from './system.mjs';

const WASI = 'wasi_snapshot_preview1';
const FILETYPE_DIRECTORY = 3;
const NO_ENTRY = 44;

// A root folder in which there is nothing but /dev/null.
class AlmostNoFiles extends SystemCalls {
  constructor(options) {
    super(options);
    this.files[3] = { directory: true };
  }
  fileType(file) {
    return file.directory ? FILETYPE_DIRECTORY : super.fileType(file);
  }
  fd_prestat_get(fd, result) {
    if (!this.files[fd]?.directory) return super.fd_prestat_get();
    this.view.setUint32(result, 0, true);
    this.view.setUint32(result + 4, 1, true);
    return 0;
  }
  fd_prestat_dir_name(fd, address) {
    this.view.setUint8(address, '/'.charCodeAt());
    return 0;
  }
  path_open(directory, flags, address, length, create, rights, inheriting, fdFlags, result) {
    if (Buffer.from(this.memory.buffer, address, length).toString() !== 'dev/null') return NO_ENTRY;
    this.view.setUint32(result, this.freeFile({ stdin: true }), true);
    return 0;
  }
  path_filestat_get() {
    return NO_ENTRY;
  }
}

const file = (name) => readFileSync(fileURLToPath(new URL(name, import.meta.url)));

// Puts a text, and a zero, where the last export that was called has made room.
function put(process, text) {
  new Uint8Array(process.memory.buffer).set([...Buffer.from(text), 0], process.returned);
  return process.returned;
}

// Ruby takes a list of arguments: pointers and lengths, made room for by cabi_realloc.
const rubyArguments = ['ruby', '-e_=0'];
const rubyScript = file('published.rb').toString();
const perlScript = file('published.pl').toString();
const room = (bytes) => () => ['cabi_realloc', 0, 0, 4, bytes];

// What each writes when it gets to its end is in `last`.
const programs = {
  clang: {
    entries: [`${WASI}.fd_read`, `${WASI}.fd_write`],
    programName: 'clang',
    programArgs: '-x c++ -std=c++20 -O2 -fexceptions -S --target=wasm32-wasip1 -o - -'.split(' '),
    stdin: file('published.cpp'),
    last: 'end_function',
  },
  yosys: { programName: 'yosys', programArgs: ['-s', '-'], stdin: file('published.ys'), last: 'End of script.' },
  perl: {
    last: 'done\n',
    steps: [
      () => ['_initialize'],
      () => ['zeroperl_init'],
      () => ['malloc', Buffer.byteLength(perlScript) + 1],
      (process) => ['zeroperl_eval', put(process, perlScript), 1, 0, 0],
      () => ['zeroperl_flush'],
    ],
  },
  ruby: {
    last: 'done\n',
    steps: [
      () => ['_initialize'],
      room(100),
      (process) => {
        const list = process.returned;
        let at = list + 8 * rubyArguments.length;
        rubyArguments.forEach((argument, index) => {
          const view = new DataView(process.memory.buffer);
          view.setUint32(list + 8 * index, at, true);
          view.setUint32(list + 8 * index + 4, argument.length, true);
          process.returned = at;
          at = put(process, argument) + argument.length + 1;
        });
        return ['ruby-init: func(args: list<string>) -> ()', list, rubyArguments.length];
      },
      () => ['ruby-init-loadpath: func() -> ()'],
      room(Buffer.byteLength(rubyScript) + 1),
      (process) => [
        'rb-eval-string-protect: func(str: string) -> tuple<handle<rb-abi-value>, s32>',
        put(process, rubyScript),
        Buffer.byteLength(rubyScript),
      ],
    ],
  },
};

const [name, ...files] = process.argv.slice(2);
const program = programs[name];
if (!program || files.length !== 3) {
  console.error(`usage: node published.mjs PROGRAM ORIGINAL.wasm INSTRUMENTED.wasm RESUME.wasm\nprograms: ${Object.keys(programs).join(' ')}`);
  process.exit(2);
}
const [original, instrumented, resume] = files.map((path) => readFileSync(path));
const { outcome, calls, forks, frameBytes, differences, output } = replay({
  entries: [`${WASI}.fd_write`],
  system: AlmostNoFiles,
  ...program,
  original,
  instrumented,
  resume,
  schedules: ['never', 'parent', 'at:5'],
});
for (const text of differences) console.error(text);
if (process.env.SHOW) console.log(output.stdout.toString(), output.stderr.toString());
console.log(`${name} ${outcome}; ${calls} calls of an entry, ${forks} forks, ${Math.round(frameBytes / forks)} bytes a fork`);
const isWhole = output.stdout.includes(program.last);
if (!isWhole) console.error(`the original does not get to ${JSON.stringify(program.last)}`);
process.exitCode = differences.length || forks === 0 || !isWhole ? 1 : 0;
