/* Lua includes <setjmp.h> even where it is told to do without; wasi-libc's refuses without exceptions. */
