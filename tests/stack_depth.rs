//! How deep a recursive function gets on wasmtime's stack: without a fork as deep as without instrumentation; and where a
//! fork is still rewound.

mod support;

use support::{Scratch, read_in_repository};
use wasmtime::{AsContextMut, Caller, Engine, Instance, Linker, Module, Store, Trap, Val};

const OPTIONS: [&str; 3] = ["-g", "--enable-reference-types", "--fork-instrument"];

/// What the program returns that goes to a depth; nothing if it runs out of stack.
fn run<T: 'static>(store: &mut Store<T>, instance: &Instance, depth: i32) -> Option<i64> {
    let run = instance.get_typed_func::<i32, i64>(&mut *store, "run").expect("it has a run");
    match run.call(store, depth) {
        Ok(result) => Some(result),
        Err(error) => {
            assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::StackOverflow), "depth {depth}");
            None
        }
    }
}

/// The same without a fork.
fn reaches(engine: &Engine, module: &Module, depth: i32) -> Option<i64> {
    let mut linker = Linker::new(engine);
    linker.func_wrap("kernel", "kernel_fork", || 7).expect("a new name");
    let mut store = Store::new(engine, ());
    let instance = linker.instantiate(&mut store, module).expect("it instantiates");
    run(&mut store, &instance, depth)
}

/// Where the buffer is: behind the program's memory. It has room for 100,000 frames of 15 bytes.
const BUFFER: i32 = 2 << 16;
const BUFFER_PAGES: u64 = 24;

/// A program that forks once, and whether that is done.
#[derive(Default)]
struct Forking {
    instance: Option<Instance>,
    is_unwound: bool,
}

/// Calls a transition of the program's.
fn transition(mut store: impl AsContextMut<Data = Forking>, name: &str) {
    let instance = store.as_context().data().instance.expect("it was instantiated");
    let parameter = [Val::I32(BUFFER)];
    let parameters = if name.ends_with("_begin") { &parameter[..] } else { &[] };
    let function = instance.get_func(&mut store, name).expect("it is exported");
    function.call(store, parameters, &mut []).expect("it returns");
}

/// Whether a fork at a depth, where the stack is unwound, is rewound, and goes on to the end: the program may do nothing
/// but run out of stack.
fn rewinds(engine: &Engine, module: &Module, resume: Option<&Module>, depth: i32) -> bool {
    let mut linker = Linker::new(engine);
    let fork = |mut caller: Caller<'_, Forking>| {
        match std::mem::replace(&mut caller.data_mut().is_unwound, true) {
            true => transition(&mut caller, "wpk_fork_rewind_end"),
            false => transition(&mut caller, "wpk_fork_unwind_begin"),
        }
        7
    };
    linker.func_wrap("kernel", "kernel_fork", fork).expect("a new name");
    let mut store = Store::new(engine, Forking::default());
    let instance = linker.instantiate(&mut store, module).expect("it instantiates");
    store.data_mut().instance = Some(instance);
    let memory = instance.get_memory(&mut store, "memory").expect("it has a memory");
    memory.grow(&mut store, BUFFER_PAGES).expect("there is memory");
    if run(&mut store, &instance, depth).is_none() {
        return false;
    }
    assert!(store.data().is_unwound, "it forks");
    transition(&mut store, "wpk_fork_unwind_end");
    if let Some(resume) = resume {
        linker.instance(&mut store, "wpk_fork", instance).expect("new names");
        linker.instantiate(&mut store, resume).expect("it fits");
    }
    transition(&mut store, "wpk_fork_rewind_begin");
    let rewound = run(&mut store, &instance, depth);
    rewound.is_some_and(|rewound| {
        assert_eq!(Some(rewound), reaches(engine, module, depth), "depth {depth}");
        true
    })
}

/// The greatest depth that something gets to.
fn deepest(reaches: impl Fn(i32) -> bool) -> i32 {
    let (mut low, mut high) = (0, 1024);
    while reaches(high) {
        (low, high) = (high, high * 2);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if reaches(middle) { low = middle } else { high = middle }
    }
    low
}

/// A recursive function whose code refers to more than its frame: a table, a memory and other functions.
const VISIT: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (memory (export "memory") 2)
  (type $visit (func (param i32) (result i64)))
  (table 1 1 funcref)
  (elem (i32.const 0) $visit)
  (func $hash (param $x i32) (result i32) (i32.mul (local.get $x) (i32.const 0x9e3779b1)))
  (func $mix (param $x i32) (result i32) (i32.rotl (local.get $x) (i32.const 5)))
  (func $slot (param $x i32) (result i32) (i32.and (local.get $x) (i32.const 0xfffc)))
  (func $visit (type $visit) (param $depth i32) (result i64)
    (local $left i32) (local $sum i64)
    (local.set $left (call $hash (local.get $depth)))
    (if (local.get $depth)
      (then (local.set $sum
        (call_indirect (type $visit) (i32.sub (local.get $depth) (i32.const 1)) (i32.const 0))))
      (else (local.set $sum (i64.extend_i32_s (call $fork)))))
    (i32.store (call $slot (local.get $left)) (call $mix (local.get $depth)))
    (i64.add (i64.mul (local.get $sum) (i64.const 31))
      (i64.load32_u (call $slot (call $hash (local.get $left))))))
  (func (export "run") (param $depth i32) (result i64)
    (call $visit (local.get $depth))))"#;

/// A program as it is, instrumented, and in two modules.
fn variants(program: &str) -> (Engine, impl Fn(&str) -> Module + use<>) {
    let scratch = Scratch::with("in.wat", program);
    scratch.run(&["in.wat", "-o", "plain.wasm"]).succeeded();
    scratch.run(&[&["in.wat"], &OPTIONS[..], &["-o", "one.wasm"]].concat()).succeeded();
    let separate = "--pass-arg=fork-instrument-resume@resume.wasm";
    scratch.run(&[&["in.wat"], &OPTIONS[..], &[separate, "-o", "first.wasm"]].concat()).succeeded();
    let engine = Engine::default();
    let compile = {
        let engine = engine.clone();
        move |file: &str| Module::new(&engine, scratch.read(file)).expect("the module is valid")
    };
    (engine, compile)
}

/// Fails unless a fork is rewound at so many hundredths of the depth that the program gets to without instrumentation: in
/// one module, and in two.
fn expect_rewound(program: &str, percents: [i32; 2]) {
    let (engine, compile) = variants(program);
    let plain = compile("plain.wasm");
    let plain = deepest(|depth| reaches(&engine, &plain, depth).is_some());
    let (one, first, resume) = (compile("one.wasm"), compile("first.wasm"), compile("resume.wasm"));
    for (name, module, resume, percent) in [("one", one, None, percents[0]), ("two", first, Some(resume), percents[1])]
    {
        let depth = deepest(|depth| rewinds(&engine, &module, resume.as_ref(), depth));
        assert!(
            depth * 100 >= plain * percent,
            "in {name}: a fork is rewound at {depth} at most, the program gets to {plain} without instrumentation"
        );
    }
}

#[test]
fn a_fork_is_rewound_half_as_deep_as_the_program_gets_without_instrumentation() {
    // Frames of the resume function are larger by what it needs to be unwound again.
    expect_rewound(&read_in_repository("examples/benchmark_walk.wat"), [60, 45]);
}

#[test]
fn a_fork_is_rewound_as_deep_where_code_refers_to_memory_tables_and_functions() {
    expect_rewound(VISIT, [95, 75]);
}

#[test]
fn a_program_that_does_not_fork_recurses_as_deeply_as_without_instrumentation() {
    let (engine, compile) = variants(&read_in_repository("examples/benchmark_walk.wat"));
    let plain = compile("plain.wasm");
    let plain = deepest(|depth| reaches(&engine, &plain, depth).is_some());
    assert!(plain > 1000, "the uninstrumented program gets only to {plain}");
    for instrumented in ["one.wasm", "first.wasm"] {
        let module = compile(instrumented);
        let depth = deepest(|depth| reaches(&engine, &module, depth).is_some());
        // A root's wrapper has a frame of its own.
        assert!(
            depth * 100 >= plain * 99,
            "{instrumented}: {depth} calls fit on the stack, {plain} do without instrumentation"
        );
    }
}
