/* The interpreter wasm3 runs a small module that calls back into the host at every level of a recursion.
 *
 * usage: wasm3_fib [N]. Each opcode of wasm3 is a function that calls the next one, so stacks grow deep.
 */
#include "m3_api_defs.h"
#include "m3_env.h"
#include "wasm3.h"
#include <stdio.h>
#include <stdlib.h>

/* (module
 *   (import "env" "show" (func $show (param i32)))
 *   (func $fib (export "fib") (param i32) (result i32)
 *     (if (i32.eq (local.get 0) (i32.const 3)) (then (call $show (local.get 0))))
 *     (if (i32.lt_s (local.get 0) (i32.const 2)) (then (return (local.get 0))))
 *     (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
 *              (call $fib (i32.sub (local.get 0) (i32.const 2))))))
 */
static const uint8_t module_bytes[] = {
    0,    'a',  's',  'm',  1,    0,    0,    0,                                                      // header
    1,    10,   2,    0x60, 1,    0x7f, 0,    0x60, 1,    0x7f, 1,    0x7f,                           // types
    2,    12,   1,    3,    'e',  'n',  'v',  4,    's',  'h',  'o',  'w',  0,    0,                  // imports
    3,    2,    1,    1,                                                                              // functions
    7,    7,    1,    3,    'f',  'i',  'b',  0,    1,                                                // exports
    10,   42,   1,    40,   0,                                                                        // code
    0x20, 0,    0x41, 3,    0x46, 0x04, 0x40, 0x20, 0,    0x10, 0,    0x0b,                           // if == 3
    0x20, 0,    0x41, 2,    0x48, 0x04, 0x40, 0x20, 0,    0x0f, 0x0b,                                 // if < 2
    0x20, 0,    0x41, 1,    0x6b, 0x10, 1,    0x20, 0,    0x41, 2,    0x6b, 0x10, 1,    0x6a, 0x0b};  // the sum

static int shown;

static m3ApiRawFunction(show) {
  m3ApiGetArg(int32_t, value);
  printf("show %d: %d\n", ++shown, value);
  m3ApiSuccess();
}

static void check(M3Result result) {
  if (!result) return;
  printf("error: %s\n", result);
  exit(1);
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  const char *n = argc > 1 ? argv[1] : "12";
  IM3Environment environment = m3_NewEnvironment();
  IM3Runtime runtime = m3_NewRuntime(environment, 64 * 1024, NULL);
  IM3Module module;
  IM3Function fib;
  check(m3_ParseModule(environment, &module, module_bytes, sizeof module_bytes));
  check(m3_LoadModule(runtime, module));
  check(m3_LinkRawFunction(module, "env", "show", "v(i)", show));
  check(m3_FindFunction(&fib, runtime, "fib"));
  check(m3_CallWithArgs(fib, 1, &n));
  printf("fib(%s) = %d\n", n, *(int32_t *)runtime->stack);
  m3_FreeRuntime(runtime);
  m3_FreeEnvironment(environment);
  return 0;
}
