/* Lua runs a script of calls, closures, tables, sorting with a callback, and string matching.
 *
 * usage: lua_script [ROUNDS]. print writes each line at once. Compiled with LUA_PLAIN, Lua has no way to
 * raise an error (a module without exceptions), so the part with pcall and coroutines is left out.
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

/* Lua's library names it and wasi-libc lacks it. */
FILE *tmpfile(void) { return NULL; }

static const char script[] =
    "local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end\n"
    "local function show(depth, value)\n"
    "  if depth == 0 then print('deep', value) return value end\n"
    "  return show(depth - 1, value * 3 % 1009) + 1\n"
    "end\n"
    "local Account = {} Account.__index = Account\n"
    "Account.__add = function(a, b) print('adding', a.balance, b.balance)\n"
    "  return setmetatable({balance = a.balance + b.balance}, Account) end\n"
    "Account.__tostring = function(a) print('naming') return 'account ' .. a.balance end\n"
    "for round = 1, rounds do\n"
    "  print('round', round, fib(10 + round % 5), show(round % 40, round))\n"
    "  local list = {}\n"
    "  for i = 1, 30 do list[i] = (i * 7919 + round * 104729) % 1000 end\n"
    "  local calls = 0\n"
    "  table.sort(list, function(a, b) calls = calls + 1\n"
    "    if calls % 40 == 0 then print('comparing', a, b) end return a > b end)\n"
    "  print(table.concat(list, ' '))\n"
    "  print((('the quick brown fox'):gsub('%w+', function(word) print('word', word) return word:upper() end)))\n"
    "  local sum = setmetatable({balance = round}, Account) + setmetatable({balance = 0.5}, Account)\n"
    "  print(tostring(sum), string.format('%5.2f %x %q', sum.balance, round * 255, 'a\\nb'), 7 // 2, 2 ^ 0.5)\n"
    "end\n"
    "if not plain then\n"
    "  print(pcall(function() local t = nil; return t.x end))\n"
    "  print(pcall(error, {code = 1}) , select(2, pcall(error, 'raised', 0)))\n"
    "  local function numbers(n) return coroutine.wrap(function()\n"
    "    for i = 1, n do print('yielding', i) coroutine.yield(i) end end) end\n"
    "  for i in numbers(10) do print('got', i, pcall(function() print('inside') error('x' .. i, 0) end)) end\n"
    "  local closing = setmetatable({}, {__close = function(_, e) print('closed', e) end})\n"
    "  print(pcall(function() local c <close> = closing; error('leaving', 0) end))\n"
    "end\n"
    "collectgarbage() print('done')\n";

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  lua_State *L = luaL_newstate();
  if (!L) return 1;
  luaL_openlibs(L);
  lua_pushinteger(L, argc > 1 ? atoi(argv[1]) : 20);
  lua_setglobal(L, "rounds");
#ifdef LUA_PLAIN
  lua_pushboolean(L, 1);
  lua_setglobal(L, "plain");
#endif
  int failed = luaL_dostring(L, script);
  if (failed) printf("error: %s\n", lua_tostring(L, -1));
  lua_close(L);
  return failed;
}
