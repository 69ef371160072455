//! What a debugger sees of a program that has forked: a trap in a resume function is found in the source, frame by frame.

mod support;

use support::binary::{bodies, mappings};
use support::{ALL, Scratch};
use wasmtime::{Caller, Engine, Linker, Module, Store, WasmBacktrace};

const BUFFER: i32 = 1024;

/// Divides by its argument after the fork, two calls down.
const PROGRAM: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (memory (export "memory") 1)
  (func $deep (param $x i32) (result i32)
    (local $kept i32)
    ;;@ deep.c:3:7
    (local.set $kept (i32.mul (local.get $x) (i32.const 3)))
    ;;@ deep.c:4:9
    (drop (call $fork))
    ;;@ deep.c:5:11
    (i32.div_u (i32.const 100) (local.get $kept)))
  (func $run (export "run") (param $x i32) (result i32)
    ;;@ run.c:10:3
    (i32.add (local.get $x)
      ;;@ run.c:11:5
      (call $deep (local.get $x)))))"#;

fn fork(mut caller: Caller<'_, ()>) -> i32 {
    let mut function = |name| caller.get_export(name).and_then(|e| e.into_func()).expect(name);
    let (state, begin, end) =
        (function("wpk_fork_state"), function("wpk_fork_unwind_begin"), function("wpk_fork_rewind_end"));
    let state = state.typed::<(), i32>(&caller).expect("its type").call(&mut caller, ()).expect("it does not trap");
    if state == 0 {
        begin.typed::<i32, ()>(&caller).expect("its type").call(&mut caller, BUFFER).expect("the state is right");
    } else {
        end.typed::<(), ()>(&caller).expect("its type").call(&mut caller, ()).expect("the state is right");
    }
    0
}

/// The places in the source of a trap's frames, the innermost first; `-` for code without a source.
fn places_of_the_trap(passes: &[&str]) -> Vec<(String, String)> {
    let scratch = Scratch::with("in.wat", PROGRAM);
    scratch.run(&["in.wat", "-g", "-o", "in.wasm", "-osm", "in.map"]).succeeded();
    let files = ["in.wasm", "-g", "-ism", "in.map", "-o", "out.wasm", "-osm", "out.map"];
    scratch.run(&[&ALL[..], &files, passes].concat()).succeeded();
    let bytes = scratch.read("out.wasm");

    let engine = Engine::default();
    let module = Module::new(&engine, &bytes).expect("the output is valid");
    let mut store = Store::new(&engine, ());
    let mut linker = Linker::new(&engine);
    linker.func_wrap("kernel", "kernel_fork", fork).expect("a new name");
    let instance = linker.instantiate(&mut store, &module).expect("it instantiates");
    let run = instance.get_typed_func::<i32, i32>(&mut store, "run").expect("its type");
    run.call(&mut store, 0).expect("unwinding does not trap");
    let mut call = |name, argument: Option<i32>| match argument {
        Some(argument) => instance.get_typed_func::<i32, ()>(&mut store, name)?.call(&mut store, argument),
        None => instance.get_typed_func::<(), ()>(&mut store, name)?.call(&mut store, ()),
    };
    call("wpk_fork_unwind_end", None).expect("the state is right");
    call("wpk_fork_rewind_begin", Some(BUFFER)).expect("the state is right");
    let trap = run.call(&mut store, 0).expect_err("a division by zero");

    let (bodies, map) = (bodies(&bytes), mappings(&scratch.read_text("out.map")));
    let backtrace = trap.downcast_ref::<WasmBacktrace>().expect("a backtrace");
    let place = |frame: &wasmtime::FrameInfo| {
        let offset = frame.module_offset().expect("an offset");
        let body = &bodies[&frame.func_index()];
        assert!(body.contains(&offset), "{offset} is not in {body:?}");
        let before = map.iter().rfind(|m| m.offset <= offset).filter(|m| body.contains(&m.offset));
        before.and_then(|m| m.location.clone()).unwrap_or("-".into())
    };
    let name = |frame: &wasmtime::FrameInfo| frame.func_name().expect("names were asked for").to_owned();
    backtrace.frames().iter().map(|frame| (name(frame), place(frame))).collect()
}

#[test]
fn a_trap_after_a_rewind_is_found_in_the_source() {
    for passes in [&["--fork-instrument"][..], &["--fork-instrument", "--vacuum"]] {
        let places = places_of_the_trap(passes);
        let places: Vec<(&str, &str)> = places.iter().map(|(name, place)| (name.as_str(), place.as_str())).collect();
        let expected = [("deep.resume", "deep.c:5:11"), ("run.resume", "run.c:11:5"), ("run", "-")];
        assert_eq!(places, expected, "{passes:?}");
    }
}
