;; Three calls of the entry import in a loop, each with an argument that depends on the ones before.
;; PTR is i32 or i64; instrumented by hand in count_forked.wat.
(module
  (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
  (import "log" "i32" (func $log (param i32)))
  (memory (export "memory") PTR 1)
  (global $calls (export "calls") (mut i32) (i32.const 0))
  (func (export "run") (result i32)
    (local $x i32)
    (local $i i32)
    (local.set $x (i32.const 5))
    (loop $again
      (local.set $x (i32.add (i32.mul (local.get $x) (i32.const 3)) (call $fork (local.get $x))))
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (call $log (local.get $x))
      (i32.store (PTR.const 64) (local.get $x))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $i) (i32.const 3))))
    (local.get $x)))
