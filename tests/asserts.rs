//! `asserts`: what is wrong with lists, hosts and frames traps under a name that says so.

mod support;

use support::{ALL, Scratch};
use wasmtime::{Caller, Engine, Instance, Linker, Module, Result, Store};

const BUFFER: i32 = 1024;

/// What the host does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Host {
    #[default]
    Right,
    /// Calls back into the program while it is unwinding.
    CallsBack,
    /// Does not end the rewind.
    ForgetsTheEnd,
    /// Ends the rewind before the program is called again.
    EndsAtOnce,
    /// Says that no frame was saved.
    LosesFrames,
    /// Puts another function's number into the innermost frame.
    ChangesFunction,
    /// Fills the frames with what is no function's number.
    Overwrites,
}

const PROGRAM: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "env" "invoke" (func $invoke (result i32)))
  (memory (export "memory") 1)
  (table 1 funcref)
  (elem (i32.const 0) $other)
  (func $inner (result i32) (i32.add (call $fork) (i32.const 1)))
  (func $other (export "other") (result i32) (i32.mul (call $fork) (i32.const 2)))
  (func $run (export "run") (result i32) (i32.add (call $inner) (i32.const 10)))
  (func (export "through_host") (result i32) (i32.add (call $invoke) (i32.const 100))))"#;

struct Program {
    store: Store<Host>,
    instance: Instance,
}

impl Program {
    fn new(host: Host, options: &[&str]) -> Program {
        let scratch = Scratch::with("in.wat", PROGRAM);
        let base = ["in.wat", "-g", "--fork-instrument", "--pass-arg=fork-instrument-asserts", "-o", "out.wasm"];
        scratch.run(&[&ALL[..], &base, options].concat()).succeeded();
        let engine = Engine::default();
        let module = Module::new(&engine, scratch.read("out.wasm")).expect("the output is valid");
        let mut store = Store::new(&engine, host);
        let mut linker = Linker::new(&engine);
        linker.func_wrap("kernel", "kernel_fork", fork).expect("a new name");
        let invoke = |mut caller: Caller<'_, Host>| call(&mut caller, "run");
        linker.func_wrap("env", "invoke", invoke).expect("a new name");
        let instance = linker.instantiate(&mut store, &module).expect("it instantiates");
        Program { store, instance }
    }

    fn call(&mut self, name: &str) -> Result<i32> {
        self.instance.get_typed_func::<(), i32>(&mut self.store, name)?.call(&mut self.store, ())
    }

    fn transition(&mut self, name: &str) -> Result<()> {
        if name.ends_with("begin") {
            let function = self.instance.get_typed_func::<i32, ()>(&mut self.store, name)?;
            return function.call(&mut self.store, BUFFER);
        }
        self.instance.get_typed_func::<(), ()>(&mut self.store, name)?.call(&mut self.store, ())
    }

    /// Runs an export over one fork.
    fn run(&mut self, export: &str) -> Result<i32> {
        let memory = self.instance.get_memory(&mut self.store, "memory").expect("exported");
        self.call(export)?;
        self.transition("wpk_fork_unwind_end")?;
        let top = u32::from_le_bytes(memory.data(&self.store)[BUFFER as usize..][..4].try_into()?) as usize;
        let start = BUFFER as u32 + 8;
        match *self.store.data() {
            Host::LosesFrames => memory.write(&mut self.store, BUFFER as usize, &start.to_le_bytes())?,
            Host::ChangesFunction => {
                // The innermost frame, of a function with one landing and no locals: two bytes for the function.
                let number = start as usize;
                assert!(number + 2 < top);
                let old = memory.data(&self.store)[number];
                memory.data_mut(&mut self.store)[number] = (old + 1) % 3;
            }
            Host::Overwrites => memory.data_mut(&mut self.store)[start as usize..top].fill(0xee),
            _ => {}
        }
        self.transition("wpk_fork_rewind_begin")?;
        if *self.store.data() == Host::EndsAtOnce {
            self.transition("wpk_fork_rewind_end")?;
        }
        self.call(export)
    }

    /// The name in the backtrace, and the code.
    fn failure(mut self, export: &str) -> (String, i32) {
        let error = self.run(export).expect_err("an assertion fails");
        self.told(&error)
    }

    /// What an error says.
    fn told(mut self, error: &wasmtime::Error) -> (String, i32) {
        let text = format!("{error:?}");
        let name = text.split_once("fork.assert: ").map(|(_, rest)| rest.lines().next().unwrap_or_default().to_owned());
        let code = self.call("wpk_fork_assert").expect("the code can be read after the trap");
        (name.unwrap_or(text), code)
    }
}

fn call(caller: &mut Caller<'_, Host>, name: &str) -> Result<i32> {
    let function = caller.get_export(name).and_then(|e| e.into_func()).expect("exported");
    function.typed::<(), i32>(&mut *caller)?.call(&mut *caller, ())
}

fn fork(mut caller: Caller<'_, Host>) -> Result<i32> {
    let export = |caller: &mut Caller<'_, Host>, name| caller.get_export(name).and_then(|e| e.into_func()).expect(name);
    match call(&mut caller, "wpk_fork_state")? {
        0 => {
            let begin = export(&mut caller, "wpk_fork_unwind_begin");
            begin.typed::<i32, ()>(&caller)?.call(&mut caller, BUFFER)?;
            if *caller.data() == Host::CallsBack {
                call(&mut caller, "other")?;
            }
            Ok(-1)
        }
        _ => {
            if *caller.data() != Host::ForgetsTheEnd {
                let end = export(&mut caller, "wpk_fork_rewind_end");
                end.typed::<(), ()>(&caller)?.call(&mut caller, ())?;
            }
            Ok(42)
        }
    }
}

#[track_caller]
fn assert_fails(host: Host, options: &[&str], export: &str, name: &str, code: i32) {
    for after in [&[][..], &["-O2"]] {
        let (found, found_code) = Program::new(host, &[options, after].concat()).failure(export);
        assert!(found.contains(name), "{found}");
        assert_eq!(found_code, code, "{found}");
    }
}

#[test]
fn a_right_program_on_a_right_host_runs_as_without() {
    for after in [&[][..], &["-O2"]] {
        assert_eq!(Program::new(Host::Right, after).run("run").expect("it runs"), 53);
    }
}

#[test]
fn a_function_missing_from_the_path_is_told_when_it_forks() {
    let list = "--pass-arg=fork-instrument-removelist@inner";
    assert_fails(Host::Right, &[list], "run", "a call that was assumed not to fork did", 1);
}

#[test]
fn a_fork_through_frames_of_the_host_is_told() {
    assert_fails(Host::Right, &[], "through_host", "a fork through a host function that is no entry", 2);
}

#[test]
fn a_call_of_a_forking_function_during_a_fork_is_told() {
    assert_fails(Host::CallsBack, &[], "run", "a function of the fork path was entered during a fork", 3);
}

#[test]
fn the_frame_of_another_function_is_told() {
    assert_fails(Host::ChangesFunction, &[], "run", "frame of another function", 4);
}

#[test]
fn a_buffer_that_was_overwritten_is_told() {
    assert_fails(Host::Overwrites, &[], "run", "frame of another function", 4);
}

#[test]
fn a_rewind_without_frames_is_told() {
    assert_fails(Host::LosesFrames, &[], "run", "no frame is left", 5);
}

#[test]
fn a_rewind_that_ends_with_frames_left_is_told() {
    assert_fails(Host::EndsAtOnce, &[], "run", "the rewind ended with frames left", 6);
}

#[test]
fn an_entry_that_does_not_end_the_rewind_is_told() {
    assert_fails(Host::ForgetsTheEnd, &[], "run", "the entry did not end the rewind", 7);
}

#[test]
fn a_host_that_resumes_without_a_rewind_is_told() {
    for has_forked in [true, false] {
        let mut program = Program::new(Host::Right, &[]);
        if has_forked {
            assert_eq!(program.run("run").expect("it runs"), 53);
        }
        let error = program.call("wpk_fork_resume_i32").expect_err("an assertion fails");
        let (found, code) = program.told(&error);
        assert!(found.contains("resumed though not rewinding"), "{found}");
        assert_eq!(code, 8);
    }
}
