import { readFileSync } from 'node:fs';

// The most memory that this process had at once, in bytes. (The kernel's ru_maxrss would count the parent's memory too.)
export function peak() {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'latin1'))[1]) * 1024;
}
