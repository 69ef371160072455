// Compiles files and prints the peak memory of the whole process: {"peak": bytes}.
// Start it with --no-wasm-lazy-compilation, and compare it with itself without files.
//
// usage: node --no-wasm-lazy-compilation [--liftoff-only | --no-liftoff] compile.mjs [FILE...]

import { readFileSync } from 'node:fs';
import { peak } from './peak.mjs';

const modules = process.argv.slice(2).map((file) => new WebAssembly.Module(readFileSync(file)));
console.log(JSON.stringify({ peak: peak(), modules: modules.length }));
