// The system calls that the measured programs make, as cheap as they can be: output is counted and dropped, the clock
// ticks once a call, random bytes come from a counter. Two runs of one program are the same.

const ERRNO = { badf: 8, nosys: 52, spipe: 70 };

export class Exit {
  constructor(code) {
    this.code = code;
  }
}

export class Wasi {
  constructor(args) {
    this.args = ['program', ...args].map((text) => Buffer.from(`${text}\0`));
    this.written = 0;
    this.ticks = 0n;
    this.random = 0;
  }

  get view() {
    // A memory that grew has a new buffer.
    if (this.cached?.buffer !== this.memory.buffer) this.cached = new DataView(this.memory.buffer);
    return this.cached;
  }

  // Functions for a module's imports; `override` has those that the caller makes itself.
  imports(module, override = {}) {
    const imports = {};
    for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
      if (kind !== 'function') throw new Error(`${from}.${name} is a ${kind}`);
      imports[from] ??= {};
      imports[from][name] = override[`${from}.${name}`] ?? this.function(name);
    }
    return imports;
  }

  function(name) {
    return this[name] ? (...args) => this[name](...args) : () => ERRNO.nosys;
  }

  args_sizes_get(count, size) {
    this.view.setUint32(count, this.args.length, true);
    this.view.setUint32(size, this.args.reduce((sum, bytes) => sum + bytes.length, 0), true);
    return 0;
  }
  args_get(pointers, at) {
    for (const [index, bytes] of this.args.entries()) {
      this.view.setUint32(pointers + 4 * index, at, true);
      new Uint8Array(this.memory.buffer).set(bytes, at);
      at += bytes.length;
    }
    return 0;
  }
  environ_sizes_get(count, size) {
    this.view.setUint32(count, 0, true);
    this.view.setUint32(size, 0, true);
    return 0;
  }
  environ_get() {
    return 0;
  }
  clock_time_get(id, precision, result) {
    this.view.setBigUint64(result, 1_600_000_000_000_000_000n + this.ticks++ * 1_000_000n, true);
    return 0;
  }
  clock_res_get(id, result) {
    this.view.setBigUint64(result, 1_000_000n, true);
    return 0;
  }
  random_get(at, size) {
    const bytes = new Uint8Array(this.memory.buffer, at, size);
    for (let index = 0; index < size; index++) bytes[index] = (this.random++ * 167) & 255;
    return 0;
  }
  fd_write(fd, vectors, count, result) {
    if (fd !== 1 && fd !== 2) return ERRNO.badf;
    let total = 0;
    for (let index = 0; index < count; index++) total += this.view.getUint32(vectors + 8 * index + 4, true);
    this.written += total;
    this.view.setUint32(result, total, true);
    return 0;
  }
  fd_read(fd, vectors, count, result) {
    this.view.setUint32(result, 0, true);
    return 0;
  }
  fd_seek(fd) {
    return fd <= 2 ? ERRNO.spipe : ERRNO.badf;
  }
  fd_fdstat_get(fd, result) {
    if (fd > 2) return ERRNO.badf;
    new Uint8Array(this.memory.buffer, result, 24).fill(0);
    this.view.setUint8(result, 2);
    this.view.setBigUint64(result + 8, 0x42n, true);
    return 0;
  }
  fd_prestat_get() {
    return ERRNO.badf;
  }
  fd_close() {
    return 0;
  }
  proc_exit(code) {
    throw new Exit(code);
  }
}
