//! The verifier catches outputs that are not what was planned: each test changes the output of the pass in one way,
//! between the rewriting and the verification, and expects to read what is wrong, and in which function.
//!
//! Binaryen's tool ends the process that runs it, so each change is made in a process of its own: this executable,
//! asked for the test [`in_a_process_of_its_own`].

mod code;
mod mutations;

use std::path::Path;
use std::process::{Command, Output};

use fork_instrument::verify::{TAMPER, TAMPER_LOCALS};
use fork_instrument::{pass, wasm_opt};

/// Names the mutation, for the child process.
const MUTATION: &str = "VERIFY_MUTATION";
/// What the names of mutations begin with that are made to frames in line.
const IN_LINE: &str = "in_line_";
/// All values of a function are put into one local.
const ONE_LOCAL: &str = "one_local";
/// Stands for no mutation.
const NONE: &str = "none";

/// Runs the pass on `module.wat` and changes its output.
fn run(mutation: &str) -> Output {
    let child = ["--exact", "in_a_process_of_its_own", "--ignored", "--nocapture"];
    let this = std::env::current_exe().expect("the test knows its executable");
    let mut command = Command::new(this);
    command.args(child).env(MUTATION, mutation).env("BINARYEN_CORES", "2").env("RUST_MIN_STACK", "16777216");
    command.output().expect("the test can run itself")
}

/// Fails unless the verifier says so of the mutated output.
fn expect_caught(mutation: &str, function: &str, problem: &str) {
    let output = run(mutation);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [&format!("(function {function}"), problem, "please report it"] {
        assert!(said.contains(part), "the message lacks {part:?}: {said}");
    }
}

#[test]
fn the_output_passes_unchanged() {
    for mutation in [NONE, IN_LINE] {
        let output = run(mutation);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn values_that_are_live_at_once_are_put_into_one_local() {
    expect_caught(ONE_LOCAL, "sites", "with its values in other locals, a read finds something else, at local.get");
}

#[test]
#[ignore = "the other tests run it"]
fn in_a_process_of_its_own() {
    let mutation = std::env::var(MUTATION).expect("the test that runs this names a mutation");
    if mutation == ONE_LOCAL {
        TAMPER_LOCALS.set(|locals| locals.fill(locals[0])).expect("nothing has set it");
    } else if ![NONE, IN_LINE].contains(&mutation.as_str()) {
        TAMPER.set(mutations::mutation(&mutation)).expect("nothing has set it");
    }
    pass::register();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify");
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("verify-{mutation}.wasm"));
    let mut arguments = vec!["wasm-opt".into(), folder.join("module.wat").into_os_string()];
    arguments.extend(["-all", "--fork-instrument", "--pass-arg=fork-instrument-verify", "-o"].map(Into::into));
    arguments.push(output.into_os_string());
    if !mutation.starts_with(IN_LINE) {
        // Helpers store frames.
        arguments.push("--shrink-level=1".into());
    }
    std::process::exit(wasm_opt(arguments));
}
