//! What the fuzzer says of runs that do not end: a program may loop, a rewind may not.

use fork_fuzz::buffers::rewind_corrupted;
use fork_fuzz::check::{Case, Verdict};
use fork_fuzz::tool::{Ran, Tool};

/// A loop whose counter lies in the frame.
const COUNTS: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork))
  (memory (export "memory") 1)
  (func (export "run") (local $n i32)
    (local.set $n (i32.const 12))
    (loop $again
      (call $fork)
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))"#;

/// Looks like an instrumented module, but does not end when its root is called while it is REWINDING.
const HANGS: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork))
  (memory (export "memory") 1)
  (global $state (mut i32) (i32.const 0))
  (func (export "wpk_fork_state") (result i32) (global.get $state))
  (func (export "wpk_fork_unwind_begin") (param $buffer i32)
    (i32.store (local.get $buffer) (i32.add (local.get $buffer) (i32.const 16)))
    (global.set $state (i32.const 1)))
  (func (export "wpk_fork_unwind_end") (global.set $state (i32.const 0)))
  (func (export "wpk_fork_rewind_begin") (param i32) (global.set $state (i32.const 2)))
  (func (export "wpk_fork_rewind_end") (global.set $state (i32.const 0)))
  (func (export "run")
    (loop $again
      (br_if $again (i32.eq (global.get $state) (i32.const 2))))
    (loop $again
      (call $fork)
      (br_if $again (i32.eqz (global.get $state))))))"#;

/// What is found in the corrupted buffers of a program.
fn rewind(program: &str, passes: &[&str], seed: u64) -> Verdict {
    let tool = Tool::new(&Tool::find(None).unwrap()).unwrap();
    let args: Vec<String> = passes.iter().map(|&pass| pass.to_owned()).collect();
    let Ran::Done(wasm) = tool.run(program.as_bytes(), &args).unwrap() else { panic!("{args:?} fails") };
    let case = Case { roots: vec![("run".to_owned(), Vec::new())], seed, ..Case::default() };
    rewind_corrupted(&case, &wasm, None).unwrap()
}

#[test]
fn a_loop_whose_counter_was_changed_is_the_programs_own() {
    let mut stopped = 0;
    for seed in 0..10 {
        match rewind(COUNTS, &["--fork-instrument"], seed) {
            Verdict::Ends(ends) => stopped += ends.iter().filter(|end| *end == "the program was stopped").count(),
            verdict => panic!("{verdict:?}"),
        }
    }
    assert!(stopped > 0, "no counter was made so large that it matters");
}

#[test]
fn a_rewind_that_does_not_end_is_a_finding() {
    match rewind(HANGS, &[], 1) {
        Verdict::Finding(problem) => assert!(problem.starts_with("still Rewinding"), "{problem}"),
        verdict => panic!("{verdict:?}"),
    }
}
