// Runs programs in turn, and prints the CPU time that each run took inside of the program, in seconds.
//
// usage: node run.mjs ROUNDS ROTATION KIND=FILE... -- [argument...]
//
// Every round calls every program once, in a fresh instance of a module that was compiled once; ROTATION says which is
// first. Only the calling thread's time counts, not that of V8's compiler threads. Prints
// {"seconds": [[round, ...] for each program], "cpu": of the process, "peak": bytes}.

import { Guest, Program } from './guest.mjs';
import { peak } from './peak.mjs';

const split = process.argv.indexOf('--');
const [rounds, rotation, ...programs] = process.argv.slice(2, split);
const args = process.argv.slice(split + 1);

const modules = programs.map((text) => new Program(text));
const seconds = modules.map(() => []);
const numbers = args.filter((text) => text.startsWith('=')).map((text) => Number(text.slice(1)));
// A function with arguments is over too soon to be timed.
const calls = numbers.length > 0 ? 20000 : 1;
const override = { 'kernel.kernel_fork': () => 1 };
let written;
for (let round = 0; round < Number(rounds); round++) {
  for (let index = 0; index < modules.length; index++) {
    const at = (index + Number(rotation)) % modules.length;
    const guest = new Guest(modules[at], args, override);
    const before = process.threadCpuUsage();
    for (let call = 0; call < calls; call++) guest.call(...numbers);
    const { user, system } = process.threadCpuUsage(before);
    seconds[at].push((user + system) / 1e6);
    written ??= guest.wasi.written;
    if (guest.wasi.written !== written) throw new Error(`${programs[at]} wrote ${guest.wasi.written} bytes, not ${written}`);
  }
}
const { user, system } = process.cpuUsage();
console.log(JSON.stringify({ seconds, cpu: (user + system) / 1e6, peak: peak() }));
