//! Names in the name section are for readers, and compilers write what they like there.

mod support;

use fork_host::replay::{Replay, Schedule};
use support::binary::custom;
use support::{ALL, Scratch};

const PROGRAM: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (memory $name_1 (export "memory") 1)
  (global $name_1 (mut i32) (i32.const 3))
  (global $name_2 (mut i32) (i32.const 40))
  (table $name_1 1 funcref)
  (table $name_2 1 funcref)
  (elem $name_1 (table $name_1) (i32.const 0) func $name_1)
  (elem $name_2 (table $name_2) (i32.const 0) func $name_2)
  (data $name_1 "abc")
  (tag $name_1)
  (func $name_1 (result i32) (global.set $name_1 (i32.add (global.get $name_1) (call $fork))) (global.get $name_1))
  (func $name_2 (result i32) (global.set $name_2 (i32.sub (global.get $name_2) (call $fork))) (global.get $name_2))
  (func (export "run") (result i32)
    (memory.init $name_1 (i32.const 0) (i32.const 0) (i32.const 3))
    (data.drop $name_1)
    (i32.sub
      (i32.mul (i32.const 1000) (call_indirect $name_1 (result i32) (i32.const 0)))
      (call_indirect $name_2 (result i32) (i32.const 0)))))"#;

/// The program, with each `_` of its names replaced, instrumented.
#[track_caller]
fn forks_with_names_that_have(byte: u8) {
    let scratch = Scratch::with("in.wat", PROGRAM);
    scratch.run(&[&ALL[..], &["in.wat", "-g", "-o", "named.wasm"]].concat()).succeeded();
    let mut wasm = scratch.read("named.wasm");
    for i in 0..wasm.len() - 5 {
        if wasm[i..].starts_with(b"name_") {
            wasm[i + 4] = byte;
        }
    }
    forks(&scratch, &wasm);
}

#[track_caller]
fn forks(scratch: &Scratch, wasm: &[u8]) {
    scratch.write("named.wasm", wasm);
    for pass in [&["--fork-instrument"][..], &["--fork-instrument", "--pass-arg=fork-instrument-verify", "-g"]] {
        scratch.run(&[&ALL[..], &["named.wasm", "-o", "out.wasm"], pass].concat()).succeeded();
        let instrumented = scratch.read("out.wasm");
        let reference = Replay::new(wasm).run().expect("it runs");
        assert_eq!(reference.entry_calls, 2);
        for schedule in [Schedule::Never, Schedule::FollowChild, Schedule::FollowParent] {
            let replay = Replay { strict: true, ..Replay::instrumented(&instrumented, schedule) };
            let outcome = replay.run().expect("it runs");
            assert_eq!(reference.differences(&outcome), Vec::<String>::new(), "{schedule:?}");
        }
    }
}

/// A module without names, and a name section in which one item is named by nothing: of functions (1), tables (5), memories
/// (6), globals (7), element segments (8), data segments (9) or tags (11).
fn with_empty_name(scratch: &Scratch, text: &str, items: u8, index: u8) -> Vec<u8> {
    scratch.write("in.wat", text);
    scratch.run(&[&ALL[..], &["in.wat", "-o", "bare.wasm"]].concat()).succeeded();
    let mut wasm = scratch.read("bare.wasm");
    wasm.extend(custom("name", &[items, 3, 1, index, 0]));
    wasm
}

#[test]
fn names_can_be_empty() {
    let scratch = Scratch::new();
    for (items, index) in [(1, 0), (1, 1), (1, 3), (5, 1), (6, 0), (7, 0), (8, 0), (9, 0), (11, 0)] {
        let wasm = with_empty_name(&scratch, PROGRAM, items, index);
        forks(&scratch, &wasm);
    }
}

#[test]
fn a_start_function_with_an_empty_name_is_one() {
    let text = r#"(module
        (import "kernel" "kernel_fork" (func $fork (result i32)))
        (memory (export "memory") 1)
        (func $init (drop (call $fork)))
        (start $init))"#;
    let scratch = Scratch::new();
    let wasm = with_empty_name(&scratch, text, 1, 1);
    scratch.write("named.wasm", wasm);
    let run = scratch.run(&[&ALL[..], &["named.wasm", "--fork-instrument", "-o", "out.wasm"]].concat());
    assert!(run.refused().contains("can reach the fork import"));
}

#[test]
fn names_can_have_zero_bytes() {
    forks_with_names_that_have(0);
}

#[test]
fn names_can_have_what_the_text_format_escapes() {
    for byte in [b'"', b'\\', b'\n', 0x7f, b' ', b')'] {
        forks_with_names_that_have(byte);
    }
}
