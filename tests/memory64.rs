//! A buffer above 4 GiB in a memory with pointers of 64 bits. The memory is reserved, not filled.

mod support;

use fork_host::engine::{Settings, engine};
use fork_host::protocol::{Buffer, ForkExports, ForkState};
use support::{ALL, Scratch};
use wasmtime::{Caller, Linker, Memory, Module, Result, Store};

const GIB: u64 = 1 << 30;
/// A little more than 4 GiB.
const PAGES: u64 = 65536 + 32;
const BUFFER: u64 = 4 * GIB + 65536 + 13;

/// Its data is above 4 GiB as well; addresses that lose their upper half hit the bytes that it checks at last.
const PROGRAM: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (param i64) (result i64)))
  (memory (export "memory") i64 PAGES)
  (global $sum (mut i64) (i64.const 7))
  (func $walk (param $at i64) (param $n i64) (result i64)
    (local $r i64)
    (i64.store (local.get $at) (i64.mul (local.get $n) (i64.const 11)))
    (global.set $sum (i64.add (global.get $sum) (local.get $n)))
    (i64.store offset=4294967296
      (i64.sub (local.get $at) (i64.const 4294967288))
      (i64.add (call $fork (local.get $at)) (local.get $n)))
    (if (i64.ne (local.get $n) (i64.const 0))
      (then
        (local.set $r
          (i64.add
            (local.get $at)
            (call $walk (i64.add (local.get $at) (i64.const 64)) (i64.sub (local.get $n) (i64.const 1)))))))
    (i64.add
      (i64.add (local.get $r) (i64.load (local.get $at)))
      (i64.add (i64.load (i64.add (local.get $at) (i64.const 8))) (global.get $sum))))
  (func (export "run") (result i64)
    (call $walk (i64.const 0x100000100) (i64.const 9))))"#;

struct World {
    forking: bool,
    forks: u64,
    failed: u64,
    buffer: Buffer,
    memory: Option<Memory>,
    exports: Option<ForkExports>,
    arguments: Vec<i64>,
}

/// What the program forks with: a wrong argument on a rewind is a failure of the test.
fn fork(mut caller: Caller<'_, World>, address: i64) -> Result<i64> {
    let exports = caller.data().exports.clone().expect("it has started");
    let answer = |world: &World| world.forks as i64 * 1000;
    match exports.state(&mut caller)? {
        ForkState::Normal => {
            caller.data_mut().forks += 1;
            caller.data_mut().arguments.push(address);
            if caller.data().forking {
                let (buffer, memory) = (caller.data().buffer, caller.data().memory.expect("it has started"));
                let fits = exports.arm(&mut caller, memory, &buffer)?;
                caller.data_mut().failed += u64::from(!fits);
            }
        }
        state => {
            assert_eq!(caller.data().arguments.last(), Some(&address), "{state:?}");
            caller.data_mut().failed += u64::from(state == ForkState::Aborting);
            exports.rewind_end(&mut caller)?;
        }
    }
    Ok(answer(caller.data()))
}

struct Outcome {
    result: i64,
    failed: u64,
    /// The program's data.
    data: Vec<u8>,
}

/// Runs the program; at each fork it goes on in a fresh instance, with what it and the buffer wrote copied.
fn run(wasm: &[u8], room: Option<u64>) -> Result<Outcome> {
    let engine = engine(Settings { optimize: false, fuel: false, epochs: false, stack: 1 << 20 })?;
    let module = Module::new(&engine, wasm)?;
    let mut linker = Linker::new(&engine);
    linker.func_wrap("kernel", "kernel_fork", fork)?;
    let start = |forks, arguments, failed| -> Result<_> {
        let buffer = Buffer { address: BUFFER, size: room.unwrap_or(0), wide: true };
        let world = World { forking: room.is_some(), forks, failed, buffer, memory: None, exports: None, arguments };
        let mut store = Store::new(&engine, world);
        let instance = linker.instantiate(&mut store, &module)?;
        let memory = instance.get_memory(&mut store, "memory").expect("exported");
        let exports = ForkExports::find(&mut store, &instance)?;
        (store.data_mut().memory, store.data_mut().exports) = (Some(memory), Some(exports));
        Ok((store, instance, memory))
    };
    let (mut store, mut instance, mut memory) = start(0, Vec::new(), 0)?;
    loop {
        let result = instance.get_typed_func::<(), i64>(&mut store, "run")?.call(&mut store, ())?;
        let exports = store.data().exports.clone().expect("it has started");
        let high = |store: &Store<World>, memory: Memory| memory.data(store)[4 * GIB as usize..].to_vec();
        if exports.state(&mut store)? == ForkState::Normal {
            assert!(memory.data(&store)[..1 << 20].iter().all(|&byte| byte == 0), "nothing is written below 4 GiB");
            let mut data = high(&store, memory);
            data.truncate(65536);
            return Ok(Outcome { result, failed: store.data().failed, data });
        }
        exports.unwind_end(&mut store)?;
        let next = store.data().buffer.next_frame(&store, memory)?;
        assert!((BUFFER..BUFFER + room.unwrap_or(0)).contains(&next), "{next:#x}");
        let image = high(&store, memory);
        let (forks, arguments, failed) = (store.data().forks, store.data().arguments.clone(), store.data().failed);
        (store, instance, memory) = start(forks, arguments, failed)?;
        memory.data_mut(&mut store)[4 * GIB as usize..].copy_from_slice(&image);
        let (exports, buffer) = (store.data().exports.clone().expect("it has started"), store.data().buffer);
        exports.rewind_begin(&mut store, &buffer)?;
    }
}

fn instrument() -> Vec<u8> {
    let scratch = Scratch::with("in.wat", PROGRAM.replace("PAGES", &PAGES.to_string()));
    scratch.run(&[&ALL[..], &["in.wat", "--fork-instrument", "-o", "out.wasm"]].concat()).succeeded();
    scratch.read("out.wasm")
}

#[test]
fn a_buffer_above_4_gib_holds_frames_and_fails_forks_that_do_not_fit() {
    let wasm = instrument();
    let plain = run(&wasm, None).expect("it runs");
    let forked = run(&wasm, Some(4096)).expect("it runs");
    assert_eq!((forked.result, forked.failed), (plain.result, 0));
    assert!(forked.data == plain.data, "the data above 4 GiB");
    let mut partly = 0;
    for room in (0..400).step_by(7) {
        let outcome = run(&wasm, Some(room)).unwrap_or_else(|error| panic!("{room} bytes: {error:?}"));
        assert_eq!(outcome.result, plain.result, "{room} bytes");
        assert!(outcome.data == plain.data, "{room} bytes: the data above 4 GiB");
        partly += u64::from((1..10).contains(&outcome.failed));
    }
    assert!(partly > 0, "some forks of a run fit, and some do not");
}
