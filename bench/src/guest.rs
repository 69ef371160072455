//! Measured programs on wasmtime: a WASI as cheap as it can be, and how each instrumentation is unwound and rewound.

use std::path::Path;
use std::time::Instant;

use wasmtime::{
    Caller, Config, Engine, Error, Instance, Linker, Memory, Module, Result, Store, Trap, TypedFunc, Val, bail,
    error::Context as _, format_err,
};

const PAGE: u64 = 65536;
const BADF: i32 = 8;
const SPIPE: i32 = 70;

/// The engine as an embedder gets it by default.
pub fn engine() -> Result<Engine> {
    Engine::new(Config::new().wasm_exceptions(true))
}

/// A compiled module, as the command line names it: `KIND=FILE[,RESUME]`.
pub struct Program {
    kind: String,
    pub module: Module,
    pub resume: Option<Module>,
}

impl Program {
    pub fn compile(engine: &Engine, text: &str) -> Result<Program> {
        let (kind, files) = text.split_once('=').ok_or_else(|| format_err!("{text} is not KIND=FILE"))?;
        let (file, resume) = files.split_once(',').map_or((files, None), |(file, resume)| (file, Some(resume)));
        let compile = |file| Module::from_file(engine, Path::new(file)).with_context(|| format!("in {file}"));
        Ok(Program { kind: kind.to_owned(), module: compile(file)?, resume: resume.map(compile).transpose()? })
    }
}

/// What the imports of a running program know.
#[derive(Default)]
struct World {
    memory: Option<Memory>,
    args: Vec<Vec<u8>>,
    pub written: u64,
    ticks: u64,
    random: u8,
    driver: Option<Driver>,
    rewinding: bool,
    begun: Option<Instant>,
    rewinds: Vec<f64>,
}

/// The functions that unwind and rewind a module.
#[derive(Clone)]
struct Driver {
    asyncify: bool,
    buffer: u32,
    end: u32,
    begin_unwind: TypedFunc<u32, ()>,
    end_unwind: TypedFunc<(), ()>,
    begin_rewind: TypedFunc<u32, ()>,
    end_rewind: TypedFunc<(), ()>,
    state: TypedFunc<(), i32>,
}

#[derive(Debug)]
struct Exit;

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the program exited")
    }
}

impl std::error::Error for Exit {}

/// What the forks of a run took, in microseconds.
#[derive(Default)]
pub struct Forks {
    pub unwinds: Vec<f64>,
    pub rewinds: Vec<f64>,
}

/// Functions at whose calls `callgrind` ends a count.
mod mark {
    use std::hint::black_box;

    #[inline(never)]
    pub fn forked() {
        black_box(1);
    }

    #[inline(never)]
    pub fn unwound() {
        black_box(2);
    }

    #[inline(never)]
    pub fn resumed() {
        black_box(3);
    }

    #[inline(never)]
    pub fn rewound() {
        black_box(4);
    }
}

/// A program in a store of its own.
pub struct Guest {
    store: Store<World>,
    instance: Instance,
}

type Cx<'a> = Caller<'a, World>;

impl Guest {
    /// `args` are those of the program; `entry` names the import to fork at.
    pub fn new(engine: &Engine, program: &Program, args: &[String], entry: &str) -> Result<Guest> {
        let words = std::iter::once("program").chain(args.iter().map(String::as_str));
        let args = words.map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        let mut store = Store::new(engine, World { args, ..World::default() });
        let mut linker = Linker::new(engine);
        link(&mut linker, entry)?;
        linker.define_unknown_imports_as_default_values(&mut store, &program.module)?;
        let instance = linker.instantiate(&mut store, &program.module)?;
        store.data_mut().memory = instance.get_memory(&mut store, "memory");
        Ok(Guest { store, instance })
    }

    /// Sets `size` bytes aside for frames, and makes calls of the entry unwind.
    pub fn prepare(&mut self, program: &Program, size: u64) -> Result<()> {
        let store = &mut self.store;
        if let Some(resume) = &program.resume {
            let mut exports = Vec::new();
            for import in resume.imports() {
                let export = self.instance.get_export(&mut *store, import.name());
                exports.push(export.ok_or_else(|| format_err!("no export {}", import.name()))?);
            }
            Instance::new(&mut *store, resume, &exports)?;
        }
        let memory = store.data().memory.ok_or_else(|| format_err!("no memory"))?;
        let pages = size.div_ceil(PAGE);
        let buffer = memory.grow(&mut *store, pages)? * PAGE;
        let asyncify = program.kind == "asyncify";
        let names = match asyncify {
            true => ["start_unwind", "stop_unwind", "start_rewind", "stop_rewind", "get_state"],
            false => ["unwind_begin", "unwind_end", "rewind_begin", "rewind_end", "state"],
        };
        let prefix = if asyncify { "asyncify_" } else { "wpk_fork_" };
        let names = names.map(|name| format!("{prefix}{name}"));
        store.data_mut().driver = Some(Driver {
            asyncify,
            buffer: u32::try_from(buffer)?,
            end: u32::try_from(buffer + pages * PAGE)?,
            begin_unwind: self.instance.get_typed_func(&mut *store, &names[0])?,
            end_unwind: self.instance.get_typed_func(&mut *store, &names[1])?,
            begin_rewind: self.instance.get_typed_func(&mut *store, &names[2])?,
            end_rewind: self.instance.get_typed_func(&mut *store, &names[3])?,
            state: self.instance.get_typed_func(&mut *store, &names[4])?,
        });
        Ok(())
    }

    /// Calls the root, and returns its result if it is a number; `None` if it ran out of stack.
    fn call_once(&mut self, numbers: &[i32]) -> Result<Option<i64>> {
        let store = &mut self.store;
        let root = self.instance.get_func(&mut *store, "_start").or_else(|| self.instance.get_func(&mut *store, "run"));
        let root = root.ok_or_else(|| format_err!("no function _start or run"))?;
        let args: Vec<Val> = numbers.iter().map(|&number| Val::I32(number)).collect();
        let mut results = vec![Val::I32(0); root.ty(&*store).results().len()];
        match root.call(&mut *store, &args, &mut results) {
            Ok(()) => Ok(Some(results.first().and_then(Val::i64).unwrap_or(0))),
            Err(error) if error.is::<Exit>() => Ok(Some(0)),
            Err(error) if matches!(error.downcast_ref(), Some(Trap::StackOverflow)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs the program to its end, with all its forks in place.
    pub fn run(&mut self, numbers: &[i32], forks: &mut Forks) -> Result<Option<i64>> {
        loop {
            let Some(result) = self.call_once(numbers)? else { return Ok(None) };
            let Some(driver) = self.store.data().driver.clone() else { return Ok(Some(result)) };
            let store = &mut self.store;
            if driver.state.call(&mut *store, ())? == 0 {
                forks.rewinds.append(&mut store.data_mut().rewinds);
                return Ok(Some(result));
            }
            mark::unwound();
            driver.end_unwind.call(&mut *store, ())?;
            let begun = store.data().begun.ok_or_else(|| format_err!("unwinding without a fork"))?;
            forks.unwinds.push(begun.elapsed().as_secs_f64() * 1e6);
            store.data_mut().rewinding = true;
            store.data_mut().begun = Some(Instant::now());
            driver.begin_rewind.call(&mut *store, driver.buffer)?;
            mark::resumed();
        }
    }

    pub fn written(&self) -> u64 {
        self.store.data().written
    }
}

/// The entry import has been called. Whether it returns at once, because the stack unwinds.
fn enter(cx: &mut Cx<'_>) -> Result<bool> {
    let Some(driver) = cx.data().driver.clone() else { return Ok(false) };
    if cx.data().rewinding {
        mark::rewound();
        driver.end_rewind.call(&mut *cx, ())?;
        let data = cx.data_mut();
        data.rewinding = false;
        let begun = data.begun.take().ok_or_else(|| format_err!("rewinding without a fork"))?;
        data.rewinds.push(begun.elapsed().as_secs_f64() * 1e6);
        return Ok(false);
    }
    cx.data_mut().begun = Some(Instant::now());
    if driver.asyncify {
        store(cx, driver.buffer, &(driver.buffer + 8).to_le_bytes())?;
    }
    store(cx, driver.buffer + 4, &driver.end.to_le_bytes())?;
    driver.begin_unwind.call(&mut *cx, driver.buffer)?;
    mark::forked();
    Ok(true)
}

fn memory(cx: &Cx<'_>) -> Result<Memory> {
    cx.data().memory.ok_or_else(|| format_err!("the program exports no memory"))
}

fn store(cx: &mut Cx<'_>, at: u32, bytes: &[u8]) -> Result<()> {
    Ok(memory(cx)?.write(cx, at as usize, bytes)?)
}

fn load(cx: &Cx<'_>, at: u32) -> Result<u32> {
    let mut bytes = [0; 4];
    memory(cx)?.read(cx, at as usize, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn link(linker: &mut Linker<World>, entry: &str) -> Result<()> {
    let wasi = "wasi_snapshot_preview1";
    match entry {
        "kernel.kernel_fork" => {
            linker.func_wrap("kernel", "kernel_fork", |mut cx: Cx<'_>| -> Result<i32> {
                enter(&mut cx)?;
                Ok(1)
            })?;
            linker.func_wrap(wasi, "fd_write", fd_write)?;
        }
        "wasi_snapshot_preview1.fd_write" => {
            let write = |mut cx: Cx<'_>, fd: i32, vectors: u32, count: u32, result: u32| -> Result<i32> {
                if enter(&mut cx)? { Ok(0) } else { fd_write(cx, fd, vectors, count, result) }
            };
            linker.func_wrap(wasi, "fd_write", write)?;
        }
        _ => bail!("no measured program forks at {entry}"),
    }
    linker.func_wrap(wasi, "args_sizes_get", |mut cx: Cx<'_>, count: u32, size: u32| -> Result<i32> {
        let (number, bytes) = (cx.data().args.len() as u32, cx.data().args.iter().map(Vec::len).sum::<usize>() as u32);
        store(&mut cx, count, &number.to_le_bytes())?;
        store(&mut cx, size, &bytes.to_le_bytes())?;
        Ok(0)
    })?;
    linker.func_wrap(wasi, "args_get", |mut cx: Cx<'_>, pointers: u32, mut at: u32| -> Result<i32> {
        for (index, word) in cx.data().args.clone().iter().enumerate() {
            store(&mut cx, pointers + 4 * index as u32, &at.to_le_bytes())?;
            store(&mut cx, at, word)?;
            at += word.len() as u32;
        }
        Ok(0)
    })?;
    linker.func_wrap(wasi, "environ_sizes_get", |mut cx: Cx<'_>, count: u32, size: u32| -> Result<i32> {
        store(&mut cx, count, &[0; 4])?;
        store(&mut cx, size, &[0; 4])?;
        Ok(0)
    })?;
    linker.func_wrap(wasi, "clock_time_get", |mut cx: Cx<'_>, _: i32, _: i64, result: u32| -> Result<i32> {
        let time = 1_600_000_000_000_000_000 + cx.data().ticks * 1_000_000;
        cx.data_mut().ticks += 1;
        store(&mut cx, result, &time.to_le_bytes())?;
        Ok(0)
    })?;
    linker.func_wrap(wasi, "random_get", |mut cx: Cx<'_>, at: u32, size: u32| -> Result<i32> {
        for index in 0..size {
            let byte = cx.data().random;
            cx.data_mut().random = byte.wrapping_add(167);
            store(&mut cx, at + index, &[byte])?;
        }
        Ok(0)
    })?;
    linker.func_wrap(wasi, "fd_seek", |fd: i32, _: i64, _: i32, _: u32| if fd <= 2 { SPIPE } else { BADF })?;
    linker.func_wrap(wasi, "fd_fdstat_get", |mut cx: Cx<'_>, fd: i32, result: u32| -> Result<i32> {
        if fd > 2 {
            return Ok(BADF);
        }
        let mut stat = [0; 24];
        stat[0] = 2;
        stat[8] = 0x42;
        store(&mut cx, result, &stat)?;
        Ok(0)
    })?;
    linker.func_wrap(wasi, "fd_prestat_get", |_: i32, _: i32| BADF)?;
    linker.func_wrap(wasi, "proc_exit", |_: i32| -> Result<()> { Err(Error::new(Exit)) })?;
    Ok(())
}

fn fd_write(mut cx: Cx<'_>, fd: i32, vectors: u32, count: u32, result: u32) -> Result<i32> {
    if fd != 1 && fd != 2 {
        return Ok(BADF);
    }
    let mut total = 0;
    for index in 0..count {
        total += load(&cx, vectors + 8 * index + 4)?;
    }
    cx.data_mut().written += u64::from(total);
    store(&mut cx, result, &total.to_le_bytes())?;
    Ok(0)
}
