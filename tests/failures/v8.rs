//! What the other tests here show of wasmtime, shown of V8: `tests/node/failures.mjs` is the host.

use std::process::Command;

use crate::full_buffer::{LOOP, RECURSION_BY_TABLE};
use crate::guest::instrument;
use crate::support::{Run, Scratch, in_repository, node};
use crate::traps::RECURSION;

#[track_caller]
fn run(wat: &str, arguments: &[&str]) {
    let scratch = Scratch::with("module.wasm", instrument(wat, &[]));
    let mut command = Command::new(node());
    command.arg("--stack-size=400").arg(in_repository("tests/node/failures.mjs"));
    command.arg(arguments[0]).arg(scratch.path("module.wasm")).args(&arguments[1..]);
    let run = Run::from(command.output().expect("node starts")).succeeded();
    assert!(run.text().contains("ok"), "{}", run.text());
}

#[test]
fn a_million_failing_forks_in_a_loop_keep_the_stack_of_v8_flat() {
    for size in ["12", "34", "44"] {
        run(&LOOP.replace("PAGES", "1"), &["failing-forks", size, "1000000"]);
    }
    for size in ["34", "50", "70"] {
        run(RECURSION_BY_TABLE, &["failing-forks", size, "1000000"]);
    }
}

#[test]
fn a_trap_or_an_exception_after_a_fork_leaves_the_normal_state_on_v8() {
    run(RECURSION, &["ends"]);
}

#[test]
fn a_stack_overflow_in_a_rewind_is_reported_on_v8_and_the_buffer_serves_again() {
    run(RECURSION, &["overflow"]);
}
