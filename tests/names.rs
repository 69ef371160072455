//! Names in the name section are for readers, and compilers write what they like there.

mod support;

use fork_host::replay::{Replay, Schedule};
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
    scratch.write("named.wasm", &wasm);
    for pass in [&["--fork-instrument"][..], &["--fork-instrument", "--pass-arg=fork-instrument-verify", "-g"]] {
        scratch.run(&[&ALL[..], &["named.wasm", "-o", "out.wasm"], pass].concat()).succeeded();
        let instrumented = scratch.read("out.wasm");
        let reference = Replay::new(&wasm).run().expect("it runs");
        assert_eq!(reference.entry_calls, 2);
        for schedule in [Schedule::Never, Schedule::FollowChild, Schedule::FollowParent] {
            let replay = Replay { strict: true, ..Replay::instrumented(&instrumented, schedule) };
            let outcome = replay.run().expect("it runs");
            assert_eq!(reference.differences(&outcome), Vec::<String>::new(), "{schedule:?}");
        }
    }
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
