;; The main module: calls the side module through an import and through the shared table, and is called back.
(module
  (type $callback (func (param i32) (result i32)))
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "env" "side_twice" (func $side_twice (param i32) (result i32)))
  (memory (export "memory") 2)
  (table (export "functions") 4 funcref)
  (elem (i32.const 0) $middle)
  (global $counter (export "counter") (mut i32) (i32.const 100))
  ;; Called back by the side module: forks with frames of both below it.
  (func $middle (export "middle") (param $x i32) (result i32)
    (local $r i32)
    (global.set $counter (i32.add (global.get $counter) (i32.const 1)))
    (local.set $r (call $fork))
    (i32.add (i32.mul (local.get $r) (i32.const 1000)) (local.get $x)))
  ;; Through the import.
  (func (export "direct") (param $x i32) (result i32)
    (i32.add (global.get $counter) (call $side_twice (local.get $x))))
  ;; Through slot 1 of the table, which the side module fills.
  (func (export "indirect") (param $x i32) (result i32)
    (i32.add (local.get $x) (call_indirect (type $callback) (i32.add (local.get $x) (i32.const 1)) (i32.const 1)))))
