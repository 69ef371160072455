// Runs a module and its instrumented version, which forks, and says where they differ.
//
// usage: node replay.mjs ORIGINAL.wasm INSTRUMENTED.wasm [option...] [-- program argument...]
//
//   --resume R.wasm       the second module, with the resume functions
//   --entry MODULE.NAME   an import at which the program forks; may be repeated, a trailing * stands for anything
//                         (default: kernel.kernel_fork)
//   --export NAME         the root, called again to rewind (default: _start, else run)
//   --args A,B,…          its arguments
//   --schedule S          never       no fork
//                         child       at every call of an entry: unwind, and rewind in a fresh instance
//                         parent      the same in the same instance
//                         at:N        at each of N evenly chosen calls, in a run of its own: fork once, and both sides
//                                     go on to the end
//                         May be repeated, or a list with commas (default: never,child,parent,at:100)
//   --memory NAME         the memory that holds the frames
//   --buffer-size BYTES   begins with so small a buffer, and doubles it whenever the frames do not fit
//   --buffer-pages N      what memory is set aside for the buffer (default: 16)
//   --buffer-at ADDRESS   or where it is, in a memory that cannot grow
//   --name NAME           what the program is told that it is called (default: program)
//   --stdin FILE          the program's input
//   --stats               prints the number of forks, and the bytes that they saved
//
// Compared are the outcome, the bytes of both outputs, every call of an import with its arguments and result, and the
// memories outside of the buffer. Exit status 1: there is a difference, or the module broke the contract; 2: the modules
// could not be run.

import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { ContractError, Process, Program } from './host.mjs';

const BYTES_SHOWN = 40;

// The first difference between two results, as a text; undefined if there is none.
export function difference(expected, actual) {
  for (let index = 0; index < Math.max(expected.trace.length, actual.trace.length); index++) {
    if (expected.trace[index] !== actual.trace[index]) {
      return `call ${index} is ${actual.trace[index] ?? 'missing'} instead of ${expected.trace[index] ?? 'none'}`;
    }
  }
  for (const name of ['stdout', 'stderr']) {
    const at = firstDifference(expected.output[name], actual.output[name]);
    if (at >= 0) {
      const piece = (bytes) => JSON.stringify(bytes.subarray(at, at + BYTES_SHOWN).toString());
      return `${name} at byte ${at} is ${piece(actual.output[name])} instead of ${piece(expected.output[name])}`;
    }
  }
  if (expected.outcome !== actual.outcome) return `the program ${actual.outcome} instead of ${expected.outcome}`;
  for (const [name, memory] of Object.entries(expected.memories)) {
    const other = actual.memories[name];
    if (!other) return `memory ${name} is missing`;
    if (memory.length !== other.length) return `memory ${name} has ${other.length} bytes instead of ${memory.length}`;
    const at = firstDifference(memory, other);
    if (at >= 0) return `memory ${name} at ${at} has ${other[at]} instead of ${memory[at]}`;
  }
  return undefined;
}

function firstDifference(left, right) {
  if (left.equals(right)) return -1;
  let at = 0;
  while (at < left.length && at < right.length && left[at] === right[at]) at++;
  return at;
}

// The calls at which the runs of a schedule fork: [{ label, plan }].
function plansFor(schedule, calls) {
  if (schedule === 'never') return [{ label: 'never', plan: () => 'stay' }];
  if (schedule === 'child' || schedule === 'parent') return [{ label: schedule, plan: () => schedule }];
  const match = /^at:(\d+)$/.exec(schedule);
  if (!match) throw new Error(`there is no schedule ${schedule}: never, child, parent, at:N`);
  const count = Math.min(Number(match[1]), calls);
  return Array.from({ length: count }, (_, index) => {
    const chosen = Math.floor(((index + 0.5) * calls) / count);
    return { label: `both at call ${chosen}`, plan: (number) => (number === chosen ? 'both' : 'stay') };
  });
}

// Runs everything. Returns { calls, forks, frameBytes, aborts, outcome, output, differences: [text] }: outcome and output are the
// original's.
export function replay({ original, instrumented, resume, schedules, ...options }) {
  const plain = new Process(new Program(original), options);
  const [reference] = plain.run();
  const expected = reference.result();
  const report = { calls: reference.entryCalls, forks: 0, frameBytes: 0, aborts: 0, outcome: reference.outcome, output: expected.output, differences: [] };
  const program = new Program(instrumented, resume);
  for (const { label, plan } of schedules.flatMap((schedule) => plansFor(schedule, reference.entryCalls))) {
    try {
      const first = new Process(program, { ...options, plan });
      for (const process of first.run()) {
        const found = difference(expected, process.result());
        if (found) report.differences.push(`${label}${process.name ? `, ${process.name}` : ''}: ${found}`);
      }
      report.forks += first.forks ?? 0;
      report.frameBytes += first.frameBytes ?? 0;
      report.aborts += first.aborts ?? 0;
    } catch (error) {
      if (!(error instanceof ContractError)) throw error;
      report.differences.push(`${label}: ${error.message}`);
    }
  }
  return report;
}

// Arguments for the root, in the types that it declares.
function typedArguments(bytes, root, texts) {
  const { exports } = new Program(bytes);
  const name = root ?? ('_start' in exports ? '_start' : 'run');
  return (exports[name]?.type.params ?? []).map((type, index) => (type === 'i64' ? BigInt : Number)(texts[index] ?? 0));
}

function main() {
  const { values, positionals, tokens } = parseArgs({
    allowPositionals: true,
    tokens: true,
    options: {
      resume: { type: 'string' },
      entry: { type: 'string', multiple: true },
      export: { type: 'string' },
      args: { type: 'string' },
      schedule: { type: 'string', multiple: true },
      memory: { type: 'string' },
      'buffer-size': { type: 'string' },
      'buffer-pages': { type: 'string' },
      'buffer-at': { type: 'string' },
      name: { type: 'string' },
      stdin: { type: 'string' },
      stats: { type: 'boolean' },
    },
  });
  const terminator = tokens.find(({ kind }) => kind === 'option-terminator');
  const own = terminator ? tokens.filter((token) => token.kind === 'positional' && token.index < terminator.index).length : positionals.length;
  if (own !== 2) {
    console.error('usage: node replay.mjs ORIGINAL.wasm INSTRUMENTED.wasm [option...] [-- argument...]');
    process.exitCode = 2;
    return;
  }
  const original = readFileSync(positionals[0]);
  const options = {
    original,
    instrumented: readFileSync(positionals[1]),
    resume: values.resume && readFileSync(values.resume),
    schedules: (values.schedule ?? ['never,child,parent,at:100']).flatMap((list) => list.split(',')),
    args: typedArguments(original, values.export, values.args ? values.args.split(',') : []),
    programArgs: positionals.slice(2),
  };
  if (values.entry) options.entries = values.entry;
  if (values.export) options.root = values.export;
  if (values.memory) options.memory = values.memory;
  if (values['buffer-size']) options.bufferSize = Number(values['buffer-size']);
  if (values['buffer-pages']) options.bufferPages = Number(values['buffer-pages']);
  if (values['buffer-at']) options.bufferAt = Number(values['buffer-at']);
  if (values.name) options.programName = values.name;
  if (values.stdin) options.stdin = readFileSync(values.stdin);

  const { calls, forks, frameBytes, aborts, outcome, differences } = replay(options);
  for (const text of differences) console.error(text);
  if (values.stats) {
    const average = forks ? Math.round(frameBytes / forks) : 0;
    console.log(`${outcome}; ${calls} calls of an entry, ${forks} forks, ${average} bytes a fork, ${aborts} aborts`);
  }
  if (calls === 0) console.error('note: the program never called an entry');
  process.exitCode = differences.length ? 1 : 0;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    main();
  } catch (error) {
    console.error(`replay: ${error.message}`);
    process.exitCode = 2;
  }
}
