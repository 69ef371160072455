;; What fork costs a recursive function that hardly ever forks: `walk` has four locals, and an engine whose
;; frames grow with the declared locals survives fewer of its calls when an instrumentation adds some.
;;
;; walk(depth) forks at depth 0, and returns a value that depends on every local of every activation.
(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (memory (export "memory") 2)
  (func $walk (export "walk") (param $depth i32) (result i64)
    (local $left i32)
    (local $right i32)
    (local $sum i64)
    (local.set $left (i32.mul (local.get $depth) (i32.const 3)))
    (local.set $right (i32.xor (local.get $depth) (i32.const 85)))
    (if (i32.eqz (local.get $depth))
      (then (local.set $sum (i64.extend_i32_s (call $fork))))
      (else (local.set $sum (call $walk (i32.sub (local.get $depth) (i32.const 1))))))
    (i64.add
      (i64.mul (local.get $sum) (i64.const 31))
      (i64.extend_i32_s
        (i32.add (i32.sub (local.get $left) (local.get $right)) (local.get $depth)))))
  (func (export "run") (param $depth i32) (result i64)
    (call $walk (local.get $depth))))
