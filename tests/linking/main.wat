;; The main module: calls the side module through an import and through the shared table, and is called back. It keeps a
;; part of its locals on a stack in memory, whose pointer the side module imports.
(module
  (type $callback (func (param i32) (result i32)))
  ;; No function of this module has this type.
  (type $wide (func (param i64) (result i32)))
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "env" "side_twice" (func $side_twice (param i32) (result i32)))
  (memory (export "memory") 2)
  (table (export "functions") 4 funcref)
  (elem (i32.const 0) $middle)
  (global $counter (export "counter") (mut i32) (i32.const 100))
  (global $__stack_pointer (export "__stack_pointer") (mut i32) (i32.const 60000))
  ;; Called back by the side module: forks with frames of both below it.
  (func $middle (export "middle") (param $x i32) (result i32)
    (local $r i32)
    (global.set $__stack_pointer (i32.sub (global.get $__stack_pointer) (i32.const 16)))
    (i32.store (global.get $__stack_pointer) (local.get $x))
    (global.set $counter (i32.add (global.get $counter) (i32.const 1)))
    (local.set $r (call $fork))
    (local.set $x (i32.load (global.get $__stack_pointer)))
    (global.set $__stack_pointer (i32.add (global.get $__stack_pointer) (i32.const 16)))
    (i32.add (i32.mul (local.get $r) (i32.const 1000)) (local.get $x)))
  ;; Through the import.
  (func (export "direct") (param $x i32) (result i32)
    (i32.add (global.get $counter) (call $side_twice (local.get $x))))
  ;; Through slot 1 of the table, which the side module fills.
  (func (export "indirect") (param $x i32) (result i32)
    (i32.add
      (i32.add (local.get $x) (call_indirect (type $callback) (i32.add (local.get $x) (i32.const 1)) (i32.const 1)))
      (call_indirect (type $wide) (i64.extend_i32_u (local.get $x)) (i32.const 2)))))
