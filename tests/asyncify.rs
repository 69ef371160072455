//! A module that Asyncify has instrumented is an input like any other.

mod support;

use fork_host::replay::{Entry, Replay, Schedule};
use support::{ALL, Scratch};

/// Asyncify takes care of `env.sleep`, which a host that does not unwind just calls.
const PROGRAM: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "env" "sleep" (func $sleep (param i32)))
  (import "log" "i32" (func $log (param i32)))
  (memory (export "memory") 1)
  (func $walk (param $n i32) (result i32)
    (local $r i32)
    (if (i32.eqz (local.get $n)) (then (return (i32.const 1))))
    (call $sleep (local.get $n))
    (local.set $r (i32.mul (local.get $n) (i32.add (call $fork) (call $walk (i32.sub (local.get $n) (i32.const 1))))))
    (call $sleep (local.get $r))
    (call $log (local.get $r))
    (local.get $r))
  (func (export "run") (result i32)
    (call $walk (i32.const 4))))"#;

#[test]
fn a_module_that_went_through_asyncify_forks_as_others_do() {
    let scratch = Scratch::with("in.wat", PROGRAM);
    let asyncify = ["in.wat", "--asyncify", "--pass-arg=asyncify-imports@env.sleep", "-O2", "-o", "async.wasm"];
    scratch.run(&[&ALL[..], &asyncify].concat()).succeeded();
    scratch.run(&[&ALL[..], &["async.wasm", "--fork-instrument", "-o", "out.wasm"]].concat()).succeeded();
    let (original, instrumented) = (scratch.read("async.wasm"), scratch.read("out.wasm"));
    let entries = vec![Entry::parse("kernel.kernel_fork")];
    let reference = Replay { entries: entries.clone(), ..Replay::new(&original) }.run().expect("it runs");
    assert_eq!(reference.entry_calls, 4);
    for schedule in [Schedule::Never, Schedule::FollowChild, Schedule::FollowParent, Schedule::ForkAt(2)] {
        let replay = Replay { entries: entries.clone(), strict: true, ..Replay::instrumented(&instrumented, schedule) };
        let outcome = replay.run().expect("it runs");
        assert_eq!(reference.differences(&outcome), Vec::<String>::new(), "{schedule:?}");
    }
}
