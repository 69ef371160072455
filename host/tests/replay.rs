//! The replay harness, on modules that were instrumented by hand.

use fork_host::replay::{End, Entry, Limit, OnAbort, Outcome, Replay, Schedule, Value};

const SCHEDULES: [Schedule; 7] = [
    Schedule::Never,
    Schedule::FollowChild,
    Schedule::FollowParent,
    Schedule::ForkAt(0),
    Schedule::ForkAt(2),
    Schedule::Random { seed: 1 },
    Schedule::Random { seed: 2 },
];

/// Fills a template for pointers of either width.
fn template(text: &str, wide: bool, broken: &str) -> String {
    let size = if wide { 8 } else { 4 };
    let numbers = [("FIRST", 2 * size + 4), ("SECOND", 2 * size + 8), ("LAST", 2 * size + 12), ("=2P", 2 * size)];
    let text = numbers.iter().fold(text.replace("BROKEN", broken), |text, (name, number)| {
        text.replace(name, &format!("{}{number}", if *name == "=2P" { "=" } else { "" }))
    });
    let ptr = if wide { "i64" } else { "i32" };
    text.replace("offset=P ", &format!("offset={size} ")).replace("PTR", ptr)
}

fn original(wide: bool) -> String {
    template(include_str!("wat/count.wat"), wide, "")
}

fn forked(wide: bool) -> String {
    template(include_str!("wat/count_forked.wat"), wide, "")
}

fn strict(wasm: &str, schedule: Schedule) -> Replay<'_> {
    Replay { strict: true, ..Replay::instrumented(wasm.as_bytes(), schedule) }
}

fn plain(wasm: &str) -> Outcome {
    Replay::new(wasm.as_bytes()).run().unwrap()
}

#[track_caller]
fn assert_same(reference: &Outcome, other: &Outcome) {
    assert_eq!(reference.differences(other), Vec::<String>::new());
}

#[test]
fn every_schedule_shows_what_a_plain_run_shows() {
    for wide in [false, true] {
        let (original, forked) = (original(wide), forked(wide));
        let reference = plain(&original);
        assert_eq!(reference.entry_calls, 3);
        assert_eq!(reference.trace.count, 6);
        for schedule in SCHEDULES {
            let outcome = strict(&forked, schedule).run().unwrap();
            assert_same(&reference, &outcome);
            let forks = match schedule {
                Schedule::Never => Some(0),
                Schedule::FollowChild | Schedule::FollowParent => Some(3),
                Schedule::ForkAt(_) => Some(1),
                Schedule::Random { .. } => None,
            };
            assert!(forks.is_none_or(|forks| forks == outcome.forks), "{schedule:?}");
            assert_eq!(outcome.second.is_some(), matches!(schedule, Schedule::ForkAt(_)));
            if outcome.forks > 0 {
                assert_eq!((outcome.frame_bytes.max, outcome.frame_bytes.last), (12, 12));
                assert_eq!(outcome.frame_bytes.total, 12 * outcome.forks);
            }
        }
    }
}

#[test]
fn frames_that_do_not_fit_are_retried_in_a_larger_buffer() {
    for wide in [false, true] {
        let (original, forked) = (original(wide), forked(wide));
        let reference = plain(&original);
        let pointers = if wide { 16 } else { 8 };
        // Nothing fits; only the globals fit; the frame just does not fit.
        for buffer in [0, pointers + 4, pointers + 11] {
            for schedule in SCHEDULES {
                let outcome = Replay { buffer, ..strict(&forked, schedule) }.run().unwrap();
                assert_same(&reference, &outcome);
                assert_eq!(outcome.aborts > 0, outcome.forks > 0);
            }
        }
        let outcome = Replay { buffer: pointers + 12, ..strict(&forked, Schedule::FollowChild) }.run().unwrap();
        assert_same(&reference, &outcome);
        assert_eq!(outcome.aborts, 0);
    }
}

#[test]
fn a_fork_that_is_given_up_leaves_the_run_as_it_was() {
    let (original, forked) = (original(false), forked(false));
    let reference = plain(&original);
    for buffer in [4, 12] {
        let replay = Replay { buffer, on_abort: OnAbort::Perform, ..strict(&forked, Schedule::FollowChild) };
        let outcome = replay.run().unwrap();
        assert_same(&reference, &outcome);
        assert_eq!((outcome.forks, outcome.aborts), (0, 3));

        let outcome = Replay { on_abort: OnAbort::ReturnError, ..replay }.run().unwrap();
        assert_eq!(outcome.faults, Vec::<String>::new());
        assert_eq!(outcome.trace.events[0].results, [Value::I32(-48)]);
        assert_eq!(outcome.trace.events[1].args, [Value::I32(5 * 3 - 48)]);
    }
}

#[test]
fn a_buffer_at_a_given_address_serves_a_memory_that_cannot_grow() {
    let fixed = |wasm: String| wasm.replace("(memory (export \"memory\") i32 1)", "(memory (export \"memory\") 1 1)");
    let (original, forked) = (fixed(original(false)), fixed(forked(false)));
    let reference = plain(&original);
    let replay = Replay { buffer: 100, buffer_at: Some(1024), ..strict(&forked, Schedule::FollowChild) };
    let outcome = replay.run().unwrap();
    assert_same(&reference, &outcome);
    assert_eq!(outcome.forks, 3);
}

#[test]
fn breaches_are_found() {
    let reference = plain(&original(false));
    let cases = [
        ("(local.set $x (i32.const 7))", "it got [i32:7] instead of [i32:5]"),
        ("(call $log (i32.const 1))", "log.i32 was called while Rewinding"),
        ("(global.set $calls (i32.const 77))", "Rewinding changed global calls from i32:0 to i32:77"),
        ("(i32.store (i32.const 512) (i32.const 1))", "Rewinding changed memory memory outside the buffer"),
        ("(global.set $state (i32.const 0))", "was reached again while Normal"),
        ("(return (i32.const 0))", "the program ended while Rewinding"),
        ("(i32.store (i32.load offset=4 (global.get $buffer)) (i32.const 1))", "after the end of the fork buffer"),
    ];
    for (broken, expected) in cases {
        let wasm = template(include_str!("wat/count_forked.wat"), false, broken);
        let differences = reference.differences(&strict(&wasm, Schedule::FollowParent).run().unwrap());
        assert!(differences.iter().any(|found| found.contains(expected)), "{broken}: {differences:?}");
    }
}

#[test]
fn runs_that_differ_are_told_apart() {
    let original = original(false);
    let reference = plain(&original);
    let changed = |from: &str, to: &str| plain(&original.replace(from, to));
    let cases = [
        (changed("(local.get $x)))", "(i32.const 9)))"), "ended with Returned([i32:9])"),
        (changed("(local.get $x)))", "(unreachable)))"), "ended with Trapped(\"wasm trap: wasm `unreachable`"),
        (changed("(call $log (local.get $x))", "(call $log (i32.const 1))"), "event 1 is log.i32([i32:1])"),
        (changed("const 64", "const 65"), "memory memory at 0x40"),
        (changed("(i32.const 1)))\n      (call $log", "(i32.const 2)))\n      (call $log"), "global calls is i32:6"),
        (changed("(i32.const 3))))\n    (local.get", "(i32.const 2))))\n    (local.get"), "2 entry calls instead of 3"),
    ];
    for (outcome, expected) in cases {
        let differences = reference.differences(&outcome);
        assert!(differences.iter().any(|found| found.contains(expected)), "{expected}: {differences:?}");
    }
}

#[test]
fn resume_functions_come_from_a_second_module() {
    let original = r#"(module
        (import "kernel" "kernel_fork" (func $fork (result i32)))
        (memory (export "memory") 1)
        (func (export "run") (result i32) (i32.add (call $fork) (i32.const 1))))"#;
    let first = r#"(module
        (type $resume (func (result i32)))
        (import "kernel" "kernel_fork" (func $fork (result i32)))
        (memory (export "memory") 1)
        (global $state (export "state") (mut i32) (i32.const 0))
        (table $resumes (export "resumes") 1 funcref)
        (export "fork" (func $fork))
        (func (export "wpk_fork_state") (result i32) (global.get $state))
        (func (export "wpk_fork_unwind_begin") (param $b i32)
            (i32.store (local.get $b) (i32.add (local.get $b) (i32.const 8)))
            (global.set $state (i32.const 1)))
        (func (export "wpk_fork_unwind_end") (global.set $state (i32.const 0)))
        (func (export "wpk_fork_rewind_begin") (param i32) (global.set $state (i32.const 2)))
        (func (export "wpk_fork_rewind_end") (global.set $state (i32.const 0)))
        (func (export "run") (result i32)
            (if (global.get $state) (then (return (call_indirect $resumes (type $resume) (i32.const 0)))))
            (i32.add (call $fork) (i32.const 1))))"#;
    let second = r#"(module
        (import "wpk_fork" "fork" (func $fork (result i32)))
        (import "wpk_fork" "state" (global $state (mut i32)))
        (import "wpk_fork" "memory" (memory 1))
        (import "wpk_fork" "resumes" (table $resumes 1 funcref))
        (elem (table $resumes) (i32.const 0) func $resume)
        (func $resume (result i32) (i32.add (call $fork) (i32.const 1))))"#;
    let reference = plain(original);
    for schedule in SCHEDULES {
        let outcome = Replay { resume: Some(second.as_bytes()), ..strict(first, schedule) }.run().unwrap();
        assert_same(&reference, &outcome);
    }
    let wrong = second.replace("\"state\"", "\"another_state\"");
    let error = Replay { resume: Some(wrong.as_bytes()), ..strict(first, Schedule::FollowChild) }.run().unwrap();
    assert!(matches!(error.end, End::Trapped(text) if text.contains("belongs to another module")));
}

#[test]
fn imports_of_all_kinds_are_made_up_alike_in_every_run() {
    let wasm = r#"(module
        (import "a" "numbers" (func $numbers (param f32 v128) (result i32 i64 f32 f64 v128)))
        (import "a" "refs" (func $refs (result funcref externref anyref (ref extern) (ref i31))))
        (import "a" "memory" (memory 1))
        (import "a" "table" (table 3 funcref))
        (import "a" "global" (global $g (mut i64)))
        (import "a" "base" (global $base i32))
        (import "a" "tag" (tag $t (param i32)))
        (export "g" (global $g))
        (func (export "run") (result i32 i64 f32 f64 v128 funcref externref anyref (ref extern) (ref i31))
            (global.set $g (i64.add (global.get $g) (i64.const 1)))
            (call $numbers (f32.const nan) (v128.const i64x2 1 2))
            (call $refs)))"#;
    let outcome = plain(wasm);
    assert_same(&outcome, &plain(wasm));
    let End::Returned(values) = &outcome.end else { panic!("{:?}", outcome.end) };
    assert_eq!(values.len(), 10);
    assert_eq!(&values[5..8], [Value::Null; 3]);
    assert_eq!(outcome.memories[0].name, "a.memory");
}

#[test]
fn the_start_function_runs_once_for_the_trace() {
    let with_start = |wasm: String| {
        wasm.replace(
            "(func (export \"run\")",
            "(func $start (call $log (i32.const 100)))\n(start $start)\n(func (export \"run\")",
        )
    };
    let reference = plain(&with_start(original(false)));
    assert_eq!(reference.trace.count, 7);
    for schedule in SCHEDULES {
        assert_same(&reference, &strict(&with_start(forked(false)), schedule).run().unwrap());
    }
}

/// `frames`: the memory that the buffer is in, besides the program's own.
fn replay_wasi_entry(frames: Option<&str>) {
    let wasm = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\06\00\00\00")
        (data (i32.const 16) "hello\n")
        FORK
        (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            LEAVE
            (call $exit (i32.const 4))))"#;
    let fork = r#"
        (global $state (mut i32) (i32.const 0))
        (func (export "wpk_fork_state") (result i32) (global.get $state))
        (func (export "wpk_fork_unwind_begin") (param $b i32)
            (i32.store (local.get $b) (i32.add (local.get $b) (i32.const 8)))
            (global.set $state (i32.const 1)))
        (func (export "wpk_fork_unwind_end") (global.set $state (i32.const 0)))
        (func (export "wpk_fork_rewind_begin") (param i32) (global.set $state (i32.const 2)))
        (func (export "wpk_fork_rewind_end") (global.set $state (i32.const 0)))"#;
    let fork = match frames {
        Some(name) => {
            fork.replace("i32.store", "i32.store $frames")
                + &format!("(memory $frames 1) (export \"{name}\" (memory $frames))")
        }
        None => fork.to_owned(),
    };
    let original = wasm.replace("FORK", "").replace("LEAVE", "");
    let forked = wasm.replace("FORK", &fork).replace("LEAVE", "(if (global.get $state) (then (return)))");
    let entries = vec![Entry::parse("wasi_snapshot_preview1.fd_*")];
    let memory = frames.map(str::to_owned);
    let reference = Replay { entries: entries.clone(), memory: memory.clone(), ..Replay::new(original.as_bytes()) };
    let reference = reference.run().unwrap();
    assert_eq!(reference.end, End::Exited(4));
    assert_eq!(reference.stdout, b"hello\n");
    for schedule in [Schedule::Never, Schedule::FollowChild, Schedule::FollowParent, Schedule::ForkAt(0)] {
        let memory = memory.clone();
        let outcome = Replay { entries: entries.clone(), memory, ..strict(&forked, schedule) }.run().unwrap();
        assert_same(&reference, &outcome);
        assert_eq!(outcome.forks, u64::from(!matches!(schedule, Schedule::Never)));
    }
}

#[test]
fn a_wasi_entry_does_its_work_once() {
    replay_wasi_entry(None);
}

#[test]
fn a_wasi_entry_works_on_the_programs_memory_wherever_frames_are() {
    replay_wasi_entry(Some("frames"));
}

#[test]
fn endless_runs_are_stopped() {
    let wasm = r#"(module (func (export "run") (loop $l (br $l))))"#;
    let limits = [Limit::Fuel(1000), Limit::Time(std::time::Duration::from_millis(100))];
    for limit in limits {
        let outcome = Replay { limit, ..Replay::new(wasm.as_bytes()) }.run().unwrap();
        assert_eq!(outcome.end, End::Stopped);
    }
}

#[test]
fn ends_are_kinds_not_backtraces() {
    let trap = |body: &str| {
        let wasm = format!("(module (tag $t (param i32)) (func $f (export \"run\") {body}))");
        plain(&wasm).end
    };
    assert_eq!(trap("(call $f)"), End::Trapped("wasm trap: call stack exhausted".to_owned()));
    assert_eq!(trap("(throw $t (i32.const 3))"), End::Trapped("uncaught exception [i32:3]".to_owned()));
}

#[test]
fn a_program_with_few_forks_sees_sizes_that_fit_and_others() {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let write = |name: &str, module: String| {
        let path = folder.join(name);
        std::fs::write(&path, module).expect("the temporary folder takes files");
        path
    };
    let before = write("sizes_original.wat", original(false));
    let after = write("sizes_forked.wat", forked(false));
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fork-replay"))
        .args(["--schedules", "sizes"])
        .args([before, after])
        .output()
        .expect("fork-replay starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let performed: Vec<&str> = said.lines().filter(|line| line.contains("else without a fork")).collect();
    let some = |what: &str| performed.iter().any(|line| !line.contains(what));
    assert!(performed.len() > 1 && some("(0 forks") && some(" 0 aborts"), "{said}");
}
