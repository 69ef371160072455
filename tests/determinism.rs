//! The same input gives the same bytes, whatever the threads do.

mod support;

use std::fmt::Write;

use support::{ALL, Scratch, in_repository, read_in_repository};

/// What one run writes: the module, its source map, and what `verbose` says.
type Outcome = (Vec<u8>, Vec<u8>, Vec<String>);

fn outcome(scratch: &Scratch, input: &str, passes: &[&str], cores: Option<&str>) -> Outcome {
    let files = [input, "-g", "-o", "out.wasm", "-osm", "out.map", "--pass-arg=fork-instrument-verbose"];
    let mut command = scratch.command();
    command.args(ALL).args(files).args(passes);
    if let Some(cores) = cores {
        command.env("BINARYEN_CORES", cores);
    }
    let run = support::Run::from(command.output().expect("wasm-opt starts")).succeeded();
    let lines = run.fork_path().into_iter().chain(run.operands()).map(str::to_string).collect();
    (scratch.read("out.wasm"), scratch.read("out.map"), lines)
}

#[track_caller]
fn assert_deterministic(wat: impl AsRef<[u8]>, passes: &[&str], runs: usize) {
    let scratch = Scratch::with("in.wat", wat);
    let first = outcome(&scratch, "in.wat", passes, None);
    assert!(!first.2.is_empty(), "nothing is on the fork path");
    for cores in ["1", "2", "8"] {
        assert!(outcome(&scratch, "in.wat", passes, Some(cores)) == first, "{cores} cores write something else");
    }
    for run in 1..runs {
        assert!(outcome(&scratch, "in.wat", passes, None) == first, "run {run} writes something else");
    }
}

#[test]
fn fixtures_become_the_same_bytes_in_twenty_runs() {
    for path in [
        "examples/benchmark_walk.wat",
        "tests/fixtures/shapes/loop_interpreter_br_table.wat",
        "tests/fixtures/shapes/globals_of_every_numeric_type.wat",
        "tests/fixtures/shapes/recursion_mutual_through_table.wat",
        "tests/fixtures/features/gc_landing_as_field_of_new_struct.wat",
        "tests/fixtures/features/simd_locals_results_and_memory.wat",
    ] {
        assert_deterministic(read_in_repository(path), &["--fork-instrument"], 20);
    }
}

#[test]
fn all_shapes_become_the_same_bytes_on_one_core_and_on_many() {
    let folder = std::fs::read_dir(in_repository("tests/fixtures/shapes")).expect("the folder is there");
    let scratch = Scratch::new();
    let mut compared = 0;
    for entry in folder {
        let wat = std::fs::read_to_string(entry.expect("an entry").path()).expect("fixtures are text");
        if wat.contains(";; refused:") || wat.contains(";; pass-arg:") || wat.contains(";; features:") {
            continue;
        }
        scratch.write("in.wat", wat);
        let one = outcome(&scratch, "in.wat", &["--fork-instrument"], Some("1"));
        assert!(outcome(&scratch, "in.wat", &["--fork-instrument"], Some("8")) == one);
        compared += 1;
    }
    assert!(compared > 100, "only {compared} fixtures were compared");
}

/// Functions of many types and shapes that call each other, directly and through two tables.
fn generated_module(functions: usize) -> String {
    let types = ["i32", "i64", "f32", "f64"];
    let mut wat = String::from(
        r#"(module (import "kernel" "kernel_fork" (func $fork (result i32)))
        (memory (export "memory") 1)"#,
    );
    for (i, t) in types.iter().enumerate() {
        write!(wat, "(type ${t} (func (param {t}) (result {t}))) (global $g{i} (mut {t}) ({t}.const {i}))").unwrap();
    }
    write!(wat, "(table $a {functions} funcref) (table $b {functions} funcref)").unwrap();
    let listed = |remainder: usize| -> String {
        (0..functions).filter(|i| i % 5 == remainder).map(|i| format!(" $f{i}")).collect()
    };
    write!(wat, "(elem (table $a) (i32.const 0) func{})", listed(0)).unwrap();
    write!(wat, "(elem (table $b) (i32.const 0) func{})", listed(3)).unwrap();
    for i in 0..functions {
        let t = types[i % 4];
        let callee = (i * 7 + 4) % functions;
        let callee = callee - (callee % 4) + i % 4;
        let callee = if callee < functions { callee } else { i % 4 };
        let table = if i % 2 == 0 { "$a" } else { "$b" };
        write!(wat, "(func $f{i} (type ${t}) (param $p {t}) (result {t}) (local $x {t}) (local $n i32)").unwrap();
        match i % 6 {
            0 => write!(wat, "(local.set $n (call $fork)) (local.get $p)"),
            1 => write!(wat, "({t}.add (call $f{callee} (local.get $p)) (local.get $p))"),
            2 => write!(
                wat,
                "(loop $l (local.set $x ({t}.add (local.get $x) (call $f{callee} (local.get $x))))
                 (br_if $l (i32.lt_s (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {i}))))
                 (local.get $x)"
            ),
            3 => write!(wat, "(call_indirect {table} (type ${t}) (local.get $p) (i32.const {callee}))"),
            4 => write!(
                wat,
                "(if (result {t}) (local.get $n) (then (call $f{callee} (local.get $p))) (else (local.get $p)))"
            ),
            _ => write!(wat, "({t}.mul (local.get $p) ({t}.const {i}))"),
        }
        .unwrap();
        wat += ")\n";
    }
    for i in 0..8 {
        write!(wat, "(export \"e{i}\" (func $f{i}))").unwrap();
    }
    wat + ")"
}

#[test]
fn a_module_of_thousands_of_functions_becomes_the_same_bytes_in_twenty_runs() {
    assert_deterministic(generated_module(3000), &["--fork-instrument"], 20);
}

#[test]
fn a_pipeline_around_the_pass_gives_the_same_bytes() {
    assert_deterministic(generated_module(1000), &["-O2", "--fork-instrument", "-O2"], 5);
}

#[test]
fn the_order_of_options_does_not_matter() {
    let scratch = Scratch::with("in.wat", generated_module(100));
    let lists = ["--pass-arg=fork-instrument-removelist@f1,f2", "--pass-arg=fork-instrument-addlist@f11,f17"];
    let one = outcome(&scratch, "in.wat", &["--fork-instrument", lists[0], lists[1]], None);
    let other = outcome(&scratch, "in.wat", &[lists[1], "--fork-instrument", lists[0]], None);
    assert!(one == other);
}
