//! `fork-run` gives a child what `docs/abi.md` says that hosts copy: all memories, and tables with functions, numbers and
//! objects. What the child then changes is its own.

mod support;

use fork_host::process::Status;
use fork_host::replay::{Replay, Schedule};
use fork_host::run::{self, Options};
use support::{ALL, Scratch};

/// Both processes look at the same state after the fork; the child changes it then. The parent exits with 3 if both saw it
/// right.
const PROGRAM: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "kernel" "waitpid" (func $waitpid (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (type $get (func (result i32)))
  (type $node (struct (field $value (mut i32)) (field $next (mut (ref null $node)))))
  (memory $memory (export "memory") 1)
  (memory $other 1)
  (table $functions 2 funcref)
  (table $numbers 1 anyref)
  (table $rings 1 (ref null $node))
  (elem declare func $five $six)
  (func $five (result i32) (i32.const 5))
  (func $six (result i32) (i32.const 6))
  ;; Writes one of two states; $node and the next one hold each other.
  (func $write (param $node (ref $node)) (param $second i32)
    (table.set $functions (i32.const 1) (if (result funcref) (local.get $second)
      (then (ref.func $six))
      (else (ref.func $five))))
    (table.set $numbers (i32.const 0) (ref.i31 (local.get $second)))
    (i32.store $other (i32.const 40) (i32.add (local.get $second) (i32.const 7)))
    (struct.set $node $value (local.get $node) (i32.add (local.get $second) (i32.const 11)))
    (struct.set $node $next (local.get $node) (struct.new $node (local.get $second) (local.get $node)))
    (table.set $rings (i32.const 0) (struct.get $node $next (local.get $node))))
  (func $holds (param $node (ref $node)) (result i32)
    (i32.and
      (i32.and
        (i32.eq (i32.const 5) (call_indirect $functions (type $get) (i32.const 1)))
        (i32.eq (i32.const 7) (i32.load $other (i32.const 40))))
      (i32.and
        (i32.and
          (i32.eqz (i31.get_u (ref.cast (ref i31) (table.get $numbers (i32.const 0)))))
          (i32.eq (i32.const 11) (struct.get $node $value (local.get $node))))
        (i32.and
          (ref.eq (table.get $rings (i32.const 0)) (struct.get $node $next (local.get $node)))
          (ref.eq (local.get $node) (struct.get $node $next (table.get $rings (i32.const 0))))))))
  (func $run (param $node (ref $node))
    (local $child i32)
    (call $write (local.get $node) (i32.const 0))
    (local.set $child (call $fork))
    (if (i32.eqz (local.get $child))
      (then
        (local.set $child (call $holds (local.get $node)))
        (call $write (local.get $node) (i32.const 1))
        (call $exit (local.get $child))))
    (drop (call $waitpid (local.get $child) (i32.const 16) (i32.const 0)))
    (if (i32.ne (i32.load $memory (i32.const 16)) (i32.const 0x100)) (then (call $exit (i32.const 99))))
    (if (i32.eqz (call $holds (local.get $node))) (then (call $exit (i32.const 98))))
    (call $exit (i32.const 3)))
  (func (export "_start")
    (call $run (struct.new_default $node))))"#;

#[track_caller]
fn child_has_the_state(options: &[&str]) {
    let scratch = Scratch::with("in.wat", PROGRAM);
    let options: Vec<String> =
        ["refs@tables"].iter().chain(options).map(|option| format!("--pass-arg=fork-instrument-{option}")).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    scratch.run(&[&ALL[..], &["in.wat", "--fork-instrument", "-o", "out.wasm"], &options].concat()).succeeded();
    let resume = scratch.path("resume.wasm");
    let options = Options { resume: resume.exists().then_some(resume), optimize: false, ..Options::default() };
    let status = run::run(&scratch.read("out.wasm"), options).expect("the program runs");
    assert_eq!(status, Status::Exited(3));
}

#[test]
fn a_child_has_what_memories_and_tables_hold() {
    child_has_the_state(&["memory@memory"]);
}

#[test]
fn a_child_with_separate_resume_functions_has_what_memories_and_tables_hold() {
    child_has_the_state(&["memory@memory", "resume@resume.wasm"]);
}

#[test]
fn frames_can_be_in_a_memory_of_their_own() {
    child_has_the_state(&["in-secondary-memory"]);
}

#[test]
fn arrays_that_engines_string_functions_only_read_do_not_change() {
    let wat = |import: &str| {
        format!(
            r#"(module
            (type $chars (array (mut i16)))
            (import "kernel" "kernel_fork" (func $fork (result i32)))
            (import "wasm:js-string" {import})
            (memory (export "memory") 1)
            (global $hello (ref $chars) (array.new_fixed $chars 2 (i32.const 72) (i32.const 105)))
            (func (export "run") (result i32)
                (drop (call $string (global.get $hello) (i32.const 0) (i32.const 2)))
                (call $fork)))"#
        )
    };
    let parameters = "(param (ref null $chars) i32 i32)";
    for (name, is_refused) in [("fromCharCodeArray", false), ("intoCharCodeArray", true)] {
        let scratch = Scratch::with("in.wat", wat(&format!(r#""{name}" (func $string {parameters} (result i32))"#)));
        let run = scratch.run(&[&ALL[..], &["in.wat", "--fork-instrument", "-o", "out.wasm"]].concat());
        assert_eq!(run.status.success(), !is_refused, "{name}: {}", run.stderr);
    }
}

/// An object in a local, whose field changes.
const KEEPS: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (type $cell (struct (field (mut i32))))
  (memory (export "memory") 1)
  (func (export "run") (result i32) (local $cell (ref null $cell))
    (local.set $cell (struct.new $cell (i32.const 7)))
    (drop (call $fork))
    (struct.set $cell 0 (local.get $cell) (i32.add (struct.get $cell 0 (local.get $cell)) (i32.const 1)))
    (struct.get $cell 0 (local.get $cell))))"#;

#[test]
fn fork_replay_gives_a_child_the_objects_that_tables_keep_without_being_told() {
    let scratch = Scratch::with("in.wat", KEEPS);
    let keep = "--pass-arg=fork-instrument-refs@tables";
    scratch.run(&[&ALL[..], &["in.wat", "--fork-instrument", keep, "-o", "out.wasm"]].concat()).succeeded();
    let original = Replay::new(KEEPS.as_bytes()).run().expect("it runs");
    for schedule in [Schedule::FollowChild, Schedule::FollowParent] {
        let wasm = scratch.read("out.wasm");
        let forked = Replay::instrumented(&wasm, schedule).run().expect("it runs");
        assert_eq!(original.differences(&forked), Vec::<String>::new());
        assert_eq!(forked.forks, 1);
    }
}
