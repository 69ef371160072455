//! Large functions, run: hundreds of landings among thousands of blocks, one after another and within each other.

mod support;

use std::fmt::Write;

use fork_host::replay::{End, Replay, Schedule};
use support::Scratch;

const SCHEDULES: [Schedule; 6] = [
    Schedule::Never,
    Schedule::FollowChild,
    Schedule::FollowParent,
    Schedule::ForkAt(0),
    Schedule::ForkAt(77),
    Schedule::Random { seed: 1 },
];

/// A module whose function runs `body`, which may use the locals x, y and i, and calls fork with one argument.
fn module(body: &str) -> String {
    format!(
        r#"(module
          (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
          (memory (export "memory") 1)
          (func $f (param $x i32) (result i32) (local $y i64) (local $i i32)
            {body}
            (i32.add (local.get $x) (i32.wrap_i64 (local.get $y))))
          (func (export "run") (result i32) (i32.add (i32.const 1) (call $f (i32.const 5)))))"#
    )
}

/// Mixes the result of a fork into both locals.
fn landing(number: usize) -> String {
    format!(
        "(local.set $x (i32.add (i32.mul (local.get $x) (i32.const 3)) (call $fork (i32.xor (local.get $x) (i32.const \
         {number}))))) (local.set $y (i64.add (local.get $y) (i64.extend_i32_u (local.get $x))))"
    )
}

/// Under every schedule as uninstrumented, whatever comes after the pass; `forks` is how often it forks at least.
#[track_caller]
fn behaves_as_before(body: &str, forks: u64, after_the_pass: &[&str]) {
    let original = module(body);
    let plain = Replay::new(original.as_bytes()).run().expect("the original runs");
    assert!(matches!(plain.end, End::Returned(_)), "{:?}", plain.end);
    assert!(plain.entry_calls >= forks, "only {} calls of the entry", plain.entry_calls);
    let scratch = Scratch::with("in.wat", &original);
    for after in after_the_pass {
        scratch.run(&["in.wat", "--enable-bulk-memory", "--fork-instrument", after, "-o", "out.wasm"]).succeeded();
        let instrumented = scratch.read("out.wasm");
        for schedule in SCHEDULES {
            let outcome = Replay::instrumented(&instrumented, schedule).run().expect("the module runs");
            assert_eq!(plain.differences(&outcome), [""; 0], "{schedule:?}, then {after}");
        }
    }
}

#[test]
fn hundreds_of_landings_among_thousands_of_blocks() {
    let mut body = String::new();
    for i in 0..4000 {
        write!(body, "(block $b{i} (br_if $b{i} (i32.and (local.get $x) (i32.const {})))", 1 << (i % 5)).unwrap();
        if i % 8 == 0 {
            body += &landing(i);
        }
        write!(body, "(local.set $x (i32.add (local.get $x) (i32.const {i}))))").unwrap();
        // Else all blocks would be left alike.
        write!(body, "(local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 3))))").unwrap();
    }
    // -O2 takes a time that grows with the square of the blocks, with and without the pass.
    behaves_as_before(&body, 100, &["--vacuum"]);
}

/// More landings than a byte can name, and frames of three kinds: the site takes two bytes.
#[test]
fn frames_in_line_of_hundreds_of_landings() {
    let mut body = String::new();
    for i in 0..600 {
        body += &match i % 3 {
            0 => landing(i),
            1 => format!(
                "(local.set $i (i32.add (local.get $x) (i32.const 1))) (drop (call $fork (i32.const {i}))) \
                 (local.set $x (i32.xor (local.get $x) (local.get $i)))"
            ),
            _ => format!("(local.set $x (call $fork (i32.const {i})))"),
        };
    }
    let scratch = Scratch::with("in.wat", module(&body));
    let original = scratch.read("in.wat");
    let plain = Replay::new(&original).run().expect("the original runs");
    let verified = ["in.wat", "--enable-reference-types", "--pass-arg=fork-instrument-verify", "--fork-instrument"];
    for resume in [None, Some("--pass-arg=fork-instrument-resume@resume.wasm")] {
        scratch.run(&[&verified[..], resume.as_slice(), &["-o", "out.wasm"]].concat()).succeeded();
        scratch.run(&["out.wasm", "-all", "-S", "-o", "out.wat"]).succeeded();
        assert!(scratch.read_text("out.wat").contains("(i32.store16 offset=12"), "the site is stored in line");
        let instrumented = scratch.read("out.wasm");
        let second = resume.map(|_| scratch.read("resume.wasm"));
        let others = [254, 255, 256, 257, 599].map(Schedule::ForkAt);
        for schedule in SCHEDULES.into_iter().chain(others) {
            let replay = Replay { resume: second.as_deref(), ..Replay::instrumented(&instrumented, schedule) };
            let outcome = replay.run().expect("the module runs");
            assert_eq!(plain.differences(&outcome), [""; 0], "{schedule:?}, {resume:?}");
        }
    }
}

#[test]
fn landings_thousands_of_blocks_deep() {
    let mut body = String::new();
    for i in 0..10_000 {
        write!(body, "(block $b{i} ").unwrap();
        if i % 50 == 0 {
            body += &landing(i);
        }
    }
    for i in (0..10_000).rev() {
        if i % 70 == 0 {
            write!(body, "(br_if $b{} (i32.and (local.get $x) (i32.const 1)))", i - i % 97).unwrap();
            body += &landing(i);
        }
        body += ")";
    }
    behaves_as_before(&body, 200, &["--vacuum", "-O2"]);
}

#[test]
fn landings_in_loops_within_loops() {
    let (mut body, depth) = (String::new(), 300);
    for i in 0..depth {
        // Each loop runs once again, if a bit of x says so and there is a turn left.
        write!(body, "(loop $l{i} ").unwrap();
        if i % 3 == 0 {
            body += &landing(i);
        }
    }
    for i in (0..depth).rev() {
        write!(
            body,
            "(br_if $l{i} (i32.and (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 900)) \
             (i32.and (i32.shr_u (local.get $x) (i32.const 2)) (i32.const 1)))))"
        )
        .unwrap();
    }
    behaves_as_before(&body, 100, &["--vacuum", "-O2"]);
}

/// What is in arms need not be executed, so code that becomes a function takes what it sets there. In a function with more
/// arms within each other than are counted, nothing moves.
#[test]
fn code_that_occurs_again_within_many_arms() {
    let body = |depth: usize| {
        let mut body = format!("(local.set $i (i32.const 5)) {}", landing(1));
        (0..depth).for_each(|i| write!(body, "(block $b{i} (br_if $b{i} (i32.eqz (local.get $i)))").unwrap());
        let again = "(if (i32.eqz (local.get $x))
              (then (local.set $i (i32.add (i32.mul (local.get $x) (i32.const 77777)) (i32.const 123456)))))
            (local.set $y (i64.add (local.get $y) (i64.extend_i32_u (local.get $i))))";
        body + &again.repeat(3) + &")".repeat(depth)
    };
    let becomes_a_function = |depth: usize| {
        let scratch = Scratch::with("in.wat", module(&body(depth)));
        scratch.run(&["in.wat", "--enable-bulk-memory", "--fork-instrument", "-g", "-o", "out.wasm"]).succeeded();
        let name = b"fork.outlined.0";
        scratch.read("out.wasm").windows(name.len()).any(|bytes| bytes == name)
    };
    behaves_as_before(&body(1000), 1, &["--vacuum"]);
    assert!(becomes_a_function(1000));
    assert!(becomes_a_function(u16::MAX as usize - 10));
    assert!(!becomes_a_function(u16::MAX as usize + 10));
}

/// They share a resume function, which several threads read.
#[test]
fn equal_functions_are_verified_at_the_same_time() {
    let mut text = String::from(
        r#"(module (import "kernel" "kernel_fork" (func $fork (param i32) (result i32))) (memory (export "memory") 1)"#,
    );
    let calls = "(drop (call $fork (local.get 0)))".repeat(60);
    for i in 0..300 {
        write!(text, "(func (export \"f{i}\") (param i32) (result i32) {calls} (i32.add (local.get 0) (i32.const 1)))")
            .unwrap();
    }
    let scratch = Scratch::with("in.wat", text + ")");
    let mut command = scratch.command();
    command.env("BINARYEN_CORES", "8").args(["in.wat", "--fork-instrument", "-o", "out.wasm"]);
    let output = command.arg("--pass-arg=fork-instrument-verify").output().expect("wasm-opt runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Who has an object of the last type gets at objects of all others. Each is looked at once.
#[test]
fn thousands_of_types_that_other_modules_get_at_one_through_the_other() {
    const TYPES: usize = 8000;
    let mut module = String::from("(module (type $t0 (struct (field (mut i32))))");
    for i in 1..TYPES {
        write!(module, "(type $t{i} (struct (field (ref null $t{}))))", i - 1).expect("a string takes it");
    }
    let last = TYPES - 1;
    write!(
        module,
        r#"(import "kernel" "kernel_fork" (func $fork (result i32)))
        (memory (export "memory") 1)
        (global $first (ref $t0) (struct.new $t0 (i32.const 1)))
        (func (export "take") (param (ref $t{last})))
        (func (export "run") (result i32) (i32.add (call $fork) (struct.get $t0 0 (global.get $first)))))"#
    )
    .expect("a string takes it");
    let scratch = Scratch::with("in.wat", module);
    let pass = ["-all", "in.wat", "--fork-instrument", "-o", "out.wasm"];
    assert!(scratch.run(&pass).refused().contains("the global first holds an object"));
    scratch.run(&[&pass[..], &["--pass-arg=fork-instrument-refs@tables"]].concat()).succeeded();
}
