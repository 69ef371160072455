//! Programs that trap or throw after a fork, and stacks that overflow in a rewind.

use fork_host::protocol::{Buffer, ForkState};
use wasmtime::{Caller, Func, Instance, Linker, Module, ThrownException, Trap};

use crate::guest::{Guest, Host, engine, instrument, instrument_separately};

/// Forks at the bottom of a recursion of `$n` calls. Then `fork`'s result says what happens: 1 is a trap, 2 an exception
/// that is thrown as it is, 3 one that an outer function catches and throws on.
pub const RECURSION: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
  (memory (export "memory") 2)
  (tag $tag (param i32))
  (func $act (param $what i32)
    (if (i32.eq (local.get $what) (i32.const 1)) (then (unreachable)))
    (if (i32.ge_u (local.get $what) (i32.const 2)) (then (throw $tag (local.get $what)))))
  (func $deep (param $n i32) (result i64)
    (if (i32.eqz (local.get $n)) (then
      (call $act (call $fork (i32.const 77)))
      (return (i64.const 1000))))
    (i64.add (i64.extend_i32_s (local.get $n)) (call $deep (i32.sub (local.get $n) (i32.const 1)))))
  (func (export "run") (param $n i32) (result i64)
    (block $caught (result i32 exnref)
      (try_table (catch_ref $tag $caught) (return (call $deep (local.get $n))))
      (unreachable))
    (throw_ref)
    (drop)))"#;

const STACK: usize = 256 << 10;
const BUFFER: Buffer = Buffer { address: 65536, size: 32 << 10, wide: false };

fn guest() -> Guest {
    let mut guest = Guest::new(&engine(STACK), &instrument(RECURSION, &[]));
    guest.store.data_mut().buffer = BUFFER;
    guest
}

fn sum(depth: i64) -> i64 {
    1000 + depth * (depth + 1) / 2
}

/// The process ends as `answer` says, and its state is normal; another call of it forks again, and all is well.
#[track_caller]
fn ends_in_the_normal_state(guest: &mut Guest, answer: i32) {
    guest.store.data_mut().answer = answer;
    let error = guest.rewind().expect_err("it traps or throws");
    match answer {
        1 => assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached)),
        _ => assert!(error.downcast_ref::<ThrownException>().is_some(), "{error:?}"),
    }
    assert_eq!(guest.state(), ForkState::Normal);
    guest.store.data_mut().answer = 0;
    assert_eq!(guest.fork_and_follow_parent(4), sum(4));
    assert_eq!(guest.state(), ForkState::Normal);
}

/// A root that hosts call through a table.
const IN_A_TABLE: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
  (memory (export "memory") 2)
  (table (export "table") 1 funcref)
  (elem (i32.const 0) $root)
  (func $root (param i32) (result i64) (i64.extend_i32_s (call $fork (local.get 0))))
  (func (export "run") (param $n i32) (result i64) (call $root (local.get $n))))"#;

#[test]
fn what_resumes_functions_in_tables_traps_unless_the_program_rewinds() {
    let mut guest = Guest::new(&engine(STACK), &instrument(IN_A_TABLE, &[]));
    guest.store.data_mut().buffer = BUFFER;
    let resume = guest.instance.get_typed_func::<(), i64>(&mut guest.store, "wpk_fork_resume_i64").unwrap();
    let traps = |guest: &mut Guest| {
        let error = resume.call(&mut guest.store, ()).expect_err("it is not the time for it");
        assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached));
    };
    traps(&mut guest);
    guest.store.data_mut().answer = 5;
    assert_eq!(guest.fork_and_follow_parent(1), 5);
    // The frames are still there.
    traps(&mut guest);
}

#[test]
fn a_trap_or_an_exception_after_a_fork_leaves_parent_and_child_in_the_normal_state() {
    for answer in [1, 2] {
        let mut parent = guest();
        parent.store.data_mut().forks = true;
        assert_eq!(parent.unwind(3), None);
        let mut child = parent.child();
        ends_in_the_normal_state(&mut child, answer);
        ends_in_the_normal_state(&mut parent, answer);
    }
}

#[test]
fn a_trap_or_an_exception_after_a_fork_that_failed_leaves_the_normal_state() {
    for size in [0, 20, 40] {
        let mut guest = guest();
        let host = guest.store.data_mut();
        (host.buffer, host.forks) = (Buffer { size, ..BUFFER }, true);
        // A failed fork returns -1: an exception here.
        let error = guest.call(3).expect_err("it throws");
        assert!(error.downcast_ref::<ThrownException>().is_some(), "{error:?}");
        assert_eq!(guest.store.data().failures, 1);
        assert_eq!(guest.state(), ForkState::Normal);
        guest.store.data_mut().buffer = BUFFER;
        assert_eq!(guest.fork_and_follow_parent(4), sum(4));
    }
}

/// Calls the guest's root with less and less of the stack left.
const LADDER: &str = r#"(module
  (import "host" "top" (func $top (result i64)))
  (func $climb (export "climb") (param $n i32) (result i64)
    (if (i32.eqz (local.get $n)) (then (return (call $top))))
    (i64.add (i64.const 0) (call $climb (i32.sub (local.get $n) (i32.const 1))))))"#;

struct Ladder(Instance);

impl Ladder {
    /// `top` calls `run` of the guest, if there is one.
    fn new(guest: &mut Guest, run: Option<Func>) -> Ladder {
        let module = Module::new(guest.store.engine(), LADDER).expect("valid");
        let mut linker = Linker::new(guest.store.engine());
        let top = move |mut caller: Caller<'_, Host>| -> wasmtime::Result<i64> {
            match run {
                Some(run) => run.typed::<i32, i64>(&caller)?.call(&mut caller, 0),
                None => Ok(0),
            }
        };
        linker.func_wrap("host", "top", top).expect("a new name");
        Ladder(linker.instantiate(&mut guest.store, &module).expect("it imports nothing else"))
    }

    fn climb(&self, guest: &mut Guest, height: i32) -> wasmtime::Result<i64> {
        self.0.get_typed_func::<i32, i64>(&mut guest.store, "climb")?.call(&mut guest.store, height)
    }
}

#[test]
fn a_stack_overflow_in_a_rewind_is_reported_and_the_buffer_serves_again() {
    const DEPTH: i32 = 1000;
    let mut parent = guest();
    parent.store.data_mut().forks = true;
    assert_eq!(parent.unwind(DEPTH), None);
    parent.store.data_mut().forks = false;
    let saved = parent.read(BUFFER.address, BUFFER.size as usize);

    let ladder = Ladder::new(&mut parent, None);
    let highest = (0..).step_by(64).find(|&height| ladder.climb(&mut parent, height).is_err()).expect("the stack ends");
    let run = parent.instance.get_func(&mut parent.store, "run");
    let ladder = Ladder::new(&mut parent, run);
    for attempt in 0..3 {
        parent.exports.rewind_begin(&mut parent.store, &BUFFER).unwrap();
        let error = ladder.climb(&mut parent, highest - 128).expect_err("there is no room for so many frames");
        assert_eq!(error.downcast_ref(), Some(&Trap::StackOverflow), "attempt {attempt}");
        assert_eq!(parent.state(), ForkState::Rewinding);
        parent.exports.rewind_end(&mut parent.store).unwrap();
        assert_eq!(parent.state(), ForkState::Normal);
        assert!(parent.read(BUFFER.address, BUFFER.size as usize) == saved, "the buffer has changed");
    }
    let mut child = parent.child();
    assert_eq!(child.rewind().unwrap(), sum(DEPTH.into()));
    assert_eq!(parent.rewind().unwrap(), sum(DEPTH.into()));
    assert_eq!(parent.fork_and_follow_parent(4), sum(4));
}

/// A transition: its export, and whether it takes the buffer.
type Transition = (&'static str, bool);

const UNWIND_BEGIN: Transition = ("wpk_fork_unwind_begin", true);
const UNWIND_END: Transition = ("wpk_fork_unwind_end", false);
const REWIND_BEGIN: Transition = ("wpk_fork_rewind_begin", true);
const REWIND_END: Transition = ("wpk_fork_rewind_end", false);

#[test]
fn transitions_in_another_state_trap() {
    let engine = engine(STACK);
    let module = Module::new(&engine, instrument(RECURSION, &[])).expect("the output is valid");
    let mut linker = Linker::new(&engine);
    linker.func_wrap("kernel", "kernel_fork", |_: i32| 0_i32).expect("it is imported once");
    let cases: [(&[Transition], &[Transition]); 3] = [
        (&[], &[UNWIND_END, REWIND_END]),
        (&[UNWIND_BEGIN], &[UNWIND_BEGIN, REWIND_BEGIN, REWIND_END]),
        (&[UNWIND_BEGIN, UNWIND_END, REWIND_BEGIN], &[UNWIND_BEGIN, UNWIND_END, REWIND_BEGIN]),
    ];
    for (before, trapping) in cases {
        for &transition in trapping {
            let mut store = wasmtime::Store::new(&engine, ());
            store.set_fuel(1_000_000).expect("the engine counts");
            let instance = linker.instantiate(&mut store, &module).expect("it starts");
            let memory = instance.get_memory(&mut store, "memory").expect("exported");
            let address = BUFFER.address as usize;
            memory.write(&mut store, address + 4, &(address as u32 + 4096).to_le_bytes()).expect("there is room");
            let mut call = |(name, takes_buffer): Transition| match takes_buffer {
                true => instance.get_typed_func::<u32, ()>(&mut store, name)?.call(&mut store, BUFFER.address as u32),
                false => instance.get_typed_func::<(), ()>(&mut store, name)?.call(&mut store, ()),
            };
            for &transition in before {
                call(transition).unwrap_or_else(|error: wasmtime::Error| panic!("{transition:?}: {error:?}"));
            }
            let error = call(transition).expect_err("it is called in another state");
            let trap = error.downcast_ref();
            assert_eq!(trap, Some(&Trap::UnreachableCodeReached), "{transition:?} after {before:?}");
        }
    }
}

/// Forks twice at the bottom of a recursion. Its functions use memory, so that the one whose frame does not fit is called
/// again by what ends its frame.
const TWICE: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
  (memory (export "memory") 2)
  (func $deep (param $n i32) (result i64) (local $first i32)
    (if (i32.eqz (local.get $n)) (then
      (local.set $first (call $fork (i32.const 77)))
      (return (i64.extend_i32_s (i32.add (i32.mul (local.get $first) (i32.const 10)) (call $fork (i32.const 77)))))))
    (i64.add (i64.load (local.get $n)) (call $deep (i32.sub (local.get $n) (i32.const 1)))))
  (func (export "run") (param $n i32) (result i64) (call $deep (local.get $n))))"#;

/// The first fork is made, and the second fails in a buffer of that size. `fuel` is for what follows the first.
fn fork_twice(guest: &mut Guest, size: u64, fuel: u64) -> wasmtime::Result<i64> {
    let host = guest.store.data_mut();
    (host.buffer, host.forks, host.answer, host.failures) = (BUFFER, true, 5, 0);
    guest.store.set_fuel(1_000_000)?;
    assert_eq!(guest.unwind(3), None);
    guest.exports.rewind_begin(&mut guest.store, &BUFFER)?;
    guest.store.data_mut().buffer = Buffer { size, ..BUFFER };
    guest.store.set_fuel(fuel)?;
    let end = guest.call(0);
    guest.store.set_fuel(1_000_000)?;
    end
}

#[test]
fn a_program_that_ends_anywhere_in_a_fork_that_fails_leaves_an_instance_that_forks_again() {
    let engine = engine(STACK);
    let one = || Guest::new(&engine, &instrument(TWICE, &[]));
    let two = || Guest::of_two(&engine, instrument_separately(TWICE));
    for mut guest in [one(), two()] {
        let mut aborted = 0;
        // From where no frame fits to where all but the last do.
        for size in (24..=56).step_by(4) {
            for fuel in 1.. {
                let end = fork_twice(&mut guest, size, fuel);
                let ended = end.is_ok();
                match guest.state() {
                    _ if ended => assert_eq!((end.unwrap(), guest.state()), (10 * 5 - 1, ForkState::Normal)),
                    ForkState::Normal => {}
                    ForkState::Unwinding => guest.exports.unwind_end(&mut guest.store).expect("it is unwinding"),
                    state => {
                        aborted += usize::from(state == ForkState::Aborting);
                        guest.exports.rewind_end(&mut guest.store).expect("it is rewinding");
                    }
                }
                assert_eq!(fork_twice(&mut guest, size, 1_000_000).expect("it ends"), 10 * 5 - 1, "{size} {fuel}");
                assert_eq!((guest.state(), guest.store.data().failures), (ForkState::Normal, 1));
                if ended {
                    break;
                }
            }
        }
        assert!(aborted > 100, "{aborted} ended while a frame that did not fit was resumed");
    }
}
