// Reads from a module's bytes what the JavaScript interface does not tell: the types of imports and exports.

const VALUE_TYPES = { 0x7f: 'i32', 0x7e: 'i64', 0x7d: 'f32', 0x7c: 'f64', 0x7b: 'v128' };
const REFERENCES = { 0x70: 'anyfunc', 0x6f: 'externref' };
const KINDS = ['function', 'table', 'memory', 'global', 'tag'];

class Reader {
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }
  byte() {
    return this.bytes[this.at++];
  }
  // Unsigned LEB128; exact up to 2^53.
  u() {
    for (let result = 0, scale = 1; ; scale *= 128) {
      const byte = this.byte();
      result += (byte & 0x7f) * scale;
      if (byte < 0x80) return result;
    }
  }
  skipLeb() {
    while (this.byte() >= 0x80);
  }
  name() {
    const length = this.u();
    this.at += length;
    return new TextDecoder().decode(this.bytes.subarray(this.at - length, this.at));
  }
  vector(read) {
    return Array.from({ length: this.u() }, () => read());
  }
  type() {
    const code = this.byte();
    if (code === 0x63 || code === 0x64) {
      // In front of an exact type.
      if (this.bytes[this.at] === 0x62) this.byte();
      const heap = this.bytes[this.at];
      this.skipLeb();
      return REFERENCES[heap] ?? 'ref';
    }
    return VALUE_TYPES[code] ?? REFERENCES[code] ?? 'ref';
  }
  field() {
    this.type();
    this.byte();
  }
  // One composite type: the signature of a function, null for anything else.
  composite() {
    switch (this.byte()) {
      case 0x60:
        return { params: this.vector(() => this.type()), results: this.vector(() => this.type()) };
      case 0x5f:
        this.vector(() => this.field());
        return null;
      case 0x5e:
        this.field();
        return null;
      // What it describes, or is described by.
      case 0x4c:
      case 0x4d:
        this.skipLeb();
        return this.composite();
      default:
        throw new Error('a type that this reader does not know');
    }
  }
  subtype() {
    const code = this.bytes[this.at];
    if (code === 0x50 || code === 0x4f) {
      this.at++;
      this.vector(() => this.u());
    }
    return this.composite();
  }
  // A recursion group, as the list of its types.
  group() {
    if (this.bytes[this.at] !== 0x4e) return [this.subtype()];
    this.at++;
    return this.vector(() => this.subtype());
  }
  limits() {
    const flags = this.byte();
    const limits = { wide: (flags & 4) !== 0, shared: (flags & 2) !== 0, initial: this.u() };
    if (flags & 1) limits.maximum = this.u();
    if (flags & 8) this.u();
    return limits;
  }
  table() {
    if (this.bytes[this.at] === 0x40) this.at += 2; // a table with an initialiser
    return { element: this.type(), ...this.limits() };
  }
}

// { imports: [{ module, name, kind, type }], exports: { name: { kind, type } } }, where the type of a function or a
// tag is its signature, and that of a memory or a table its limits.
export function describe(bytes) {
  const types = [];
  const imports = [];
  const spaces = { function: [], table: [], memory: [], global: [], tag: [] };
  const exports = {};
  const readType = (reader, kind) => {
    switch (kind) {
      case 'function':
        return types[reader.u()];
      case 'table':
        return reader.table();
      case 'memory':
        return reader.limits();
      case 'global':
        return { value: reader.type(), mutable: reader.byte() === 1 };
      case 'tag':
        return reader.byte(), types[reader.u()];
    }
  };
  const sections = new Reader(bytes, 8);
  while (sections.at < bytes.length) {
    const id = sections.byte();
    const size = sections.u();
    const reader = new Reader(bytes, sections.at);
    sections.at += size;
    if (id === 1) reader.vector(() => types.push(...reader.group()));
    if (id === 2) {
      reader.vector(() => {
        const [module, name, kind] = [reader.name(), reader.name(), KINDS[reader.byte()]];
        const type = readType(reader, kind);
        imports.push({ module, name, kind, type });
        spaces[kind].push(type);
      });
    }
    if (id === 3) reader.vector(() => spaces.function.push(types[reader.u()]));
    if (id === 5) reader.vector(() => spaces.memory.push(reader.limits()));
    if (id === 7) {
      reader.vector(() => {
        const name = reader.name();
        const kind = KINDS[reader.byte()];
        exports[name] = { kind, type: spaces[kind][reader.u()] };
      });
    }
  }
  return { imports, exports };
}

const EXPORTS = 7;
// Sections that stand before that of the exports: types, imports, functions, tables, memories, tags, globals.
const BEFORE = [1, 2, 3, 4, 5, 13, 6];

function leb(value) {
  const bytes = [];
  for (; value >= 0x80; value = Math.floor(value / 128)) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value];
}

// The module with an export for each of its functions, so that a function can be found in another instance.
export function exposeFunctions(bytes) {
  const sections = [];
  let [functions, exported] = [0, { count: 0, entries: new Uint8Array() }];
  const reader = new Reader(bytes, 8);
  while (reader.at < bytes.length) {
    const id = reader.byte();
    const size = reader.u();
    const inner = new Reader(bytes, reader.at);
    reader.at += size;
    if (id === EXPORTS) exported = { count: inner.u(), entries: bytes.subarray(inner.at, reader.at) };
    else sections.push({ id, contents: bytes.subarray(inner.at, reader.at) });
    if (id === 3) functions += inner.u();
  }
  functions += describe(bytes).imports.filter(({ kind }) => kind === 'function').length;
  const added = [];
  for (let index = 0; index < functions; index++) {
    const name = new TextEncoder().encode(`host.function.${index}`);
    added.push(...leb(name.length), ...name, 0, ...leb(index));
  }
  const contents = Buffer.concat([Uint8Array.from(leb(exported.count + functions)), exported.entries, Uint8Array.from(added)]);
  sections.splice(sections.findLastIndex(({ id }) => BEFORE.includes(id)) + 1, 0, { id: EXPORTS, contents });
  const parts = sections.flatMap(({ id, contents }) => [Uint8Array.from([id, ...leb(contents.length)]), contents]);
  return Buffer.concat([bytes.subarray(0, 8), ...parts]);
}
