//! The module of resume functions links with the first module that it was made with, and with no other.

mod support;

use fork_host::replay::{End, Outcome, Replay, Schedule};
use support::{ALL, Scratch};
use wasmtime::{Engine, Module};

/// Programs that differ in what they do after a fork.
const PROGRAMS: [&str; 2] = ["i32.add", "i32.mul"];

/// The first module and the resume functions of a program.
struct Pair {
    first: Vec<u8>,
    resume: Vec<u8>,
}

fn program(operator: &str) -> String {
    format!(
        r#"(module
            (import "kernel" "kernel_fork" (func $fork (result i32)))
            (memory (export "memory") 1)
            (func $f (param $x i32) (result i32)
                ({operator} (i32.mul (local.get $x) (i32.const 3)) (call $fork)))
            (func (export "run") (result i32) ({operator} (call $f (i32.const 5)) (call $f (i32.const 7)))))"#
    )
}

fn pair(wat: &str, options: &[&str]) -> Pair {
    let scratch = Scratch::with("in.wat", wat);
    let files = ["in.wat", "-o", "first.wasm", "--fork-instrument", "--pass-arg=fork-instrument-resume@resume.wasm"];
    scratch.run(&[&ALL[..], &files, options].concat()).succeeded();
    Pair { first: scratch.read("first.wasm"), resume: scratch.read("resume.wasm") }
}

/// A run in which each child is followed.
fn run(first: &[u8], resume: &[u8]) -> Result<Outcome, String> {
    let schedule = Schedule::FollowChild;
    let replay = Replay { resume: Some(resume), instrumented: true, strict: true, schedule, ..Replay::new(first) };
    replay.run().map_err(|error| format!("{error:?}"))
}

#[track_caller]
fn assert_links(pair: &Pair, original: &str) {
    let expected = Replay::new(original.as_bytes()).run().expect("the program runs");
    let outcome = run(&pair.first, &pair.resume).expect("the two link");
    assert_eq!(expected.differences(&outcome), Vec::<String>::new());
    assert_eq!(outcome.forks, 2);
}

#[track_caller]
fn assert_does_not_link(first: &Pair, other: &Pair) {
    let engine = Engine::default();
    let [module, resume] = [&first.first, &other.resume].map(|wasm| Module::new(&engine, wasm).expect("a module"));
    let table = resume.imports().find(|import| import.name().starts_with("wpk_fork_table_")).expect("it has the table");
    assert!(module.get_export(table.name()).is_none(), "any engine would link the two");
    let End::Trapped(error) = run(&first.first, &other.resume).expect("the first module links").end else {
        panic!("the two link");
    };
    assert!(error.contains("belongs to another module"), "{error}");
}

#[test]
fn the_resume_functions_of_another_program_do_not_link() {
    let [one, other] = PROGRAMS.map(|operator| pair(&program(operator), &[]));
    assert_links(&one, &program(PROGRAMS[0]));
    assert_links(&other, &program(PROGRAMS[1]));
    assert_does_not_link(&one, &other);
    assert_does_not_link(&other, &one);
}

#[test]
fn the_resume_functions_of_a_build_with_other_options_do_not_link() {
    let wat = program(PROGRAMS[0]);
    let [one, other] = ["effects", "none"].map(|replay| {
        let option = format!("--pass-arg=fork-instrument-replay@{replay}");
        pair(&wat, &[&option])
    });
    assert_links(&one, &wat);
    assert_links(&other, &wat);
    assert_does_not_link(&one, &other);
    assert_does_not_link(&other, &one);
}

#[test]
fn optimised_first_modules_link_with_their_own_resume_functions_and_no_others() {
    let passes = ["-O2", "-O3", "-Oz", "--remove-unused-module-elements"];
    let [wat, other] = PROGRAMS.map(program);
    let other = pair(&other, &[]);
    for pass in passes {
        let one = pair(&wat, &[pass]);
        assert_links(&one, &wat);
        assert_does_not_link(&one, &other);
    }
}

#[test]
fn a_module_that_is_left_as_it_is_has_an_empty_second_module() {
    let scratch = Scratch::with("in.wat", r#"(module (memory 1) (func (export "run")))"#);
    scratch.write("second.wasm", "of another build");
    let pass = ["--fork-instrument", "--pass-arg=fork-instrument-resume@second.wasm"];
    let run = scratch.run(&[&["in.wat", "-o", "out.wasm"], &pass[..]].concat()).succeeded();
    assert_eq!(run.warnings().len(), 1, "{}", run.stderr);
    assert_eq!(scratch.read("second.wasm"), b"\0asm\x01\0\0\0");
    scratch.run(&[&["in.wat", "-S", "-o", "out.wat"], &pass[..]].concat()).succeeded();
    assert_eq!(scratch.read_text("second.wasm").trim(), "(module)");
}

#[test]
fn resume_functions_in_an_exported_table_are_a_warning() {
    for (export, warnings) in [(r#"(export "table")"#, 1), ("", 0)] {
        let wat = format!(
            r#"(module
                (import "kernel" "kernel_fork" (func $fork (result i32)))
                (memory (export "memory") 1)
                (table {export} 1 funcref)
                (elem (i32.const 0) $run)
                (func $run (export "run") (result i32) (i32.add (call $fork) (i32.const 1))))"#
        );
        let scratch = Scratch::with("in.wat", wat);
        let mvp = ["--mvp-features", "--enable-mutable-globals", "in.wat", "-o", "first.wasm", "--fork-instrument"];
        let resume = "--pass-arg=fork-instrument-resume@second.wasm";
        let run = scratch.run(&[&mvp[..], &[resume]].concat()).succeeded();
        assert_eq!(run.warnings().len(), warnings, "{}", run.stderr);
        let run = scratch.run(&[&mvp[..], &[resume, "--enable-reference-types"]].concat()).succeeded();
        assert!(run.warnings().is_empty(), "{}", run.stderr);
    }
}

#[test]
fn wasi_that_resume_functions_call_works_on_the_programs_memory() {
    let wat = r#"(module
        (import "kernel" "kernel_fork" (func $fork (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\06\00\00\00")
        (data (i32.const 16) "hello\n")
        (func $say (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))
        (func (export "_start")
            (drop (call $fork))
            (call $say)
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    let pair = pair(wat, &["--pass-arg=fork-instrument-in-secondary-memory"]);
    let memory = Some(String::from("wpk_fork_memory"));
    let expected = Replay { memory: memory.clone(), ..Replay::new(wat.as_bytes()) }.run().expect("the program runs");
    assert_eq!(expected.stdout, b"hello\nhello\n");
    for schedule in [Schedule::FollowChild, Schedule::FollowParent] {
        let replay = Replay::instrumented(&pair.first, schedule);
        let replay = Replay { resume: Some(&pair.resume), memory: memory.clone(), strict: true, ..replay };
        let outcome = replay.run().expect("the two link");
        assert_eq!(expected.differences(&outcome), Vec::<String>::new());
        assert_eq!(outcome.forks, 1);
    }
}
