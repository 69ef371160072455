// The system calls of a process that is alone in the world: a part of WASI preview 1, and the module `kernel`.
//
// Everything is a function of the calls made so far, so that two runs of one program are the same: clocks tick once a
// call, random bytes come from a counter. fork() returns a pid, every third time 0; children end at once; a pipe leads
// back into the same process. Imports that nobody knows return small numbers that depend on their arguments.

const ERRNO = { badf: 8, fault: 21, inval: 28, nosys: 52, spipe: 70 };

const FILETYPE_UNKNOWN = 0;
const FILETYPE_CHARACTER_DEVICE = 2;

// How the program ended by its own will.
export class Exit {
  constructor(code) {
    this.code = code;
  }
  toString() {
    return `exited with ${this.code}`;
  }
}

export class SystemCalls {
  constructor({ programName, programArgs, stdin }) {
    this.args = [programName, ...programArgs];
    this.input = stdin;
    this.inputAt = 0;
    this.written = { 1: [], 2: [] };
    this.ticks = 0;
    this.random = 0;
    this.forks = 0;
    this.files = { 0: { stdin: true }, 1: { output: 1 }, 2: { output: 2 } };
    this.pipes = [];
  }

  copy() {
    const copy = Object.create(Object.getPrototypeOf(this));
    Object.assign(copy, this);
    copy.written = { 1: [...this.written[1]], 2: [...this.written[2]] };
    copy.files = { ...this.files };
    copy.pipes = this.pipes.map((bytes) => [...bytes]);
    return copy;
  }

  outputs() {
    return { stdout: Buffer.concat(this.written[1]), stderr: Buffer.concat(this.written[2]) };
  }

  // The result of a call. `stop` ends the program and does not return.
  answer({ module, name, type }, args, number, stop) {
    if (module === 'wasi_snapshot_preview1') {
      if (name === 'proc_exit') stop(new Exit(args[0]));
      return this[name] ? this[name](...args) : ERRNO.nosys;
    }
    if (module === 'kernel' && type.results.join() === 'i32' && this[`kernel_${name}`]?.length === type.params.length) {
      return this[`kernel_${name}`](...args);
    }
    const seed = hash(`${module}.${name} ${number} ${args.filter((value) => typeof value !== 'object').join()}`);
    const values = type.results.map((result, index) => makeUp(result, seed + index * 7));
    return values.length > 1 ? values : values[0];
  }

  // Memory. Sizes and pointers have eight bytes on a 64-bit memory, as parameters and in memory.
  get view() {
    return new DataView(this.memory.buffer);
  }
  get pointerSize() {
    return this.wide ? 8 : 4;
  }
  load(address) {
    return this.wide ? Number(this.view.getBigUint64(address, true)) : this.view.getUint32(address, true);
  }
  store(address, value) {
    if (this.wide) this.view.setBigUint64(Number(address), BigInt(value), true);
    else this.view.setUint32(Number(address), value, true);
  }
  spans(vectors, count) {
    const size = this.pointerSize;
    return Array.from({ length: Number(count) }, (_, index) => {
      const at = Number(vectors) + index * 2 * size;
      return new Uint8Array(this.memory.buffer, this.load(at), this.load(at + size));
    });
  }

  // WASI preview 1.
  list(strings, pointers, bytes) {
    let at = Number(bytes);
    strings.forEach((string, index) => {
      this.store(Number(pointers) + index * this.pointerSize, at);
      const encoded = Buffer.from(`${string}\0`);
      new Uint8Array(this.memory.buffer).set(encoded, at);
      at += encoded.length;
    });
    return 0;
  }
  listSizes(strings, count, size) {
    this.store(count, strings.length);
    this.store(size, strings.reduce((sum, string) => sum + Buffer.byteLength(string) + 1, 0));
    return 0;
  }
  args_get(pointers, bytes) {
    return this.list(this.args, pointers, bytes);
  }
  args_sizes_get(count, size) {
    return this.listSizes(this.args, count, size);
  }
  environ_get() {
    return 0;
  }
  environ_sizes_get(count, size) {
    return this.listSizes([], count, size);
  }
  clock_time_get(id, precision, result) {
    this.view.setBigUint64(Number(result), 1_000_000_000n * 1_600_000_000n + BigInt(this.ticks++) * 1_000_000n, true);
    return 0;
  }
  clock_res_get(id, result) {
    this.view.setBigUint64(Number(result), 1_000_000n, true);
    return 0;
  }
  random_get(address, size) {
    for (let index = 0; index < Number(size); index++) {
      this.view.setUint8(Number(address) + index, hash(`random ${this.random++}`));
    }
    return 0;
  }
  sched_yield() {
    return 0;
  }
  fd_write(fd, vectors, count, result) {
    const file = this.files[fd];
    if (!file?.output && file?.writes === undefined) return ERRNO.badf;
    let total = 0;
    for (const span of this.spans(vectors, count)) {
      if (file.output) this.written[file.output].push(Buffer.from(span));
      else this.pipes[file.writes].push(...span);
      total += span.length;
    }
    this.store(result, total);
    return 0;
  }
  fd_read(fd, vectors, count, result) {
    const file = this.files[fd];
    if (!file?.stdin && file?.reads === undefined) return ERRNO.badf;
    let total = 0;
    for (const span of this.spans(vectors, count)) {
      let bytes;
      if (file.stdin) {
        bytes = this.input.subarray(this.inputAt, this.inputAt + span.length);
        this.inputAt += bytes.length;
      } else {
        bytes = this.pipes[file.reads].splice(0, span.length);
      }
      span.set(bytes);
      total += bytes.length;
    }
    this.store(result, total);
    return 0;
  }
  fd_close(fd) {
    if (!this.files[fd]) return ERRNO.badf;
    delete this.files[fd];
    return 0;
  }
  fd_seek(fd) {
    return this.files[fd] ? ERRNO.spipe : ERRNO.badf;
  }
  fileType(file) {
    return file.output || file.stdin ? FILETYPE_CHARACTER_DEVICE : FILETYPE_UNKNOWN;
  }
  fd_filestat_get(fd, result) {
    const file = this.files[fd];
    if (!file) return ERRNO.badf;
    const at = Number(result);
    new Uint8Array(this.memory.buffer, at, 64).fill(0);
    this.view.setUint8(at + 16, this.fileType(file));
    return 0;
  }
  fd_fdstat_get(fd, result) {
    const file = this.files[fd];
    if (!file) return ERRNO.badf;
    const at = Number(result);
    new Uint8Array(this.memory.buffer, at, 24).fill(0);
    this.view.setUint8(at, this.fileType(file));
    this.view.setBigUint64(at + 8, 0x42n, true); // the rights to read and to write, none to seek
    return 0;
  }
  fd_fdstat_set_flags(fd) {
    return this.files[fd] ? 0 : ERRNO.badf;
  }
  fd_prestat_get() {
    return ERRNO.badf;
  }

  // The module `kernel`; negative results are errors. Named after the import, with `kernel_` in front.
  kernel_kernel_fork() {
    const number = this.forks++;
    return number % 3 === 2 ? 0 : 100 + number;
  }
  kernel_waitpid(pid, status, options) {
    void options;
    if (Number(status) !== 0) this.view.setInt32(Number(status), 0, true);
    return pid > 0 ? pid : 100;
  }
  kernel_getpid() {
    return 99;
  }
  kernel_getppid() {
    return 1;
  }
  kernel_pipe(result) {
    const fds = [this.freeFile({ reads: this.pipes.length }), this.freeFile({ writes: this.pipes.length })];
    this.pipes.push([]);
    fds.forEach((fd, index) => this.view.setInt32(Number(result) + index * 4, fd, true));
    return 0;
  }
  kernel_dup2(from, to) {
    if (!this.files[from]) return -ERRNO.badf;
    this.files[to] = this.files[from];
    return to;
  }
  freeFile(file) {
    let fd = 3;
    while (this.files[fd]) fd++;
    this.files[fd] = file;
    return fd;
  }
}

function hash(text) {
  let state = 2166136261;
  for (let index = 0; index < text.length; index++) state = Math.imul(state ^ text.charCodeAt(index), 16777619);
  state ^= state >>> 15;
  return (Math.imul(state, 2246822519) >>> 8) & 0xffff;
}

function makeUp(type, seed) {
  switch (type) {
    case 'i32':
      return seed & 0xff;
    case 'i64':
      return BigInt(seed) * 65537n;
    case 'f32':
      return (seed & 0xff) + 0.5;
    case 'f64':
      return seed + 0.25;
    default:
      return null;
  }
}
