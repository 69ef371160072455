//! The contract with an instrumented module: the exports that unwind and rewind its stack, and the buffer that
//! the frames go to.
//!
//! A fork, seen from the host:
//!
//! 1. the program calls the entry import in [`ForkState::Normal`]; the import calls [`ForkExports::arm`] and
//!    returns anything;
//! 2. the root export returns with the module [`ForkState::Unwinding`]; the host calls
//!    [`ForkExports::unwind_end`], copies memory to a fresh instance if it wants one, calls
//!    [`ForkExports::rewind_begin`], and calls the root export again with the same arguments;
//! 3. the import is reached again, [`ForkState::Rewinding`], calls [`ForkExports::rewind_end`] and returns for good.
//!
//! If the frames do not fit, step 2 does not happen: the import is reached again in [`ForkState::Aborting`].

use wasmtime::{
    AsContext, AsContextMut, ExternType, Instance, Memory, Module, Result, TypedFunc, bail, error::Context as _,
    format_err,
};

/// Module name of everything that a second module with the resume functions imports.
pub const RESUME_MODULE: &str = "wpk_fork";

/// The export that is the memory for the frames, in modules that have an own one for them.
pub const FRAME_MEMORY: &str = "wpk_fork_memory";

/// How the name of the table begins that a module shares with the one that has its resume functions.
const RESUME_TABLE: &str = "wpk_fork_table_";

/// What an instrumented module is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForkState {
    /// Running as its program says.
    Normal,
    /// Saving frames on the way out.
    Unwinding,
    /// Restoring frames on the way in.
    Rewinding,
    /// Restoring frames because the buffer is full.
    Aborting,
}

/// Where frames are saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffer {
    /// Address of the first byte.
    pub address: u64,
    /// Bytes, the two pointers at the beginning included.
    pub size: u64,
    /// Pointers have eight bytes.
    pub wide: bool,
}

impl Buffer {
    /// Bytes in a pointer.
    pub fn pointer_size(&self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.address + self.size
    }

    /// Where saved data begins: after the two pointers.
    pub fn data(&self) -> u64 {
        self.address + 2 * self.pointer_size()
    }

    /// Writes `end` where the module looks for it.
    pub fn write_end(&self, store: impl AsContextMut, memory: Memory) -> Result<()> {
        let bytes = self.end().to_le_bytes();
        let at = self.address + self.pointer_size();
        memory
            .write(store, at as usize, &bytes[..self.pointer_size() as usize])
            .context("the fork buffer is not inside the memory")
    }

    /// The address that the next frame would go to.
    pub fn next_frame(&self, store: impl AsContext, memory: Memory) -> Result<u64> {
        let mut bytes = [0; 8];
        memory.read(store, self.address as usize, &mut bytes[..self.pointer_size() as usize])?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// A function that takes a pointer.
#[derive(Clone)]
enum PointerFunc {
    Narrow(TypedFunc<u32, ()>),
    Wide(TypedFunc<u64, ()>),
}

impl PointerFunc {
    fn find(store: &mut impl AsContextMut, instance: &Instance, name: &str) -> Result<Self> {
        match instance.get_typed_func(&mut *store, name) {
            Ok(func) => Ok(Self::Wide(func)),
            Err(_) => Ok(Self::Narrow(instance.get_typed_func(store, name)?)),
        }
    }

    fn call(&self, store: impl AsContextMut, pointer: u64) -> Result<()> {
        match self {
            Self::Narrow(func) => func.call(store, u32::try_from(pointer)?),
            Self::Wide(func) => func.call(store, pointer),
        }
    }
}

/// The exports of an instance that drive a fork.
#[derive(Clone)]
pub struct ForkExports {
    unwind_begin: PointerFunc,
    unwind_end: TypedFunc<(), ()>,
    rewind_begin: PointerFunc,
    rewind_end: TypedFunc<(), ()>,
    state: TypedFunc<(), i32>,
}

/// Whether a module has the exports of an instrumented one.
pub fn is_instrumented(module: &Module) -> bool {
    module.get_export("wpk_fork_state").is_some()
}

impl ForkExports {
    /// The exports of `instance`.
    pub fn find(mut store: impl AsContextMut, instance: &Instance) -> Result<Self> {
        let store = &mut store;
        Ok(Self {
            unwind_begin: PointerFunc::find(store, instance, "wpk_fork_unwind_begin")?,
            unwind_end: instance.get_typed_func(&mut *store, "wpk_fork_unwind_end")?,
            rewind_begin: PointerFunc::find(store, instance, "wpk_fork_rewind_begin")?,
            rewind_end: instance.get_typed_func(&mut *store, "wpk_fork_rewind_end")?,
            state: instance.get_typed_func(store, "wpk_fork_state")?,
        })
    }

    /// What the module is doing.
    pub fn state(&self, store: impl AsContextMut) -> Result<ForkState> {
        match self.state.call(store, ())? {
            0 => Ok(ForkState::Normal),
            1 => Ok(ForkState::Unwinding),
            2 => Ok(ForkState::Rewinding),
            3 => Ok(ForkState::Aborting),
            other => bail!("wpk_fork_state() returned {other}"),
        }
    }

    /// Writes the buffer's end and asks the module to unwind. `false` says that the buffer is too small to even
    /// begin, and that the program goes on as if nothing had been asked.
    pub fn arm(&self, mut store: impl AsContextMut, memory: Memory, buffer: &Buffer) -> Result<bool> {
        // Less than the two pointers cannot even say that it is too small.
        if buffer.size < 2 * buffer.pointer_size() {
            return Ok(false);
        }
        buffer.write_end(&mut store, memory)?;
        self.unwind_begin.call(&mut store, buffer.address)?;
        match self.state(store)? {
            ForkState::Normal => Ok(false),
            ForkState::Unwinding => Ok(true),
            state => bail!("wpk_fork_unwind_begin left the module {state:?}"),
        }
    }

    /// The root export has returned; the module is to be as before.
    pub fn unwind_end(&self, store: impl AsContextMut) -> Result<()> {
        self.unwind_end.call(store, ())
    }

    /// The root export is about to be called again.
    pub fn rewind_begin(&self, store: impl AsContextMut, buffer: &Buffer) -> Result<()> {
        self.rewind_begin.call(store, buffer.address)
    }

    /// The entry import has been reached again.
    pub fn rewind_end(&self, store: impl AsContextMut) -> Result<()> {
        self.rewind_end.call(store, ())
    }
}

/// Whether a table with this export holds resume functions: it is as it must be in any instance.
pub fn is_resume_table(export: &str) -> bool {
    export.starts_with(RESUME_TABLE)
}

/// Whether the resume functions are in a module of their own.
pub fn needs_resume_module(module: &Module) -> bool {
    module.exports().any(|export| is_resume_table(export.name()))
}

/// In front of the names of tables that the pass has exported for hosts: of references that a fork keeps, and of the program's own
/// that change.
const TABLES: [&str; 2] = ["wpk_fork_refs_", "wpk_fork_copy_table_"];

/// Whether the pass has exported tables for hosts to carry over.
pub fn has_tables_to_carry(module: &Module) -> bool {
    module.exports().any(|export| TABLES.iter().any(|prefix| export.name().starts_with(prefix)))
}

/// Whether there is anything but memories and numbers to give to a child.
pub fn has_references(module: &Module) -> bool {
    let is_reference = |ty: ExternType| match ty {
        ExternType::Table(_) => true,
        ExternType::Global(ty) => ty.content().is_ref(),
        _ => false,
    };
    let mut exports = module.exports().filter(|export| !is_resume_table(export.name()));
    module.imports().any(|import| is_reference(import.ty())) || exports.any(|export| is_reference(export.ty()))
}

/// Instantiates the module with the resume functions next to the instance that they belong to. All it imports
/// are exports of that instance.
pub fn link_resume(mut store: impl AsContextMut, first: &Instance, resume: &Module) -> Result<Instance> {
    let mut imports = Vec::new();
    for import in resume.imports() {
        if import.module() != RESUME_MODULE {
            bail!("the resume module imports {}.{}, not from {RESUME_MODULE}", import.module(), import.name());
        }
        let export = first.get_export(&mut store, import.name());
        imports.push(export.ok_or_else(|| {
            format_err!("the resume module belongs to another module: no export {:?}", import.name())
        })?);
    }
    Instance::new(store, resume, &imports).context("cannot instantiate the resume module")
}

/// The exported memory of that name, or else the first one: its name and whether its pointers have 64 bits.
pub fn choose_memory(module: &Module, name: &str) -> Option<(String, bool)> {
    let memories = module.exports().filter_map(|export| match export.ty() {
        ExternType::Memory(ty) => Some((export.name().to_owned(), ty.is_64())),
        _ => None,
    });
    let memories: Vec<_> = memories.collect();
    memories.iter().find(|(found, _)| found == name).or(memories.first()).cloned()
}

/// The name of an exported or imported memory that is shared. Wasmtime gives no access to such memories but to threads.
pub fn shared_memory(module: &Module) -> Option<String> {
    let exported = module.exports().map(|export| (export.name().to_owned(), export.ty()));
    let imported = module.imports().map(|import| (format!("{}.{}", import.module(), import.name()), import.ty()));
    let is_shared = |ty: &ExternType| matches!(ty, ExternType::Memory(ty) if ty.is_shared());
    exported.chain(imported).find(|(_, ty)| is_shared(ty)).map(|(name, _)| name)
}

/// Grows a memory by at least `bytes`; the address of the new bytes, or `None` if it cannot grow.
pub fn grow_bytes(mut store: impl AsContextMut, memory: Memory, bytes: u64) -> Option<u64> {
    let page = memory.page_size(&store);
    // A memory of 2^32 bytes has no address past its end that a 32-bit `end` could hold.
    let limit = if memory.ty(&store).is_64() { u64::MAX } else { u64::from(u32::MAX) };
    let address = memory.size(&store) * page;
    let pages = bytes.div_ceil(page);
    if pages.checked_mul(page)?.checked_add(address)? > limit {
        return None;
    }
    memory.grow(&mut store, pages).ok().map(|_| address)
}

/// Makes a fresh instance's memory equal to `from`: grows it, then copies the bytes that differ.
///
/// A page that neither side has touched stays untouched, so a mostly empty memory costs little.
pub fn copy_memory(
    from: Memory,
    from_store: impl AsContext,
    to: Memory,
    mut to_store: impl AsContextMut,
) -> Result<()> {
    let missing = from.size(&from_store).checked_sub(to.size(&to_store));
    let missing = missing.ok_or_else(|| format_err!("a fresh instance has more memory than the one it copies"))?;
    if missing > 0 {
        to.grow(&mut to_store, missing).context("cannot grow the memory of a fresh instance")?;
    }
    const CHUNK: usize = 64 << 10;
    let source = from.data(&from_store).chunks(CHUNK);
    for (source, target) in source.zip(to.data_mut(&mut to_store).chunks_mut(CHUNK)) {
        if source != target {
            target.copy_from_slice(source);
        }
    }
    Ok(())
}
