;; A WASI command instrumented by hand: one landing in _start, with a frame of 64 bytes that nothing is in.
;; It opens a pipe and forks. The child writes to the pipe and exits with 7; the parent copies the pipe to standard
;; output until all writers are gone, then waits for the child and exits with 3 if its status is right.
;; PTR is i32 or i64, P its size, CHILD and DONE are what the two do in the end.
(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "kernel" "pipe" (func $pipe (param PTR) (result i32)))
  (import "kernel" "waitpid" (func $waitpid (param i32 PTR i32) (result i32)))
  (import "kernel" "getpid" (func $getpid (result i32)))
  (import "kernel" "getppid" (func $getppid (result i32)))
  (import "kernel" "dup2" (func $dup2 (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 PTR PTR PTR) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 PTR PTR PTR) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") PTR 1)
  (data (PTR.const 512) "hello from the child\n")
  (data (PTR.const 544) "cannot fork\n")
  (global $state (mut i32) (i32.const 0))
  (global $buffer (mut PTR) (PTR.const 0))
  ;; 64: the pipe; 72: a status; 80: an iovec; 96: a count; 128: what is read
  (func $fits (param $needed PTR) (result i32)
    (PTR.le_u (PTR.add (global.get $buffer) (local.get $needed)) (PTR.load offset=P (global.get $buffer))))
  (func (export "wpk_fork_state") (result i32) (global.get $state))
  (func (export "wpk_fork_unwind_begin") (param $buffer PTR)
    (global.set $buffer (local.get $buffer))
    (if (call $fits (PTR.const 24)) (then (global.set $state (i32.const 1)))))
  (func (export "wpk_fork_unwind_end") (global.set $state (i32.const 0)))
  (func (export "wpk_fork_rewind_begin") (param PTR) (global.set $state (i32.const 2)))
  (func (export "wpk_fork_rewind_end")
    (if (i32.lt_u (global.get $state) (i32.const 2)) (then (unreachable)))
    (global.set $state (i32.const 0)))
  (func $put (param $fd i32) (param $from PTR) (param $length PTR)
    (PTR.store (PTR.const 80) (local.get $from))
    (PTR.store offset=P (PTR.const 80) (local.get $length))
    (if (call $write (local.get $fd) (PTR.const 80) (PTR.const 1) (PTR.const 96)) (then (unreachable))))
  (func $child
    (if (i32.ne (call $dup2 (i32.load (PTR.const 68)) (i32.const 9)) (i32.const 9)) (then (unreachable)))
    (call $put (i32.const 9) (PTR.const 512) (PTR.const 21))
    CHILD
    (call $exit (i32.const 7)))
  (func $copy
    (loop $more
      (PTR.store (PTR.const 80) (PTR.const 128))
      (PTR.store offset=P (PTR.const 80) (PTR.const 5))
      (if (call $read (i32.load (PTR.const 64)) (PTR.const 80) (PTR.const 1) (PTR.const 96)) (then (unreachable)))
      (if (i32.wrap_i64 (i64.load32_u (PTR.const 96))) (then
        (call $put (i32.const 1) (PTR.const 128) (PTR.load (PTR.const 96)))
        (br $more)))))
  (func (export "_start")
    (local $pid i32)
    (if (i32.eqz (global.get $state)) (then
      (if (call $pipe (PTR.const 64)) (then (unreachable)))))
    (loop $again
      (local.set $pid (call $fork))
      (if (i32.eq (global.get $state) (i32.const 1)) (then
        (if (i32.eqz (call $fits (PTR.const 80))) (then
          (global.set $state (i32.const 3))
          (br $again)))
        (PTR.store (global.get $buffer) (PTR.add (global.get $buffer) (PTR.const 80)))
        (return))))
    (if (i32.lt_s (local.get $pid) (i32.const 0)) (then
      (call $put (i32.const 1) (PTR.const 544) (PTR.const 12))
      (call $exit (i32.sub (i32.const 0) (local.get $pid)))))
    (if (i32.eqz (local.get $pid)) (then (call $child)))
    (if (call $close (i32.load (PTR.const 68))) (then (unreachable)))
    (call $copy)
    (if (i32.ne (call $waitpid (i32.const -1) (PTR.const 72) (i32.const 0)) (local.get $pid)) (then (unreachable)))
    (if (i32.ne (call $waitpid (i32.const -1) (PTR.const 0) (i32.const 1)) (i32.const -12)) (then (unreachable)))
    (call $exit DONE)))
