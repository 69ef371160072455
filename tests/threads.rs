//! Threads: several instances of one module share a memory, each on a thread of its own with a buffer of its own, and fork
//! independently.

mod support;

use std::sync::Barrier;
use std::thread;

use fork_host::engine::{Settings, engine};
use support::{ALL, Scratch};
use wasmtime::{Caller, Engine, Instance, Linker, MemoryType, Module, Result, SharedMemory, Store, TypedFunc};

const PAGES: u32 = 4;
const ROUNDS: i32 = 40;
/// Activations that a round has on the stack at its last fork.
const DEPTH: i32 = 5;

/// Counts in the shared memory before and after each fork: at 0 and 4 for all threads, at `$own` for one.
const PROGRAM: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "env" "memory" (memory 4 4 shared))
  (global $level (mut i32) (i32.const 0))
  (func $walk (param $own i32) (param $n i32) (result i32)
    (local $r i32) (local $seen i32)
    (global.set $level (i32.add (global.get $level) (i32.const 1)))
    (local.set $seen (i32.atomic.rmw.add (local.get $own) (i32.const 1)))
    (local.set $r
      (i32.add
        (i32.mul (i32.const 0) (i32.atomic.rmw.add (i32.const 0) (i32.const 1)))
        (call $fork)))
    (drop (i32.atomic.rmw.add (i32.const 4) (i32.const 1)))
    (if (local.get $n)
      (then
        (local.set $r
          (i32.add
            (i32.mul (local.get $r) (i32.const 3))
            (call $walk (local.get $own) (i32.sub (local.get $n) (i32.const 1)))))))
    (i32.add (local.get $r) (i32.mul (local.get $seen) (global.get $level))))
  (func (export "run") (param $own i32) (param $rounds i32) (param $depth i32) (result i32)
    (local $sum i32)
    (loop $again
      (local.set $sum (i32.add (local.get $sum) (call $walk (local.get $own) (local.get $depth))))
      (local.set $rounds (i32.sub (local.get $rounds) (i32.const 1)))
      (br_if $again (local.get $rounds)))
    (local.get $sum)))"#;

/// What the host does to a memory that only wasm can touch while threads run.
const ACCESS: &str = r#"(module
  (import "env" "memory" (memory 4 4 shared))
  (func (export "load") (param i32) (result i32) (i32.atomic.load (local.get 0)))
  (func (export "store") (param i32 i32) (i32.atomic.store (local.get 0) (local.get 1))))"#;

const COPY: &str = r#"(module
  (import "env" "from" (memory $from 4 4 shared))
  (import "env" "to" (memory $to 4 4 shared))
  (func (export "copy")
    (memory.copy $to $from (i32.const 0) (i32.const 0) (i32.const 262144))))"#;

/// One thread of the program.
#[derive(Clone, Copy)]
struct Thread {
    own: i32,
    buffer: i32,
}

const THREADS: [Thread; 2] = [Thread { own: 16, buffer: 65536 }, Thread { own: 32, buffer: 131072 }];
const BUFFER_SIZE: i32 = 4096;

/// What happens at a fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// Nothing.
    Stay,
    Unwind,
}

struct World {
    at: At,
    forks: i32,
    buffer: i32,
    access: Option<Instance>,
    instance: Option<Instance>,
}

struct Modules {
    engine: Engine,
    program: Module,
    access: Module,
    copy: Module,
}

impl Modules {
    fn new() -> Modules {
        let scratch = Scratch::with("in.wat", PROGRAM);
        scratch.run(&[&ALL[..], &["in.wat", "--fork-instrument", "-O2", "-o", "out.wasm"]].concat()).succeeded();
        let settings = Settings { optimize: false, fuel: false, epochs: false, stack: 1 << 20 };
        let engine = engine(settings).expect("an engine");
        let module = |wasm: &[u8]| Module::new(&engine, wasm).expect("the module is valid");
        let program = module(&scratch.read("out.wasm"));
        let (access, copy) = (module(ACCESS.as_bytes()), module(COPY.as_bytes()));
        Modules { engine, program, access, copy }
    }

    fn memory(&self) -> SharedMemory {
        SharedMemory::new(&self.engine, MemoryType::shared(PAGES, PAGES)).expect("a shared memory")
    }

    fn start(&self, memory: &SharedMemory, thread: Thread, at: At) -> Result<Store<World>> {
        let world = World { at, forks: 0, buffer: thread.buffer, access: None, instance: None };
        let mut store = Store::new(&self.engine, world);
        let mut linker = Linker::new(&self.engine);
        linker.define(&store, "env", "memory", memory.clone())?;
        linker.func_wrap("kernel", "kernel_fork", fork)?;
        let access = linker.instantiate(&mut store, &self.access)?;
        let instance = linker.instantiate(&mut store, &self.program)?;
        (store.data_mut().access, store.data_mut().instance) = (Some(access), Some(instance));
        Ok(store)
    }

    fn copy_memory(&self, from: &SharedMemory, to: &SharedMemory) -> Result<()> {
        let mut store = Store::new(&self.engine, ());
        let mut linker = Linker::new(&self.engine);
        linker.define(&store, "env", "from", from.clone())?.define(&store, "env", "to", to.clone())?;
        let instance = linker.instantiate(&mut store, &self.copy)?;
        instance.get_typed_func::<(), ()>(&mut store, "copy")?.call(&mut store, ())
    }

    fn load(&self, memory: &SharedMemory, address: i32) -> i32 {
        let mut store = self.start(memory, THREADS[0], At::Stay).expect("it starts");
        let load = access(&mut store, "load");
        load.call(&mut store, address).expect("the address is inside")
    }
}

fn access(store: &mut Store<World>, name: &str) -> TypedFunc<i32, i32> {
    let instance = store.data().access.expect("it has started");
    instance.get_typed_func(store, name).expect("exported")
}

fn transition(mut store: impl wasmtime::AsContextMut<Data = World>, name: &str) -> Result<()> {
    let instance = store.as_context().data().instance.expect("it has started");
    instance.get_typed_func::<(), ()>(&mut store, name)?.call(&mut store, ())
}

fn begin(mut store: impl wasmtime::AsContextMut<Data = World>, name: &str) -> Result<()> {
    let (instance, buffer) =
        (store.as_context().data().instance.expect("it has started"), store.as_context().data().buffer);
    instance.get_typed_func::<i32, ()>(&mut store, name)?.call(&mut store, buffer)
}

fn state(mut store: impl wasmtime::AsContextMut<Data = World>) -> Result<i32> {
    let instance = store.as_context().data().instance.expect("it has started");
    instance.get_typed_func::<(), i32>(&mut store, "wpk_fork_state")?.call(&mut store, ())
}

/// The entry import.
fn fork(mut caller: Caller<'_, World>) -> Result<i32> {
    if state(&mut caller)? != 0 {
        transition(&mut caller, "wpk_fork_rewind_end")?;
        return Ok(caller.data().forks);
    }
    caller.data_mut().forks += 1;
    if caller.data().at == At::Unwind {
        let (buffer, helper) = (caller.data().buffer, caller.data().access.expect("it has started"));
        let store = helper.get_typed_func::<(i32, i32), ()>(&mut caller, "store")?;
        store.call(&mut caller, (buffer + 4, buffer + BUFFER_SIZE))?;
        begin(&mut caller, "wpk_fork_unwind_begin")?;
        assert_eq!(state(&mut caller)?, 1, "the buffer is large enough");
    }
    Ok(caller.data().forks)
}

fn call(store: &mut Store<World>, thread: Thread) -> Result<i32> {
    let instance = store.data().instance.expect("it has started");
    let run = instance.get_typed_func::<(i32, i32, i32), i32>(&mut *store, "run")?;
    run.call(store, (thread.own, ROUNDS, DEPTH - 1))
}

/// A thread from its start to its end. At every other fork it goes on in a fresh instance, on the same memory. `at_fork` is
/// called when the stack is unwound.
fn run(
    modules: &Modules,
    memory: &SharedMemory,
    thread: Thread,
    at: At,
    mut at_fork: impl FnMut(&World) -> Result<()>,
) -> Result<i32> {
    let mut store = modules.start(memory, thread, at)?;
    loop {
        let result = call(&mut store, thread)?;
        if state(&mut store)? == 0 {
            assert_eq!(store.data().forks, ROUNDS * DEPTH);
            return Ok(result);
        }
        transition(&mut store, "wpk_fork_unwind_end")?;
        at_fork(store.data())?;
        if store.data().forks % 2 == 1 {
            let forks = store.data().forks;
            store = modules.start(memory, thread, at)?;
            store.data_mut().forks = forks;
        }
        begin(&mut store, "wpk_fork_rewind_begin")?;
    }
}

/// Results of the two threads, and the counts of both.
fn run_both(modules: &Modules, at: At) -> ([i32; 2], [i32; 2]) {
    let (memory, barrier) = (modules.memory(), Barrier::new(2));
    let results = thread::scope(|scope| {
        let start = |one: Thread| {
            let (memory, barrier) = (&memory, &barrier);
            scope.spawn(move || {
                barrier.wait();
                run(modules, memory, one, at, |_| Ok(())).expect("it runs")
            })
        };
        THREADS.map(start).map(|thread| thread.join().expect("it does not panic"))
    });
    (results, [0, 4].map(|address| modules.load(&memory, address)))
}

#[test]
fn two_threads_with_a_buffer_each_fork_independently() {
    let modules = Modules::new();
    let (plain, counts) = run_both(&modules, At::Stay);
    assert_eq!(counts, [2 * ROUNDS * DEPTH; 2]);
    let (forked, counts) = run_both(&modules, At::Unwind);
    assert_eq!(forked, plain);
    assert_eq!(counts, [2 * ROUNDS * DEPTH; 2], "no atomic operation was lost or made twice");
}

#[test]
fn the_child_of_one_thread_has_a_memory_of_its_own_while_the_other_thread_runs() {
    let modules = Modules::new();
    let (plain, _) = run_both(&modules, At::Stay);
    let (memory, barrier) = (modules.memory(), Barrier::new(2));
    let [forking, other] = THREADS;
    let mut children = 0;
    let results = thread::scope(|scope| {
        let (memory, barrier, modules) = (&memory, &barrier, &modules);
        let other = scope.spawn(move || {
            barrier.wait();
            run(modules, memory, other, At::Unwind, |_| Ok(())).expect("it runs")
        });
        barrier.wait();
        let spawn_child = |parent: &World| -> Result<()> {
            // Some of the forks: each child runs to its end.
            if parent.forks % 17 != 3 {
                return Ok(());
            }
            let own = modules.memory();
            modules.copy_memory(memory, &own)?;
            let mut child = modules.start(&own, forking, At::Stay)?;
            child.data_mut().forks = parent.forks;
            let before = modules.load(&own, forking.own);
            begin(&mut child, "wpk_fork_rewind_begin")?;
            assert_eq!(call(&mut child, forking)?, plain[0], "the child");
            assert_eq!(before, parent.forks);
            assert_eq!(modules.load(&own, forking.own), ROUNDS * DEPTH, "the child's own count");
            children += 1;
            Ok(())
        };
        let result = run(modules, memory, forking, At::Unwind, spawn_child).expect("it runs");
        [result, other.join().expect("it does not panic")]
    });
    assert!(children > 5, "{children} children");
    assert_eq!(results, plain);
    assert_eq!([0, 4].map(|address| modules.load(&memory, address)), [2 * ROUNDS * DEPTH; 2]);
}
