//! Other modules share a program's types by what they are and the groups that they are in: instrumenting keeps both.

mod support;

use support::{ALL, Scratch};
use wasmtime::{Config, Engine, Instance, Module, Store, Table, Val};

/// What a module that calls through its table expects there. Optimisers find out that `$inner` is given a `$cell` and
/// nothing below it, which is said in its type.
const PROGRAM: &str = r#"(module
    (type $cell (sub (struct (field (mut i32)))))
    (rec (type $scale (func (param i32) (result i32))) (type $other (struct (field i32))))
    (import "kernel" "kernel_fork" (func $fork (result i32)))
    (memory (export "memory") 4)
    (table (export "table") 2 funcref)
    (elem (i32.const 0) func $scale $cell)
    (func $scale (type $scale) (i32.mul (local.get 0) (i32.const 11)))
    (func $cell (result anyref) (struct.new $cell (i32.const 5)))
    (func $inner (param $cell (ref null $cell)) (result i32)
        (struct.set $cell 0 (local.get $cell) (call $fork))
        (struct.get $cell 0 (local.get $cell)))
    (func (export "run") (result i32)
        (i32.add (call $inner (struct.new $cell (i32.const 1))) (call $inner (struct.new $cell (i32.const 2))))))"#;

const USER: &str = r#"(module
    (type $cell (sub (struct (field (mut i32)))))
    (rec (type $scale (func (param i32) (result i32))) (type $other (struct (field i32))))
    (import "program" "table" (table 2 funcref))
    (func (export "use") (result i32)
        (i32.add
            (call_indirect (type $scale) (i32.const 4) (i32.const 0))
            (struct.get $cell 0 (ref.cast (ref $cell) (call_indirect (result anyref) (i32.const 1)))))))"#;

/// What another module gets from the program.
fn used(program: &[u8]) -> i32 {
    let engine = Engine::new(Config::new().wasm_gc(true).wasm_function_references(true)).expect("a configuration");
    let mut store = Store::new(&engine, ());
    let program = Module::new(&engine, program).expect("a module");
    let fork = wasmtime::Func::wrap(&mut store, || 0_i32);
    let program = Instance::new(&mut store, &program, &[fork.into()]).expect("it has its import");
    let table: Table = program.get_table(&mut store, "table").expect("it exports a table");
    let user = Module::new(&engine, USER).expect("a module");
    let user = Instance::new(&mut store, &user, &[table.into()]).expect("it has its table");
    let mut results = [Val::I32(0)];
    let used = user.get_func(&mut store, "use").expect("it has that").call(&mut store, &[], &mut results);
    used.expect("types are those that the other module has");
    results[0].unwrap_i32()
}

#[test]
fn other_modules_have_the_types_of_an_optimised_program() {
    for passes in [&["--dae"][..], &["-O2"], &["-O3", "--local-subtyping"], &["-Oz"]] {
        for resume in [&[][..], &["--pass-arg=fork-instrument-resume@resume.wasm"]] {
            let scratch = Scratch::with("in.wat", PROGRAM);
            let before = [&ALL[..], &["in.wat", "-S", "-o", "-"], passes].concat();
            let text = scratch.run(&before).succeeded().text();
            assert!(text.contains("(param (ref (exact $cell)))"), "nothing gives up being exact: {text}");
            let options = ["--disable-custom-descriptors", "in.wat", "-o", "out.wasm"];
            let ours = ["--fork-instrument", "--pass-arg=fork-instrument-refs@tables"];
            scratch.run(&[&ALL[..], &options, passes, &ours, resume].concat()).succeeded();
            assert_eq!(used(&scratch.read("out.wasm")), 4 * 11 + 5, "after {passes:?}");
        }
    }
}
