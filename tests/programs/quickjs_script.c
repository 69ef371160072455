/* QuickJS runs a script of closures, generators, regular expressions, JSON and exceptions.
 *
 * usage: quickjs_script [ROUNDS]. print is a C function that writes its line at once.
 */
#include "quickjs.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char script[] =
    "const fib = n => { if (n === 5) print('fib'); return n < 2 ? n : fib(n - 1) + fib(n - 2); };\n"
    "function* walk(n) { for (let i = 0; i < n; i++) { print('yield', i); yield i * i; } }\n"
    "class Shape { constructor(n) { this.n = n; } get area() { print('area', this.n); return this.n ** 2; }\n"
    "  toString() { print('toString'); return `Shape(${this.n})`; } [Symbol.toPrimitive](hint) {\n"
    "  print('hint', hint); return hint === 'string' ? this.toString() : this.n; } }\n"
    "for (let round = 1; round <= rounds; round++) {\n"
    "  print('round', round, fib(8 + round % 3));\n"
    "  print([...walk(round % 5 + 2)].map(x => { if (x > 3) print('map', x); return x + 0.5; }).join());\n"
    "  const list = Array.from({length: 25}, (_, i) => (i * 7919 + round * 104729) % 1000);\n"
    "  let calls = 0;\n"
    "  list.sort((a, b) => { if (++calls % 30 === 0) print('comparing', a, b); return a - b; });\n"
    "  print(list);\n"
    "  print('the quick brown fox'.replace(/(\\w)(\\w*)/g, (all, a, b) => { print(all); return a.toUpperCase() + b; }));\n"
    "  const shape = new Shape(round);\n"
    "  print(`${shape}`, shape + 1, shape.area, JSON.stringify({shape, list: list.slice(0, 3)}, (k, v) => {\n"
    "    if (k === 'n') print('key', k); return v; }));\n"
    "  try { try { null.x; } finally { print('finally'); } } catch (e) { print(e.name, e.message); }\n"
    "  print(BigInt(round) ** 40n, (round / 7).toFixed(6), Math.hypot(3, round), [3, [2, [1]]].flat(2));\n"
    "  new Promise(resolve => { print('executor'); resolve(round); }).then(v => print('then', v));\n"
    "}\n"
    "print(new Map([[1, 'a'], [2, 'b']]).get(2), new Set('hello').size, Object.entries({x: 1, y: 2}));\n";

static JSValue print(JSContext *context, JSValueConst self, int count, JSValueConst *arguments) {
  (void)self;
  for (int i = 0; i < count; i++) {
    const char *text = JS_ToCString(context, arguments[i]);
    if (!text) return JS_EXCEPTION;
    printf(i ? " %s" : "%s", text);
    JS_FreeCString(context, text);
  }
  printf("\n");
  return JS_UNDEFINED;
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  JSRuntime *runtime = JS_NewRuntime();
  JSContext *context = JS_NewContext(runtime), *of_job;
  JSValue global = JS_GetGlobalObject(context);
  JS_SetPropertyStr(context, global, "print", JS_NewCFunction(context, print, "print", 1));
  JS_SetPropertyStr(context, global, "rounds", JS_NewInt32(context, argc > 1 ? atoi(argv[1]) : 12));

  JSValue result = JS_Eval(context, script, strlen(script), "script.js", JS_EVAL_TYPE_GLOBAL);
  int failed = JS_IsException(result);
  if (failed) {
    JSValue error = JS_GetException(context);
    const char *text = JS_ToCString(context, error);
    printf("error: %s\n", text);
    JS_FreeCString(context, text);
    JS_FreeValue(context, error);
  }
  while (JS_ExecutePendingJob(runtime, &of_job) > 0) continue;
  JS_FreeValue(context, result);
  JS_FreeValue(context, global);
  JS_FreeContext(context);
  JS_FreeRuntime(runtime);
  printf("done\n");
  return failed;
}
