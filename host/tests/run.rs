//! The command fork-run, on a program that was instrumented by hand.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The program for pointers of either width; `child` goes before the child's exit, `done` is the exit code.
fn program(wide: bool, child: &str, done: &str) -> String {
    let (ptr, size) = if wide { ("i64", "8") } else { ("i32", "4") };
    let text = include_str!("wat/pipe_forked.wat").replace("CHILD", child).replace("DONE", done);
    text.replace("PTR", ptr).replace("offset=P ", &format!("offset={size} "))
}

/// The parent's exit code if the child's status is the expected one.
fn check(status: i32) -> String {
    format!("(select (i32.const 3) (i32.const 99) (i32.eq (i32.load (PTR.const 72)) (i32.const {status})))")
}

fn fork_run(name: &str, program: &str, options: &[&str]) -> Output {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.wat"));
    std::fs::write(&path, program).unwrap();
    Command::new(env!("CARGO_BIN_EXE_fork-run")).args(options).arg(path).output().unwrap()
}

#[track_caller]
fn assert_works(output: &Output) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello from the child\n");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn parent_and_child_talk_through_a_pipe() {
    for wide in [false, true] {
        assert_works(&fork_run(&format!("pipe_{wide}"), &program(wide, "", &check(7 << 8)), &[]));
    }
}

#[test]
fn a_buffer_that_is_too_small_grows() {
    for size in ["0", "20", "40", "79", "80"] {
        assert_works(&fork_run(&format!("grow_{size}"), &program(false, "", &check(7 << 8)), &["--buffer", size]));
    }
}

#[test]
fn without_memory_for_a_buffer_fork_fails() {
    let program = program(false, "", &check(7 << 8)).replace("i32 1)", "1 1)");
    let output = fork_run("full", &program, &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "cannot fork\n");
    assert_eq!(output.status.code(), Some(48));
}

#[test]
fn a_trap_is_a_signal_to_the_parent() {
    let output = fork_run("trap", &program(false, "(unreachable)", &check(6)), &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("was killed by signal 6"));
    let output = fork_run("first_trap", &program(false, "", "(i32.load (i32.const -1))"), &[]);
    assert_eq!(output.status.code(), Some(128 + 11));
}

#[test]
fn the_child_knows_its_parent() {
    let child = "(if (i32.ne (call $getpid) (i32.add (call $getppid) (i32.const 1))) (then (unreachable)))";
    assert_works(&fork_run("pids", &program(false, child, &check(7 << 8)), &[]));
}

/// Runs a program with something on its standard input.
fn fork_run_on(name: &str, program: &str, input: &str, options: &[&str]) -> Output {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.wat"));
    std::fs::write(&path, program).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fork-run"));
    command.args(options).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn standard_streams_are_those_of_the_command() {
    // Reads one piece, writes it to both outputs, and goes on until the end.
    let program = r#"(module
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start")
            (loop $more
                (i32.store (i32.const 0) (i32.const 64))
                (i32.store (i32.const 4) (i32.const 5))
                (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))
                (i32.store (i32.const 4) (i32.load (i32.const 8)))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
                (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 12)))
                (br_if $more (i32.load (i32.const 8))))
            (call $exit (i32.const 9))))"#;
    let output = fork_run_on("streams", program, "what comes in goes out", &[]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "what comes in goes out");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "what comes in goes out");
    assert_eq!(output.status.code(), Some(9));
}

#[test]
fn resume_functions_are_not_read_before_the_first_fork() {
    let quiet = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
    assert_eq!(fork_run("quiet", quiet, &["--resume", "no/such/file"]).status.code(), Some(0));
    let output = fork_run("forks", &program(false, "", &check(7 << 8)), &["--resume", "no/such/file"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot fork: cannot read no/such/file"), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "cannot fork\n");
}

#[test]
fn a_missing_file_of_resume_functions_is_told() {
    let program = program(false, "", &check(7 << 8));
    let program = program.replacen("(memory ", "(table (export \"wpk_fork_table_0\") 1 funcref) (memory ", 1);
    let stderr = String::from_utf8(fork_run("needs_resume", &program, &[]).stderr).unwrap();
    assert!(stderr.contains("pass it with --resume"), "{stderr}");
}

#[test]
fn a_program_that_is_not_instrumented_is_told_when_it_forks() {
    let program = r#"(module
        (import "kernel" "kernel_fork" (func $fork (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") (call $exit (i32.sub (i32.const 0) (call $fork)))))"#;
    let output = fork_run("plain", program, &[]);
    // ENOSYS of WASI.
    assert_eq!(output.status.code(), Some(52));
    assert!(String::from_utf8_lossy(&output.stderr).contains("wasm-opt --fork-instrument"), "{output:?}");
}

#[test]
fn wrong_options_are_named() {
    for (options, expected) in [
        (&["--dri", "."][..], "unknown option --dri"),
        (&["--env", "NAME"], "an = is missing"),
        (&["--dir", "no/such/folder"], "no/such/folder"),
        (&["--buffer", "much"], "--buffer"),
    ] {
        let output = fork_run("wrong_option", &program(false, "", &check(7 << 8)), options);
        assert_ne!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stderr).contains(expected), "{output:?}");
    }
}

#[test]
fn unknown_imports_are_listed() {
    let program = r#"(module
        (import "env" "mystery" (func (param i32)))
        (import "wasi_snapshot_preview1" "fd_close" (func (param i64) (result i32)))
        (memory (export "memory") 1)
        (func (export "_start")))"#;
    let output = fork_run("unknown", program, &[]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr.contains("env.mystery") && stderr.contains("fd_close"), "{stderr}");
}

#[test]
fn resume_functions_come_from_a_second_module() {
    let first = r#"(module
        (type $resume (func))
        (import "kernel" "kernel_fork" (func $fork (result i32)))
        (import "kernel" "waitpid" (func $waitpid (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (global $state (mut i32) (i32.const 0))
        (table $resumes (export "resumes") 1 funcref)
        (export "fork" (func $fork))
        (func (export "wpk_fork_state") (result i32) (global.get $state))
        (func (export "wpk_fork_unwind_begin") (param $b i32) (global.set $state (i32.const 1)))
        (func (export "wpk_fork_unwind_end") (global.set $state (i32.const 0)))
        (func (export "wpk_fork_rewind_begin") (param i32) (global.set $state (i32.const 2)))
        (func (export "wpk_fork_rewind_end") (global.set $state (i32.const 0)))
        (func (export "done") (param $pid i32)
            (if (i32.eqz (local.get $pid)) (then (call $exit (i32.const 5))))
            (drop (call $waitpid (local.get $pid) (i32.const 64) (i32.const 0)))
            (call $exit (i32.shr_u (i32.load (i32.const 64)) (i32.const 8))))
        (func (export "_start")
            (if (global.get $state) (then (call_indirect $resumes (type $resume) (i32.const 0)) (return)))
            (drop (call $fork))))"#;
    let second = r#"(module
        (import "wpk_fork" "fork" (func $fork (result i32)))
        (import "wpk_fork" "done" (func $done (param i32)))
        (import "wpk_fork" "resumes" (table $resumes 1 funcref))
        (elem (table $resumes) (i32.const 0) func $resume)
        (func $resume (call $done (call $fork))))"#;
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("second.wat");
    std::fs::write(&path, second).unwrap();
    let output = fork_run("first", first, &["--resume", path.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn a_stack_overflow_in_a_rewind_is_reported() {
    let deeper = "(if (i32.eq (global.get $state) (i32.const 2)) (then (call $deeper)))";
    let program = program(false, "", &check(7 << 8))
        .replace("(local.set $pid (call $fork))", &format!("{deeper} (local.set $pid (call $fork))"))
        .replace("(func $copy", "(func $deeper (call $deeper)) (func $copy");
    let output = fork_run("overflow", &program, &[]);
    assert_eq!(output.status.code(), Some(128 + 11));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("was killed by signal 11") && said.contains("call stack exhausted"), "{said}");
}

#[test]
fn a_shared_memory_beside_the_main_one_is_refused() {
    let module = r#"(module
      (memory (export "memory") 1)
      (memory (export "others") 1 1 shared)
      (func (export "_start")))"#;
    let output = fork_run("shared_memory", module, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("the memory others is shared"), "{said}");
}
