//! Frames lie in memory that the program can write. Whatever is written there, a rewind ends: it returns, or traps.

use fork_host::protocol::{Buffer, ForkState};
use wasmtime::Trap;

use crate::guest::{Guest, engine, instrument};

const BUFFER: Buffer = Buffer { address: 1024, size: 4096, wide: false };
/// More than the program needs, less than it could use up without end.
const FUEL: u64 = 100_000;

/// Several sites in one function, with frames of different masks; several functions; an indirect call.
const PROGRAM: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
  (memory (export "memory") 1)
  (table 2 2 funcref)
  (elem (i32.const 0) func $inner $other)
  (type $f (func (param i32) (result i32)))
  (func $inner (type $f) (local $a i64) (local $b f64)
    (local.set $a (i64.const 5))
    (drop (call $fork (i32.const 1)))
    (local.set $b (f64.const 2.5))
    (drop (call $fork (i32.const 2)))
    (drop (call $fork (i32.const 3)))
    (i32.add (i32.wrap_i64 (local.get $a)) (i32.trunc_sat_f64_s (f64.add (local.get $b) (f64.convert_i32_s (local.get 0))))))
  (func $other (type $f)
    (i32.mul (local.get 0) (call $fork (i32.const 4))))
  (func (export "run") (param $n i32) (result i64) (local $sum i32)
    (local.set $n (i32.and (local.get $n) (i32.const 3)))
    (loop $again
      (local.set $sum (i32.add (local.get $sum) (call_indirect (type $f) (local.get $sum) (i32.and (local.get $n) (i32.const 1)))))
      (br_if $again (i32.and (i32.const 3) (local.tee $n (i32.add (local.get $n) (i32.const 1))))))
    (i64.extend_i32_s (local.get $sum))))"#;

/// Ends that hosts see as ends of the program.
#[derive(Default, Debug)]
struct Ends {
    returned: u32,
    trapped: u32,
}

/// Rewinds the child of a process whose buffer is changed.
fn rewind(guest: &mut Guest, saved: &[u8], at: usize, value: u8, ends: &mut Ends) {
    guest.write(BUFFER.address, saved);
    guest.write(BUFFER.address + at as u64, &[value]);
    guest.store.set_fuel(FUEL).unwrap();
    match guest.rewind() {
        Ok(_) => ends.returned += 1,
        Err(error) => {
            let trap = error.downcast_ref::<Trap>().unwrap_or_else(|| panic!("byte {at} is {value}: {error:?}"));
            assert_ne!(*trap, Trap::OutOfFuel, "byte {at} is {value}: it does not end");
            ends.trapped += 1;
            guest.store.set_fuel(FUEL).unwrap();
            if guest.state() != ForkState::Normal {
                guest.exports.rewind_end(&mut guest.store).unwrap();
            }
        }
    }
}

#[test]
fn whatever_one_byte_of_a_buffer_is_changed_to_a_rewind_ends() {
    let without_reference_types = ["--enable-bulk-memory", "--enable-sign-ext", "--enable-nontrapping-float-to-int"];
    for options in [&[][..], &without_reference_types, &without_reference_types[1..]] {
        let mut guest = Guest::new(&engine(64 << 10), &instrument(PROGRAM, options));
        let host = guest.store.data_mut();
        (host.buffer, host.forks, host.answer, host.tolerant) = (BUFFER, true, 1, true);
        assert_eq!(guest.unwind(0), None);
        let top = u32::from_le_bytes(guest.read(BUFFER.address, 4).try_into().unwrap());
        let saved = guest.read(BUFFER.address, (top as u64 - BUFFER.address) as usize);
        let mut ends = Ends::default();
        for at in (0..4).chain(8..saved.len()) {
            for value in 0..=255 {
                rewind(&mut guest, &saved, at, value, &mut ends);
            }
        }
        // Else the changes are lost on the way.
        assert!(ends.returned > 100 && ends.trapped > 100, "{options:?}: {ends:?}");
    }
}

/// A call through the table with an index that the program has no function for.
const WILD: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (param i32) (result i32)))
  (memory (export "memory") 1)
  (table 1 1 funcref)
  (elem (i32.const 0) func $inner)
  (type $f (func (result i64)))
  (func $inner (type $f) (i64.extend_i32_s (call $fork (i32.const 1))))
  (func (export "run") (param $n i32) (result i64)
    (i64.add (i64.const 1) (call_indirect (type $f) (local.get $n)))))"#;

#[test]
fn an_index_past_the_table_of_the_program_traps_though_resume_functions_are_there() {
    let wasm = instrument(WILD, &["--enable-bulk-memory", "--enable-sign-ext"]);
    let mut guest = Guest::new(&engine(64 << 10), &wasm);
    let host = guest.store.data_mut();
    (host.buffer, host.answer) = (BUFFER, 5);
    assert_eq!(guest.call(0).unwrap(), 6);
    for index in 1..8 {
        let error = guest.call(index).expect_err("there is no such function");
        assert!(error.downcast_ref::<Trap>().is_some(), "{error:?}");
        assert_eq!(guest.state(), ForkState::Normal);
    }
    assert_eq!(guest.fork_and_follow_parent(0), 6);
}
