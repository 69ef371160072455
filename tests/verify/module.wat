;; What the mutations are applied to: one function for each thing that can go wrong.
(module
  (type $unary (func (param i32) (result i32)))
  (type $nullary (func (result i32)))
  (type $box (struct (field i32)))
  (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
  (import "env" "note" (func $note (param i32)))
  (memory (export "memory") 1)
  (global $count (mut i32) (i32.const 0))
  (global $nothing (ref null $box) (ref.null $box))
  (table $table 2 2 funcref)
  (elem (i32.const 0) $leaf $other)

  ;; One site; an operand that is computed again, and an argument of the entry.
  (func $leaf (export "leaf") (param $slot i32) (result i32)
    (i32.store (i32.shl (local.get $slot) (i32.const 2))
      (call $fork (i32.add (local.get $slot) (i32.const 7))))
    (call $note (local.get $slot))
    (local.get $slot))

  ;; What $leaf can be mistaken for.
  (func $other (param $slot i32) (result i32)
    (drop (call $fork (local.get $slot)))
    (i32.add (local.get $slot) (i32.const 1)))

  ;; Several sites with different frames, and code before each that must not run again.
  (func $sites (param $a i32) (param $b i64) (param $c f64) (param $d i32) (result i32)
    (local $x i32)
    (call $note (local.get $a))
    (local.set $x (call $leaf (local.get $a)))
    (global.set $count (i32.add (global.get $count) (local.get $x)))
    (drop (call $other (i32.wrap_i64 (local.get $b))))
    (call $note (i32.trunc_f64_s (local.get $c)))
    (drop (call_indirect $table (type $unary) (local.get $d) (local.get $x)))
    (call $note (local.get $a))
    (i32.add (local.get $a) (local.get $d)))

  ;; A landing that is also reached normally.
  (func $loop (param $n i32)
    (loop $top
      (call $note (local.get $n))
      (drop (call $leaf (local.get $n)))
      (br_if $top (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))

  ;; Two calls that go on alike.
  (func $meet (export "meet") (param $a i32) (result i32)
    (local $x i32)
    (if (local.get $a)
      (then (local.set $x (call $leaf (i32.const 1))))
      (else (local.set $x (call $other (i32.const 2)))))
    (call $note (local.get $a))
    (local.get $x))

  ;; Two calls that go on alike, in a loop.
  (func $meet_again (param $n i32)
    (local $x i32)
    (loop $top
      (if (local.get $n)
        (then (local.set $x (call $leaf (i32.const 1))))
        (else (local.set $x (call $other (i32.const 2)))))
      (call $note (local.get $x))
      (br_if $top (local.tee $n (i32.sub (local.get $n) (i32.const 1))))))

  ;; Parts with so many sites that they are chosen by comparisons: what is in a loop is not chosen in front of it.
  (func $chain (param $n i32)
    (loop $first
      (br_if $first (local.get $n))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n))))
    (loop $second
      (br_if $second (local.get $n))
      (drop (call $other (local.get $n)))
      (drop (call $other (local.get $n)))
      (drop (call $other (local.get $n)))
      (drop (call $other (local.get $n)))
      (drop (call $other (local.get $n)))
      (drop (call $other (local.get $n)))
      (drop (call $other (local.get $n)))
      (drop (call $other (local.get $n)))
      (drop (call $other (local.get $n))))
    (loop $third
      (br_if $third (local.get $n))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))
      (drop (call $leaf (local.get $n)))))

  ;; Cannot fork.
  (func $apart (export "apart") (param $n i32)
    (call $note (local.get $n))
    (call $note (i32.load offset=8 (local.get $n)))
    (call $note (i32.div_u (i32.const 7) (local.get $n)))
    (call $note (call_indirect $table (type $nullary) (local.get $n)))
    (call $note (memory.grow (i32.const 0)))
    (call $note (struct.get $box 0 (global.get $nothing)))
    (global.set $count (local.get $n)))

  ;; More locals that only some frames hold than one number has masks for.
  (func $many (param $n i32) (result i32)
    (local $a i32) (local $b i32) (local $c i32) (local $d i32) (local $e i32) (local $f i32) (local $g i32) (local $h i32) (local $i i32)
    (local.set $a (call $leaf (local.get $n)))
    (local.set $b (call $leaf (local.get $n)))
    (local.set $c (call $leaf (local.get $n)))
    (local.set $d (call $leaf (local.get $n)))
    (local.set $e (call $leaf (local.get $n)))
    (local.set $f (call $leaf (local.get $n)))
    (local.set $g (call $leaf (local.get $n)))
    (local.set $h (call $leaf (local.get $n)))
    (local.set $i (call $leaf (local.get $n)))
    (i32.add (i32.add (i32.add (i32.add (i32.add (i32.add (i32.add (i32.add (local.get $a) (local.get $b)) (local.get $c)) (local.get $d)) (local.get $e)) (local.get $f)) (local.get $g)) (local.get $h)) (local.get $i)))

  ;; A landing that only an exception leads to.
  (func $guarded (param $n i32)
    (block $caught
      (try_table (catch_all $caught)
        (call $note (local.get $n)))
      (return))
    (drop (call $leaf (local.get $n))))

  ;; A landing whose exceptions are caught; what the handler reads is in its frame.
  (func $caught (param $n i32) (param $m i32)
    (block $handler
      (try_table (catch_all $handler)
        (drop (call $leaf (local.get $m))))
      (call $apart (local.get $m))
      (return))
    (call $note (local.get $n)))

  ;; An operand that cannot be computed again.
  (func $nested (param $at i32)
    (i32.store (i32.load (local.get $at)) (call $leaf (local.get $at)))
    (call $note (local.get $at)))

  ;; A reference that no frame holds.
  (func $opened (param $n i32) (param $box (ref null $box))
    (call $note (struct.get $box 0 (ref.as_non_null (local.get $box))))
    (drop (call $leaf (local.get $n))))

  ;; A reference that is made again of a number.
  (func $numbered (param $at i32) (result i32)
    (local $held i31ref)
    (local.set $held (ref.i31 (i32.load8_u (local.get $at))))
    (drop (call $leaf (local.get $at)))
    (i31.get_s (local.get $held)))

  ;; Returns a reference.
  (func $boxed (param $n i32) (result (ref null $box))
    (call $note (local.get $n))
    (drop (call $leaf (local.get $n)))
    (i32.store (i32.const 0) (local.get $n))
    (struct.new $box (local.get $n)))

  (func $run (export "run") (result i32)
    (call $loop (i32.const 2))
    (call $apart (i32.const 3))
    (i32.mul (i32.const 2) (call $sites (i32.const 1) (i64.const 0) (f64.const 2) (i32.const 1))))
)
