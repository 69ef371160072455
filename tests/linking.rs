//! A main and a side module of dynamic linking, both instrumented, fork with frames of both on one stack.

mod support;

use support::{ALL, Scratch, in_repository, read_in_repository};
use wasmtime::{
    Caller, Engine, Global, GlobalType, Instance, Linker, Memory, Module, Mutability, Ref, RefType, Result, Store,
    Table, TableType, Val, ValType,
};

const BUFFER: u32 = 65536;
/// What the dynamic linker tells the side module, besides the main module's stack pointer: the same in every instance.
const PLACES: [(&str, &str, Mutability, i32); 4] = [
    ("env", "__memory_base", Mutability::Const, 2048),
    ("env", "__table_base", Mutability::Const, 1),
    ("GOT.mem", "calls", Mutability::Var, 1024),
    ("GOT.func", "middle", Mutability::Var, 0),
];
const SHARED: [&str; 6] = ["state", "buffer", "position", "limit", "frames", "reserve"];

fn instrument(name: &str, options: &[&str]) -> Vec<u8> {
    let scratch = Scratch::with("in.wat", read_in_repository(&format!("tests/linking/{name}.wat")));
    let options = options.iter().chain(&["verify"]);
    let options: Vec<String> = options.map(|o| format!("--pass-arg=fork-instrument-{o}")).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    scratch.run(&[&ALL[..], &["in.wat", "--fork-instrument", "-o", "out.wasm"], &options].concat()).succeeded();
    scratch.read("out.wasm")
}

/// Whose side of each fork the host follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Follow {
    /// Does not fork, and gives the answers of the parent.
    NeitherAsParent,
    NeitherAsChild,
    Parent,
    Child,
}

/// What the host knows about one process.
#[derive(Clone, Default)]
struct Process {
    modules: Vec<Instance>,
    follow: Option<Follow>,
    forks: u32,
    /// Forks that failed.
    aborts: u32,
    /// The bytes of the buffer; 0 for no bound.
    room: u32,
    /// How often the side module's start function ran.
    starts: u32,
}

struct Modules {
    engine: Engine,
    main: Module,
    side: Module,
}

struct Program {
    store: Store<Process>,
    main: Instance,
    side: Instance,
    memory: Memory,
}

impl Modules {
    fn new(more: &[&str]) -> Modules {
        let engine = Engine::default();
        let main =
            instrument("main", &[&["entry@kernel.kernel_fork,env.side_twice", "export-globals"][..], more].concat());
        let side = instrument("side", &[&["entry@kernel.kernel_fork", "import-globals"][..], more].concat());
        let module = |wasm: &[u8]| Module::new(&engine, wasm).expect("the output is valid");
        Modules { main: module(&main), side: module(&side), engine }
    }

    /// Links the two: the side module's function is reached through a table, as a dynamic linker resolves cycles.
    fn start(&self) -> Result<Program> {
        let mut store = Store::new(&self.engine, Process::default());
        let mut linker = Linker::new(&self.engine);
        linker.func_wrap("kernel", "kernel_fork", fork)?;
        let late = Table::new(&mut store, TableType::new(RefType::FUNCREF, 1, None), Ref::Func(None))?;
        linker.func_wrap("env", "side_twice", move |mut caller: Caller<'_, Process>, x: i32| -> Result<i32> {
            let Some(Ref::Func(Some(function))) = late.get(&mut caller, 0) else { panic!("the side module is linked") };
            function.typed::<i32, i32>(&caller)?.call(&mut caller, x)
        })?;
        let main = linker.instantiate(&mut store, &self.main)?;
        let memory = main.get_memory(&mut store, "memory").expect("exported");
        linker.define(&store, "env", "memory", memory)?;
        let functions = main.get_table(&mut store, "functions").expect("exported");
        linker.define(&store, "env", "functions", functions)?;
        let stack_pointer = main.get_global(&mut store, "__stack_pointer").expect("exported");
        linker.define(&store, "env", "__stack_pointer", stack_pointer)?;
        for (module, name, mutability, value) in PLACES {
            let global = Global::new(&mut store, GlobalType::new(ValType::I32, mutability), Val::I32(value))?;
            linker.define(&store, module, name, global)?;
        }
        for name in SHARED {
            let name = format!("__wpk_fork_{name}");
            let global = main.get_global(&mut store, &name).expect("exported");
            linker.define(&store, "env", &name, global)?;
        }
        let resume = main.get_table(&mut store, "__wpk_fork_table").expect("exported");
        let base = resume.size(&store) as i32;
        resume.grow(&mut store, 64, Ref::Func(None))?;
        linker.define(&store, "env", "__wpk_fork_table", resume)?;
        let base = Global::new(&mut store, GlobalType::new(ValType::I32, Mutability::Const), Val::I32(base))?;
        linker.define(&store, "env", "__wpk_fork_table_base", base)?;
        linker.func_wrap("env", "initialize", |mut caller: Caller<'_, Process>| caller.data_mut().starts += 1)?;
        let side = linker.instantiate(&mut store, &self.side)?;
        assert_eq!(store.data().starts, 1);
        let function = side.get_func(&mut store, "side_twice").expect("exported");
        late.set(&mut store, 0, Ref::Func(Some(function)))?;
        store.data_mut().modules = vec![main, side];
        Ok(Program { store, main, side, memory })
    }
}

fn answer(process: &Process) -> i32 {
    match process.follow {
        Some(Follow::Parent | Follow::NeitherAsParent) => process.forks as i32,
        _ => 0,
    }
}

/// The entry: starts to unwind, or ends a rewind.
fn fork(mut caller: Caller<'_, Process>) -> Result<i32> {
    let modules = caller.data().modules.clone();
    match state_of(&mut caller, modules[0])? {
        0 => {
            caller.data_mut().forks += 1;
            if matches!(caller.data().follow, Some(Follow::NeitherAsParent | Follow::NeitherAsChild)) {
                return Ok(answer(caller.data()));
            }
            let room = caller.data().room;
            let end = if room == 0 { 0 } else { BUFFER + room };
            let memory = modules[0].get_memory(&mut caller, "memory").expect("exported");
            memory.write(&mut caller, BUFFER as usize + 4, &end.to_le_bytes())?;
            for (i, module) in modules.iter().enumerate() {
                if i > 0 && state_of(&mut caller, modules[0])? != 1 {
                    break;
                }
                let begin = module.get_typed_func::<i32, ()>(&mut caller, "wpk_fork_unwind_begin")?;
                begin.call(&mut caller, BUFFER as i32)?;
            }
            let fits = state_of(&mut caller, modules[0])? == 1;
            caller.data_mut().aborts += u32::from(!fits);
            Ok(-1)
        }
        state => {
            let end = modules[0].get_typed_func::<(), ()>(&mut caller, "wpk_fork_rewind_end")?;
            end.call(&mut caller, ())?;
            caller.data_mut().aborts += u32::from(state == 3);
            Ok(if state == 3 { -1 } else { answer(caller.data()) })
        }
    }
}

fn state_of(mut store: impl wasmtime::AsContextMut, main: Instance) -> Result<i32> {
    let function = main.get_typed_func::<(), i32>(&mut store, "wpk_fork_state")?;
    function.call(&mut store, ())
}

/// What can be seen of a run.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    result: i32,
    counter: Option<i32>,
    stack_pointer: Option<i32>,
    own: Option<i64>,
    forks: u32,
    aborts: u32,
}

/// Runs an export to its end, in fresh instances after each fork.
fn run(modules: &Modules, export: &str, follow: Follow, room: u32) -> Result<Outcome> {
    let mut program = modules.start()?;
    program.store.data_mut().follow = Some(follow);
    program.store.data_mut().room = room;
    loop {
        let Program { store, main, side, memory } = &mut program;
        let result = main.get_typed_func::<i32, i32>(&mut *store, export)?.call(&mut *store, 5)?;
        if room > 0 {
            let behind = &memory.data(&*store)[(BUFFER + room) as usize..][..256];
            assert!(behind.iter().all(|&byte| byte == 0), "{room} bytes: what is behind the buffer was written");
        }
        if state_of(&mut *store, *main)? == 0 {
            let (counter, own) = (main.get_global(&mut *store, "counter"), side.get_global(&mut *store, "own"));
            let stack_pointer = main.get_global(&mut *store, "__stack_pointer");
            return Ok(Outcome {
                result,
                stack_pointer: stack_pointer.and_then(|g| g.get(&mut *store).i32()),
                counter: counter.and_then(|g| g.get(&mut *store).i32()),
                own: own.and_then(|g| g.get(&mut *store).i64()),
                forks: store.data().forks,
                aborts: store.data().aborts,
            });
        }
        main.get_typed_func::<(), ()>(&mut *store, "wpk_fork_unwind_end")?.call(&mut *store, ())?;
        let mut next = modules.start()?;
        let bytes = memory.data(&*store).to_vec();
        next.memory.data_mut(&mut next.store).copy_from_slice(&bytes);
        let own = next.store.data().modules.clone();
        *next.store.data_mut() = Process { modules: own.clone(), ..store.data().clone() };
        for module in own {
            let begin = module.get_typed_func::<i32, ()>(&mut next.store, "wpk_fork_rewind_begin")?;
            begin.call(&mut next.store, BUFFER as i32)?;
        }
        program = next;
    }
}

fn both_sides_are_as_without_forks(modules: &Modules) {
    for export in ["direct", "indirect"] {
        for (plain, forking) in [(Follow::NeitherAsParent, Follow::Parent), (Follow::NeitherAsChild, Follow::Child)] {
            let expected = run(modules, export, plain, 0).expect("it runs");
            assert!(expected.forks > 0);
            assert_eq!(expected.stack_pointer, Some(60000));
            let outcome = run(modules, export, forking, 0).unwrap_or_else(|e| panic!("{export}, {forking:?}: {e:?}"));
            assert_eq!(outcome, expected, "{export}, {forking:?}");
        }
    }
}

#[test]
fn a_fork_with_frames_of_both_modules_on_the_stack_resumes_both() {
    both_sides_are_as_without_forks(&Modules::new(&[]));
}

#[test]
fn modules_that_share_frames_can_check_themselves() {
    both_sides_are_as_without_forks(&Modules::new(&["asserts"]));
}

#[test]
fn a_buffer_that_is_too_small_for_the_frames_of_both_fails_the_fork_and_nothing_else() {
    let modules = Modules::new(&[]);
    let failed = run(&modules, "direct", Follow::Parent, 8).expect("it runs");
    assert_eq!(failed.aborts, failed.forks);
    let mut fitted = 0;
    for room in 8..160 {
        let outcome = run(&modules, "direct", Follow::Parent, room).unwrap_or_else(|e| panic!("{room} bytes: {e:?}"));
        assert_eq!(outcome.counter, failed.counter, "{room} bytes");
        assert_eq!(outcome.own, failed.own, "{room} bytes");
        if outcome.aborts > 0 {
            assert_eq!(outcome.result, failed.result, "{room} bytes");
        } else {
            fitted += 1;
        }
    }
    assert!(fitted > 0);
}

#[test]
fn the_section_of_a_side_module_stays_first() {
    let scratch = Scratch::with("in.wat", read_in_repository("tests/linking/side.wat"));
    scratch.run(&[&ALL[..], &["in.wat", "-o", "plain.wasm"]].concat()).succeeded();
    // mem-info: 16 bytes aligned to 4, one table element.
    let contents = [1, 4, 16, 2, 1, 0];
    let section = [&[0, 15, 8], &b"dylink.0"[..], &contents].concat();
    let mut wasm = scratch.read("plain.wasm");
    wasm.splice(8..8, section.clone());
    scratch.write("side.wasm", wasm);
    let pass = ["--fork-instrument", "--pass-arg=fork-instrument-import-globals"];
    scratch.run(&[&ALL[..], &["side.wasm", "-o", "out.wasm"], &pass].concat()).succeeded();
    assert!(scratch.read("out.wasm")[8..].starts_with(&section));
}

/// Two modules that share a memory, the first of which can fork.
const MAIN: &str = r#"(module
    (import "kernel" "kernel_fork" (func $fork (result i32)))
    (memory (export "memory") 1)
    (func (export "run") (result i32) (call $fork)))"#;
const BYSTANDER: &str = r#"(module
    (import "env" "memory" (memory 1))
    (global $n (mut i32) (i32.const 0))
    (func (export "bump") (result i32)
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (global.get $n)))"#;

#[test]
fn a_module_on_which_no_fork_depends_gives_the_child_its_globals() -> Result<()> {
    let instrument = |text: &str, globals: &str| {
        let scratch = Scratch::with("in.wat", text);
        let pass = ["--fork-instrument", globals, "--pass-arg=fork-instrument-verify", "-o", "out.wasm"];
        scratch.run(&[&ALL[..], &["in.wat"], &pass].concat()).succeeded();
        scratch.read("out.wasm")
    };
    let engine = Engine::default();
    let main = Module::new(&engine, instrument(MAIN, "--pass-arg=fork-instrument-export-globals"))?;
    let side = Module::new(&engine, instrument(BYSTANDER, "--pass-arg=fork-instrument-import-globals"))?;
    let start = || -> Result<(Store<()>, Instance, Instance)> {
        let mut store = Store::new(&engine, ());
        let mut linker = Linker::new(&engine);
        linker.func_wrap("kernel", "kernel_fork", || -> i32 { panic!("it does not fork") })?;
        let main = linker.instantiate(&mut store, &main)?;
        for export in ["memory", "table"].into_iter().chain(SHARED) {
            let name = if export == "memory" { export.to_owned() } else { format!("__wpk_fork_{export}") };
            let item = main.get_export(&mut store, &name).expect("the main module exports it");
            linker.define(&mut store, "env", &name, item)?;
        }
        let base = Global::new(&mut store, GlobalType::new(ValType::I32, Mutability::Const), Val::I32(1))?;
        linker.define(&mut store, "env", "__wpk_fork_table_base", base)?;
        let side = linker.instantiate(&mut store, &side)?;
        Ok((store, main, side))
    };
    let call = |store: &mut Store<()>, instance: Instance, name: &str, buffer: i32| {
        instance.get_typed_func::<i32, ()>(&mut *store, name)?.call(&mut *store, buffer)
    };
    let bump = |store: &mut Store<()>, side: Instance| {
        side.get_typed_func::<(), i32>(&mut *store, "bump")?.call(&mut *store, ())
    };

    let (mut parent, main_module, side_module) = start()?;
    assert_eq!((bump(&mut parent, side_module)?, bump(&mut parent, side_module)?), (1, 2));
    for module in [main_module, side_module] {
        call(&mut parent, module, "wpk_fork_unwind_begin", 1024)?;
    }
    main_module.get_typed_func::<(), ()>(&mut parent, "wpk_fork_unwind_end")?.call(&mut parent, ())?;
    let saved = main_module.get_memory(&mut parent, "memory").expect("it has one").data(&parent).to_vec();

    let (mut child, main_module, side_module) = start()?;
    main_module.get_memory(&mut child, "memory").expect("it has one").data_mut(&mut child).copy_from_slice(&saved);
    for module in [main_module, side_module] {
        call(&mut child, module, "wpk_fork_rewind_begin", 1024)?;
    }
    main_module.get_typed_func::<(), ()>(&mut child, "wpk_fork_rewind_end")?.call(&mut child, ())?;
    assert_eq!(bump(&mut child, side_module)?, 3);
    Ok(())
}

#[test]
fn a_module_with_nothing_to_save_is_left_as_it_is() {
    for text in [r#"(module (func (export "f")))"#, r#"(module (memory 1) (memory 1) (func (export "f")))"#] {
        let scratch = Scratch::with("in.wat", text);
        let pass = ["--fork-instrument", "--pass-arg=fork-instrument-import-globals", "-o", "out.wasm"];
        let run = scratch.run(&[&ALL[..], &["in.wat"], &pass].concat()).succeeded();
        assert!(run.stderr.contains("it is left as it is"), "{}", run.stderr);
        scratch.run(&[&ALL[..], &["in.wat", "-o", "plain.wasm"]].concat()).succeeded();
        assert_eq!(scratch.read("out.wasm"), scratch.read("plain.wasm"));
    }
}

/// Verified, on several threads: fixtures run on one.
#[test]
fn every_fixture_can_be_a_main_or_a_side_module() {
    let scratch = Scratch::new();
    let mut instrumented = 0;
    for folder in ["features", "replay", "shapes"] {
        let folder =
            std::fs::read_dir(in_repository(&format!("tests/fixtures/{folder}"))).expect("the folder is there");
        let mut files: Vec<_> = folder.map(|entry| entry.expect("an entry").path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "wat"));
        for file in files {
            let file = file.to_str().expect("names are ASCII");
            let run = |options: &[&str]| {
                let pass = ["--fork-instrument", "--pass-arg=fork-instrument-entry@kernel.*", file, "-o", "out.wasm"];
                scratch.run(&[&ALL[..], &pass, options].concat())
            };
            let is_refused = !run(&[]).status.success();
            for globals in ["export-globals", "import-globals"] {
                let sharing = format!("--pass-arg=fork-instrument-{globals}");
                let shared = run(&[&sharing, "--pass-arg=fork-instrument-verify"]);
                instrumented += usize::from(shared.status.success());
                assert!(is_refused || shared.status.success(), "{file} with {globals}: {}", shared.stderr);
                assert!(shared.status.code().is_some_and(|code| code <= 1), "{file} with {globals}");
            }
        }
    }
    assert!(instrumented > 700, "only {instrumented} were instrumented");
}

/// Throws what its side module does not know, and calls it.
const THROWER: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (memory (export "memory") 2)
  (tag $own (param i32))
  (table (export "functions") 2 funcref)
  (elem (i32.const 0) $nine)
  (func $nine (result i32) (i32.const 9))
  (func (export "throw") (throw $own (i32.const 5))))"#;

/// Forks while it holds an exception that no frame can; and calls a function of the other module that forks, by a reference.
const HOLDER: &str = r#"(module
  (import "kernel" "kernel_fork" (func $fork (result i32)))
  (import "env" "throw" (func $throw))
  (import "env" "functions" (table $functions 2 funcref))
  (import "env" "memory" (memory 1))
  (type $get (func (result i32)))
  (func (export "hold") (result i32) (local $e exnref) (local $answer i32)
    (local.set $e (block $caught (result exnref)
      (try_table (catch_all_ref $caught) (call $throw))
      (unreachable)))
    (local.set $answer (call $fork))
    (block $again
      (try_table (catch_all $again) (throw_ref (local.get $e))))
    (local.get $answer))
  (func (export "call_reference") (result i32)
    (i32.add (i32.const 100) (call_ref $get (ref.cast (ref $get) (table.get $functions (i32.const 0)))))))"#;

#[test]
fn forks_that_fail_in_a_side_module_leave_nothing_behind() -> Result<()> {
    let mut config = wasmtime::Config::new();
    config.wasm_exceptions(true).wasm_gc(true).wasm_function_references(true);
    let engine = Engine::new(&config)?;
    let instrument = |text: &str, globals: &str| {
        let scratch = Scratch::with("in.wat", text);
        let pass = ["--fork-instrument", globals, "--pass-arg=fork-instrument-verify", "-o", "out.wasm"];
        scratch.run(&[&ALL[..], &["in.wat"], &pass].concat()).succeeded();
        scratch.read("out.wasm")
    };
    let main = Module::new(&engine, instrument(THROWER, "--pass-arg=fork-instrument-export-globals"))?;
    let side = Module::new(&engine, instrument(HOLDER, "--pass-arg=fork-instrument-import-globals"))?;
    let mut store = Store::new(&engine, Process::default());
    let mut linker = Linker::new(&engine);
    linker.func_wrap("kernel", "kernel_fork", |mut caller: Caller<'_, Process>| -> Result<i32> {
        let modules = caller.data().modules.clone();
        if state_of(&mut caller, modules[0])? != 0 {
            modules[0].get_typed_func::<(), ()>(&mut caller, "wpk_fork_rewind_end")?.call(&mut caller, ())?;
            return Ok(-1);
        }
        let memory = modules[0].get_memory(&mut caller, "memory").expect("it has one");
        memory.write(&mut caller, BUFFER as usize + 4, &(BUFFER + 4096).to_le_bytes())?;
        for module in modules {
            module.get_typed_func::<u32, ()>(&mut caller, "wpk_fork_unwind_begin")?.call(&mut caller, BUFFER)?;
        }
        Ok(12345)
    })?;
    let main = linker.instantiate(&mut store, &main)?;
    for export in ["memory", "functions", "throw"]
        .map(str::to_owned)
        .into_iter()
        .chain(["table"].into_iter().chain(SHARED).map(|name| format!("__wpk_fork_{name}")))
    {
        let item = main.get_export(&mut store, &export).expect("the main module exports it");
        linker.define(&mut store, "env", &export, item)?;
    }
    let resume = main.get_table(&mut store, "__wpk_fork_table").expect("exported");
    let base = resume.size(&store) as i32;
    resume.grow(&mut store, 16, Ref::Func(None))?;
    let base = Global::new(&mut store, GlobalType::new(ValType::I32, Mutability::Const), Val::I32(base))?;
    linker.define(&mut store, "env", "__wpk_fork_table_base", base)?;
    let side = linker.instantiate(&mut store, &side)?;
    store.data_mut().modules = vec![main, side];
    let hold = side.get_typed_func::<(), i32>(&mut store, "hold")?;
    for _ in 0..5 {
        assert_eq!(hold.call(&mut store, ())?, -1);
        assert_eq!(state_of(&mut store, main)?, 0);
    }
    let call = side.get_typed_func::<(), i32>(&mut store, "call_reference")?;
    assert_eq!(call.call(&mut store, ())?, 109);
    Ok(())
}

#[test]
fn a_reference_out_of_a_shared_table_may_fork() {
    let scratch = Scratch::with("in.wat", HOLDER);
    let pass = ["--fork-instrument", "--pass-arg=fork-instrument-import-globals", "--pass-arg=fork-instrument-verbose"];
    let run = scratch.run(&[&ALL[..], &["in.wat", "-o", "out.wasm"], &pass].concat()).succeeded();
    assert!(run.stderr.contains("calls a reference, which may be to a function of another module"), "{}", run.stderr);
}

#[test]
fn a_side_module_that_is_not_told_so_is_a_warning() {
    let side = MAIN.replace(r#"(memory (export "memory") 1)"#, r#"(import "env" "memory" (memory 1))"#);
    let scratch = Scratch::with("in.wat", side);
    scratch.run(&["in.wat", "-o", "in.wasm"]).succeeded();
    // mem-info: no bytes, no table elements.
    let section = [&[0, 15, 8], &b"dylink.0"[..], &[1, 4, 0, 0, 0, 0]].concat();
    let mut wasm = scratch.read("in.wasm");
    wasm.splice(8..8, section);
    scratch.write("side.wasm", wasm);
    let files = ["side.wasm", "--fork-instrument", "-o", "out.wasm"];
    let alone = scratch.run(&[&ALL[..], &files].concat()).succeeded();
    assert!(alone.stderr.contains("section dylink.0") && alone.stderr.contains("import-globals"), "{}", alone.stderr);
    let linked = [&ALL[..], &files, &["--pass-arg=fork-instrument-import-globals"]].concat();
    assert!(!scratch.run(&linked).succeeded().stderr.contains("dylink"));
}
