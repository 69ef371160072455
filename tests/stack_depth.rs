//! A recursive function that never forks gets as deep as without instrumentation, on wasmtime's stack.

mod support;

use support::{Scratch, read_in_repository};
use wasmtime::{Engine, Linker, Module, Store, Trap};

const OPTIONS: [&str; 3] = ["-g", "--enable-reference-types", "--fork-instrument"];

/// Whether the program gets to a depth; it may do nothing but run out of stack.
fn reaches(engine: &Engine, module: &Module, depth: i32) -> bool {
    let mut linker = Linker::new(engine);
    linker.func_wrap("kernel", "kernel_fork", || 7).expect("a new name");
    let mut store = Store::new(engine, ());
    let instance = linker.instantiate(&mut store, module).expect("it instantiates");
    let run = instance.get_typed_func::<i32, i64>(&mut store, "run").expect("it has a run");
    match run.call(&mut store, depth) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::StackOverflow), "depth {depth}");
            false
        }
    }
}

/// The greatest depth that the program gets to.
fn deepest(engine: &Engine, program: &[u8]) -> i32 {
    let module = Module::new(engine, program).expect("the module is valid");
    let (mut low, mut high) = (0, 1024);
    while reaches(engine, &module, high) {
        (low, high) = (high, high * 2);
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if reaches(engine, &module, middle) { low = middle } else { high = middle }
    }
    low
}

#[test]
fn a_program_that_does_not_fork_recurses_as_deeply_as_without_instrumentation() {
    let scratch = Scratch::with("in.wat", read_in_repository("examples/benchmark_walk.wat"));
    scratch.run(&["in.wat", "-o", "plain.wasm"]).succeeded();
    scratch.run(&[&["in.wat"], &OPTIONS[..], &["-o", "one.wasm"]].concat()).succeeded();
    let separate = "--pass-arg=fork-instrument-resume@resume.wasm";
    scratch.run(&[&["in.wat"], &OPTIONS[..], &[separate, "-o", "first.wasm"]].concat()).succeeded();

    let engine = Engine::default();
    let plain = deepest(&engine, &scratch.read("plain.wasm"));
    assert!(plain > 1000, "the uninstrumented program gets only to {plain}");
    for instrumented in ["one.wasm", "first.wasm"] {
        let depth = deepest(&engine, &scratch.read(instrumented));
        // A root's wrapper has a frame of its own.
        assert!(
            depth * 100 >= plain * 99,
            "{instrumented}: {depth} calls fit on the stack, {plain} do without instrumentation"
        );
    }
}
