//! Buffers that are too small, or at the ends of address spaces.

use fork_host::protocol::{Buffer, ForkState};
use wasmtime::Trap;

use crate::guest::{FAILED, Guest, engine, instrument};

/// Calls the entry in a loop, one function further in. Each call adds 3 and what it returns.
pub const LOOP: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
  (memory (export "memory") PAGES)
  (func $inner (param $x i64) (param $n i32) (result i64)
    (i64.add (local.get $x) (i64.extend_i32_s (call $fork (local.get $n)))))
  (func (export "run") (param $n i32) (result i64) (local $sum i64)
    (loop $again
      (local.set $sum (i64.add (local.get $sum) (call $inner (i64.const 3) (local.get $n))))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $sum)))"#;

/// The same, several calls through a table further in: all frames but the root's are of one function, which uses the
/// memory, too, so that its resume function is resumed again by a call.
pub const RECURSION_BY_TABLE: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
  (memory (export "memory") 1)
  (type $down (func (param i32 i32) (result i64)))
  (table 1 1 funcref)
  (elem (i32.const 0) $down)
  (func $down (type $down) (param $depth i32) (param $n i32) (result i64) (local $sum i64)
    (if (local.get $depth)
      (then (return
        (i64.add (i64.load (i32.const 0))
          (call_indirect (type $down)
            (i32.sub (local.get $depth) (i32.const 1)) (local.get $n) (i32.const 0))))))
    (loop $again
      (local.set $sum (i64.add (local.get $sum) (i64.extend_i32_s (i32.add (call $fork (local.get $n)) (i32.const 3)))))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $sum))
  (func (export "run") (param $n i32) (result i64) (local $x i64)
    (local.set $x (call_indirect (type $down) (i32.const 4) (local.get $n) (i32.const 0)))
    (i64.add (local.get $x) (i64.load (i32.const 0)))))"#;

const STACK: usize = 64 << 10;
/// Bytes that are enough for both frames, the reserve and the pointers.
const ENOUGH: u64 = 96;
const ROUNDS: i32 = 3;

fn guest(pages: &str, options: &[&str]) -> Guest {
    Guest::new(&engine(STACK), &instrument(&LOOP.replace("PAGES", pages), options))
}

/// What `run` returns for that many rounds if `fork` returns this.
fn sum(rounds: i32, answer: i32) -> i64 {
    i64::from(rounds) * (3 + i64::from(answer))
}

/// Forks once in a buffer of each size that ends at `end`, and checks what lies before it and behind it, and the bytes
/// at the bottom of the memory. Returns how many forks failed, and how many were made.
fn at_every_size_below(guest: &mut Guest, end: u64, wide: bool) -> (u64, u64) {
    let (mut failed, mut made) = (0, 0);
    let behind = guest.memory.data_size(&guest.store) as u64 - end;
    for size in 0..=ENOUGH {
        let buffer = Buffer { address: end - size, size, wide };
        guest.write(0, &[0x11; 256]);
        guest.write(end - 2 * ENOUGH, &[0x22; 2 * ENOUGH as usize]);
        guest.write(end, &vec![0x33; behind as usize]);
        let host = guest.store.data_mut();
        (host.buffer, host.forks, host.answer, host.failures) = (buffer, true, 5, 0);
        let result = guest.unwind(1).unwrap_or_else(|| guest.rewind().expect("it is all there"));
        let failures = guest.store.data().failures;
        assert_eq!(result, sum(1, if failures > 0 { FAILED } else { 5 }), "{size} bytes");
        assert_eq!(guest.state(), ForkState::Normal);
        assert!(guest.read(0, 256).iter().all(|&b| b == 0x11), "{size} bytes: the bottom of the memory was written");
        let before = guest.read(end - 2 * ENOUGH, (2 * ENOUGH - size) as usize);
        assert!(before.iter().all(|&b| b == 0x22), "{size} bytes: what lies before the buffer was written");
        let after = guest.read(end, behind as usize);
        assert!(after.iter().all(|&b| b == 0x33), "{size} bytes: what lies behind the buffer was written");
        failed += failures;
        made += u64::from(failures == 0);
    }
    (failed, made)
}

#[test]
fn a_buffer_can_end_at_the_last_address_of_a_full_32_bit_memory() {
    let mut guest = guest("65536", &[]);
    let (failed, made) = at_every_size_below(&mut guest, u64::from(u32::MAX), false);
    assert!(failed > 40 && made > 20, "{failed} failed, {made} were made");
}

#[test]
fn a_buffer_without_bound_ends_at_the_last_address_of_a_full_32_bit_memory() {
    let mut guest = guest("65536", &[]);
    for distance in 8..=ENOUGH {
        let address = (1 << 32) - distance;
        guest.write(0, &[0x11; 256]);
        let host = guest.store.data_mut();
        // `Buffer` has no end there, so this writes it.
        (host.buffer, host.forks, host.answer) = (Buffer { address, size: 1 << 32, wide: false }, false, 5);
        guest.write(address, &[0; 8]);
        let begin = guest.instance.get_typed_func::<u32, ()>(&mut guest.store, "wpk_fork_unwind_begin").unwrap();
        begin.call(&mut guest.store, address as u32).unwrap();
        if guest.state() == ForkState::Unwinding {
            guest.exports.unwind_end(&mut guest.store).unwrap();
        }
        assert!(guest.read(0, 256).iter().all(|&b| b == 0x11), "at 2^32 - {distance}");
    }
    assert_eq!(guest.call(ROUNDS).unwrap(), sum(ROUNDS, 5));
}

#[test]
fn a_buffer_without_bound_at_the_end_of_a_full_32_bit_memory_does_not_wrap_around() {
    // The innermost frame is the largest, so that it can end where the memory does.
    let program = RECURSION_BY_TABLE.replace(r#"(memory (export "memory") 1)"#, r#"(memory (export "memory") 65536)"#);
    let mut guest = Guest::new(&engine(STACK), &instrument(&program, &[]));
    let mut made = 0;
    for size in 8..=2 * ENOUGH {
        // Its end is 2^32, which the module reads as no bound.
        let buffer = Buffer { address: (1 << 32) - size, size, wide: false };
        guest.write(0, &[0; 256]);
        let host = guest.store.data_mut();
        (host.buffer, host.forks, host.answer, host.failures) = (buffer, true, 5, 0);
        let result = guest.unwind(1).unwrap_or_else(|| guest.rewind().expect("it is all there"));
        let failures = guest.store.data().failures;
        assert_eq!(result, sum(1, if failures > 0 { FAILED } else { 5 }), "{size} bytes");
        assert!(guest.read(0, 256).iter().all(|&b| b == 0), "{size} bytes: the bottom of the memory was written");
        made += u64::from(failures == 0);
    }
    assert!(made > 0 && made < 2 * ENOUGH - 40, "{made} forks were made");
}

#[test]
fn a_buffer_can_end_where_a_64_bit_memory_ends() {
    let mut guest = guest("i64 2", &[]);
    let (failed, made) = at_every_size_below(&mut guest, 2 * 65536, true);
    assert!(failed > 40 && made > 20, "{failed} failed, {made} were made");
}

#[test]
fn an_end_at_the_top_of_the_64_bit_address_space_does_not_wrap_around() {
    let mut guest = guest("i64 2", &[]);
    let address = 1024;
    for size in [u64::MAX - address, u64::MAX - address - 7] {
        let host = guest.store.data_mut();
        (host.buffer, host.answer) = (Buffer { address, size, wide: true }, 5);
        assert_eq!(guest.fork_and_follow_parent(ROUNDS), sum(ROUNDS, 5));
        assert_eq!(guest.store.data().failures, 0);
    }
    // The host promises more than there is: a trap, and nothing elsewhere is written.
    for distance in 16..ENOUGH {
        guest.write(0, &[0x11; 256]);
        let host = guest.store.data_mut();
        let address = 2 * 65536 - distance;
        (host.buffer, host.forks) = (Buffer { address, size: u64::MAX - address, wide: true }, true);
        let child = guest.child();
        let end = { child }.call(1);
        if let Err(error) = end {
            assert_eq!(error.downcast_ref(), Some(&Trap::MemoryOutOfBounds), "{error:?}");
        }
        assert!(guest.read(0, 256).iter().all(|&b| b == 0x11));
    }
}

#[test]
fn an_end_before_the_buffer_is_no_room() {
    for (pages, wide) in [("2", false), ("i64 2", true)] {
        let mut guest = guest(pages, &[]);
        guest.store.data_mut().answer = 5;
        let pointer = if wide { 8 } else { 4 };
        let mut end = [0; 8];
        end[..2].copy_from_slice(&1000_u16.to_le_bytes());
        guest.write(1024 + pointer, &end[..pointer as usize]);
        match wide {
            true => guest
                .instance
                .get_typed_func::<u64, ()>(&mut guest.store, "wpk_fork_unwind_begin")
                .unwrap()
                .call(&mut guest.store, 1024),
            false => guest
                .instance
                .get_typed_func::<u32, ()>(&mut guest.store, "wpk_fork_unwind_begin")
                .unwrap()
                .call(&mut guest.store, 1024),
        }
        .unwrap();
        assert_eq!(guest.state(), ForkState::Normal);
        assert_eq!(guest.call(ROUNDS).unwrap(), sum(ROUNDS, 5));
    }
}

#[test]
fn a_fork_that_failed_succeeds_from_the_same_place_in_a_larger_buffer() {
    for (pages, wide) in [("1", false), ("i64 1", true)] {
        let mut guest = guest(pages, &[]);
        for size in 0..ENOUGH {
            let host = guest.store.data_mut();
            (host.buffer, host.larger) =
                (Buffer { address: 1024, size, wide }, Some(Buffer { address: 2048, size: 2 * ENOUGH, wide }));
            (host.answer, host.forks) = (5, true);
            if let Some(result) = guest.unwind(1) {
                panic!("{size} bytes: it was not forked, and returned {result}");
            }
            assert_eq!(guest.rewind().unwrap(), sum(1, 5), "{size} bytes");
            assert_eq!(guest.store.data().failures, 0);
        }
    }
}

#[test]
fn a_million_failing_forks_in_a_loop_keep_the_stack_flat() {
    const MILLION: i32 = 1_000_000;
    let mut guest = guest("1", &[]);
    // Too small to begin; for the inner frame; for both.
    for size in [12, 34, 44] {
        let host = guest.store.data_mut();
        (host.buffer, host.forks, host.failures) = (Buffer { address: 1024, size, wide: false }, true, 0);
        assert_eq!(guest.unwind(MILLION), Some(sum(MILLION, FAILED)), "{size} bytes");
        assert_eq!(guest.store.data().failures, MILLION as u64);
        guest.store.set_fuel(10_000_000_000).unwrap();
    }
}

#[test]
fn failing_forks_keep_the_stack_flat_whichever_activation_of_a_function_does_not_fit() {
    const MANY: i32 = 100_000;
    let mut guest = Guest::new(&engine(STACK), &instrument(RECURSION_BY_TABLE, &[]));
    let mut sizes = 0;
    for size in (8..).step_by(3) {
        let host = guest.store.data_mut();
        (host.buffer, host.forks, host.failures) = (Buffer { address: 1024, size, wide: false }, true, 0);
        match guest.unwind(MANY) {
            Some(result) => assert_eq!(result, sum(MANY, FAILED), "{size} bytes"),
            // It fits: all later ones do, too.
            None => break,
        }
        assert_eq!(guest.store.data().failures, MANY as u64);
        guest.store.set_fuel(10_000_000_000).unwrap();
        sizes += 1;
    }
    // Each of six frames is the first one that does not fit at some of them.
    assert!(sizes > 20, "{sizes} sizes");
}
