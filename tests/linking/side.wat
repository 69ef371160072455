;; The side module: its functions are called by the main module, and call it back through the table.
(module
  (type $callback (func (param i32) (result i32)))
  (import "env" "memory" (memory 1))
  (import "env" "functions" (table 2 funcref))
  (global $own (export "own") (mut i64) (i64.const 7))
  (elem (i32.const 1) $once)
  (func $once (param $x i32) (result i32)
    (local $before i64)
    (local.set $before (global.get $own))
    (global.set $own (i64.add (global.get $own) (i64.const 1)))
    (i32.add
      (i32.wrap_i64 (local.get $before))
      (call_indirect (type $callback) (i32.mul (local.get $x) (i32.const 10)) (i32.const 0))))
  (func (export "side_twice") (param $x i32) (result i32)
    (i32.add (call $once (local.get $x)) (call $once (i32.add (local.get $x) (i32.const 1))))))
