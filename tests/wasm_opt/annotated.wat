;; Names, data, and source locations, to be found again in the output.
(module $annotated
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (memory $memory (export "memory") 1)
  (data $greeting (i32.const 8) "hello, child")
  (global $count (mut i32) (i32.const 7))
  (func $deep (param $x i32) (result i32)
    (local $kept i64)
    ;;@ deep.c:3:7
    (local.set $kept (i64.extend_i32_s (i32.mul (local.get $x) (i32.const 3))))
    ;;@ deep.c:4:9
    (drop (call $fork))
    ;;@ deep.c:5:11
    (i32.add (global.get $count) (i32.wrap_i64 (local.get $kept))))
  (func $run (export "run") (param $depth i32) (result i32)
    ;;@ run.c:10:3
    (i32.add (local.get $depth)
      ;;@ run.c:11:5
      (call $deep (local.get $depth))))
  (func $unrelated (export "unrelated") (param $first i32) (param $second i32) (result i32)
    ;;@ run.c:20:3
    (i32.sub (local.get $first) (local.get $second))))
