//! The imports of a program: WASI and the system calls of the module `kernel`.

use wasmtime::{
    AsContextMut, Caller, Extern, ExternType, Func, FuncType, Memory, Module, Result, Store, Val, bail, format_err,
};

use super::process::{Data, Ending, fork};
use crate::descriptors::DescriptorTable;
use crate::errno::Errno;
use crate::wasi::{self, Guest, Stop};

/// The module name of the system calls.
const MODULE: &str = "kernel";

type Body = fn(&mut Caller<'_, Data>, &[u64]) -> Result<i32>;

#[derive(Clone, Copy)]
struct SystemCall {
    name: &'static str,
    /// As in [`wasi::Function::params`]. All return an i32: a result, or a negative error number.
    params: &'static str,
    body: Body,
}

const SYSTEM_CALLS: &[SystemCall] = &[
    SystemCall { name: "kernel_fork", params: "", body: |caller, _| fork(caller) },
    SystemCall { name: "waitpid", params: "ipi", body: waitpid },
    SystemCall { name: "getpid", params: "", body: |caller, _| Ok(caller.data().pid) },
    SystemCall {
        name: "getppid",
        params: "",
        body: |caller, _| Ok(caller.data().kernel.table.parent(caller.data().pid)),
    },
    SystemCall { name: "pipe", params: "p", body: pipe },
    SystemCall { name: "dup2", params: "ii", body: dup2 },
];

#[derive(Clone, Copy)]
enum Import {
    Wasi(wasi::Function),
    System(SystemCall),
}

fn find(module: &str, name: &str, ty: &FuncType, wide: bool) -> Option<Import> {
    match module {
        wasi::MODULE => wasi::find(name).filter(|function| function.has_type(ty, wide)).map(Import::Wasi),
        MODULE => {
            let call = SYSTEM_CALLS.iter().find(|call| call.name == name)?;
            let results_match = ty.results().len() == 1 && ty.results().all(|result| result.is_i32());
            (results_match && wasi::params_match(call.params, ty, wide)).then_some(Import::System(*call))
        }
        _ => None,
    }
}

/// Refuses a module with imports that this host lacks, and lists them.
pub(super) fn check_imports(module: &Module, wide: bool) -> Result<()> {
    let unknown: Vec<String> = module
        .imports()
        .filter_map(|import| match import.ty() {
            ExternType::Func(ty) if find(import.module(), import.name(), &ty, wide).is_some() => None,
            ExternType::Func(ty) => Some(format!("{}.{} {ty}", import.module(), import.name())),
            _ => Some(format!("{}.{} (not a function)", import.module(), import.name())),
        })
        .collect();
    if !unknown.is_empty() {
        bail!("unknown imports, or with another type than here:\n  {}", unknown.join("\n  "));
    }
    Ok(())
}

/// Functions for all imports of the program, in order.
pub(super) fn imports(store: &mut Store<Data>) -> Result<Vec<Extern>> {
    let kernel = store.data().kernel.clone();
    kernel
        .module
        .imports()
        .map(|import| {
            let ExternType::Func(ty) = import.ty() else { bail!("not a function: {}", import.name()) };
            let found = find(import.module(), import.name(), &ty, kernel.wide)
                .ok_or_else(|| format_err!("unknown import {}", import.name()))?;
            let func = Func::new(&mut *store, ty, move |mut caller, args, results| {
                let args: Vec<u64> = args.iter().map(unsigned).collect();
                let result = answer(&mut caller, found, &args)?;
                if let Some(slot) = results.first_mut() {
                    *slot = Val::I32(result);
                }
                Ok(())
            });
            Ok(func.into())
        })
        .collect()
}

/// An argument as an unsigned number.
pub(crate) fn unsigned(value: &Val) -> u64 {
    match value {
        Val::I32(value) => u64::from(*value as u32),
        Val::I64(value) => *value as u64,
        _ => 0,
    }
}

/// Makes the call. The start function of a child's instance repeats what its first ancestor's did long ago: it is
/// told the same and does nothing.
fn answer(caller: &mut Caller<'_, Data>, import: Import, args: &[u64]) -> Result<i32> {
    if let Some(result) = caller.data_mut().start_answers.next() {
        return Ok(result);
    }
    let result = match import {
        Import::System(call) => (call.body)(caller, args)?,
        Import::Wasi(function) => {
            let (bytes, data) = memory(caller)?.data_and_store_mut(&mut *caller);
            match function.call(bytes, data.kernel.wide, &mut data.wasi, args) {
                Ok(errno) => i32::from(errno.0),
                Err(Stop::Exit(code)) => return Err(Ending::exit(code)),
                Err(Stop::Signal(signal)) => return Err(Ending::signal(signal)),
                Err(Stop::Error(errno)) => i32::from(errno.0),
            }
        }
    };
    if caller.data().instance.is_none() {
        caller.data_mut().start_log.push(result);
    }
    Ok(result)
}

/// The program's memory, also while its start function runs, and for calls from its resume functions, which may be in
/// an instance without any exports.
pub(super) fn memory(caller: &mut Caller<'_, Data>) -> Result<Memory> {
    let name = caller.data().kernel.memory.clone();
    exported_memory(caller, &name)
}

/// The memory that the frames go to.
pub(super) fn frame_memory(caller: &mut Caller<'_, Data>) -> Result<Memory> {
    let name = caller.data().kernel.frames.0.clone();
    exported_memory(caller, &name)
}

fn exported_memory(caller: &mut Caller<'_, Data>, name: &str) -> Result<Memory> {
    let found = match caller.data().instance {
        Some(instance) => instance.get_export(&mut *caller, name),
        None => caller.get_export(name),
    };
    found.and_then(Extern::into_memory).ok_or_else(|| format_err!("the memory {name:?} is not there"))
}

fn outcome(result: Result<i32, Errno>) -> Result<i32> {
    Ok(result.unwrap_or_else(Errno::negative))
}

fn waitpid(caller: &mut Caller<'_, Data>, args: &[u64]) -> Result<i32> {
    let (kernel, pid) = (caller.data().kernel.clone(), caller.data().pid);
    outcome((|| {
        let Some((child, status)) = kernel.table.wait(pid, args[0] as i32, args[2] as i32)? else { return Ok(0) };
        if args[1] != 0 {
            let memory = memory(caller).map_err(|_| Errno::FAULT)?;
            Guest::new(memory.data_mut(caller.as_context_mut()), kernel.wide)
                .write(args[1], &status.encode().to_le_bytes())?;
        }
        Ok(child)
    })())
}

fn pipe(caller: &mut Caller<'_, Data>, args: &[u64]) -> Result<i32> {
    let memory = memory(caller)?;
    let (bytes, data) = memory.data_and_store_mut(&mut *caller);
    let mut guest = Guest::new(bytes, data.kernel.wide);
    let descriptors: &mut DescriptorTable = &mut data.wasi.descriptors;
    outcome((|| {
        guest.slice(args[0], 8)?;
        let (from, to) = descriptors.pipe()?;
        guest.write(args[0], &from.to_le_bytes())?;
        guest.write(args[0] + 4, &to.to_le_bytes())?;
        Ok(0)
    })())
}

fn dup2(caller: &mut Caller<'_, Data>, args: &[u64]) -> Result<i32> {
    let new = args[1] as u32;
    let result = caller.data_mut().wasi.descriptors.duplicate(args[0] as u32, new);
    outcome(result.map(|()| new as i32))
}
