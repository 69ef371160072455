//! An instance of the module under test in a store of its own, and copies of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use wasmtime::{
    AsContextMut, Error, Extern, ExternType, Global, Instance, Memory, Mutability, Ref, Result, SharedMemory, Store,
    Table, Tag, Val, bail, error::Context as _,
};

use super::answers;
use super::cache::TICK;
use super::imports::{Area, GUARD, Journal, Spec, World, prepare_resume};
use super::value::Value;
use super::{Limit, imports};
use crate::protocol::{Buffer, ForkExports, copy_memory, grow_bytes};
use crate::wasi;

/// Memories and globals that can be observed from outside, by name.
#[derive(Clone, Default)]
pub(super) struct Observed {
    pub memories: Vec<(String, Memory)>,
    pub globals: Vec<(String, Global)>,
    /// All names of the memory with the buffer.
    chosen: Vec<String>,
    imported_globals: Vec<Global>,
    tables: Vec<Table>,
}

/// A module under test that can run.
pub(super) struct Machine {
    pub store: Store<World>,
    pub instance: Instance,
    deadline: Option<Instant>,
}

/// A start function that failed, as the store of its instance.
pub(super) struct FailedStart {
    pub store: Store<World>,
    pub error: Error,
}

impl Machine {
    /// The first instance. The inner error is that of its start function.
    pub fn first(spec: Arc<Spec>, wasi: wasi::State) -> Result<Result<Self, Box<FailedStart>>> {
        let deadline = match spec.limit {
            Limit::Time(time) => Some(Instant::now() + time),
            _ => None,
        };
        let journal = Journal::default();
        let world = World {
            spec: spec.clone(),
            journal,
            wasi,
            instance: None,
            exports: None,
            memory: None,
            observed: Observed::default(),
            resumable: false,
            start_answers: None,
        };
        let mut store = new_store(world, deadline)?;
        if let Limit::Fuel(fuel) = spec.limit {
            store.set_fuel(fuel)?;
        }
        let (observed, imports) = make_imports(&mut store, None)?;
        let instance = match Instance::new(&mut store, &spec.module, &imports) {
            Ok(instance) => instance,
            Err(error) => return Ok(Err(Box::new(FailedStart { store, error }))),
        };
        let mut machine = Self { store, instance, deadline };
        machine.settle(observed)?;
        machine.place_buffer();
        Ok(Ok(machine))
    }

    /// A fresh instance with the memory of this one, ready to rewind.
    pub fn child(&mut self) -> Result<Self> {
        let world = self.store.data();
        let spec = world.spec.clone();
        let world = World {
            spec: spec.clone(),
            journal: world.journal.clone(),
            wasi: world.wasi.clone(),
            instance: None,
            exports: None,
            memory: None,
            observed: Observed::default(),
            resumable: false,
            start_answers: Some(world.journal.start_answers()),
        };
        let mut store = new_store(world, self.deadline)?;
        if let Limit::Fuel(_) = spec.limit {
            store.set_fuel(self.store.get_fuel()?)?;
        }
        let parent = self.store.data().observed.clone();
        let values = parent.imported_globals.iter().map(|global| {
            let value = global.get(&mut self.store);
            Value::exact(&mut self.store, &value)
        });
        let values: Vec<Value> = values.collect();
        let (observed, imports) = make_imports(&mut store, Some(&values))?;
        let instance = Instance::new(&mut store, &spec.module, &imports).context("a fresh instance")?;
        let mut child = Self { store, instance, deadline: self.deadline };
        child.settle(observed)?;
        let observed = child.store.data().observed.clone();
        for ((_, from), (_, to)) in parent.memories.iter().zip(&observed.memories) {
            copy_memory(*from, &self.store, *to, &mut child.store)?;
        }
        for (from, to) in parent.tables.iter().zip(&observed.tables) {
            let missing = from.size(&self.store).saturating_sub(to.size(&child.store));
            let element = to.ty(&child.store).element().clone();
            if missing > 0 && element.is_nullable() {
                to.grow(&mut child.store, missing, Ref::null(element.heap_type()))?;
            }
        }
        prepare_resume(&mut child.store)?;
        Ok(child)
    }

    /// Notes what the instance exports.
    fn settle(&mut self, mut observed: Observed) -> Result<()> {
        let names: Vec<String> = self.instance.exports(&mut self.store).map(|e| e.name().to_owned()).collect();
        for name in names {
            match self.instance.get_export(&mut self.store, &name) {
                Some(Extern::Memory(memory)) => observed.memories.push((name, memory)),
                Some(Extern::Global(global)) => observed.globals.push((name, global)),
                Some(Extern::Table(table)) => observed.tables.push(table),
                _ => {}
            }
        }
        let spec = self.store.data().spec.clone();
        let exports = if spec.instrumented { Some(ForkExports::find(&mut self.store, &self.instance)?) } else { None };
        let chosen = spec.memory.as_ref();
        let memory = observed.memories.iter().find(|(name, _)| Some(name) == chosen).map(|(_, memory)| *memory);
        let address = |memory: &Memory| memory.data_ptr(&self.store);
        let same = |other: &&(String, Memory)| memory.is_some_and(|memory| address(&other.1) == address(&memory));
        observed.chosen = observed.memories.iter().filter(same).map(|(name, _)| name.clone()).collect();
        let instance = Some(self.instance);
        let world = self.store.data_mut();
        (world.exports, world.memory, world.instance, world.observed) = (exports, memory, instance, observed);
        world.start_answers = None;
        Ok(())
    }

    /// Makes room for the fork buffer.
    fn place_buffer(&mut self) {
        let spec = self.store.data().spec.clone();
        let Some(memory) = self.store.data().memory else { return };
        let at = |address, size| Buffer { address, size, wide: spec.wide };
        let kept = spec.reserve.max(spec.buffer);
        let wants_to_grow = spec.reserve > 0 || spec.buffer_at.is_none();
        let grown = if wants_to_grow { grow_bytes(&mut self.store, memory, kept + GUARD) } else { None };
        self.store.data_mut().journal.area = match (grown, spec.buffer_at) {
            (Some(address), _) => {
                let end = memory.data_size(&self.store) as u64;
                let hole = address..end;
                Some(Area { buffer: at(address, spec.buffer), limit: address + kept, holes: vec![hole] })
            }
            (None, Some(address)) => {
                let limit = address + spec.buffer;
                let hole = address..limit;
                Some(Area { buffer: at(address, spec.buffer), limit, holes: vec![hole] })
            }
            (None, None) => None,
        };
    }
}

fn new_store(world: World, deadline: Option<Instant>) -> Result<Store<World>> {
    let engine = world.spec.engine.clone();
    let mut store = Store::new(&engine, world);
    let ticks = deadline.map_or(1 << 60, |deadline| {
        let rest = deadline.saturating_duration_since(Instant::now());
        (rest.as_millis() / TICK.as_millis()) as u64 + 1
    });
    store.set_epoch_deadline(ticks);
    Ok(store)
}

/// Everything the module imports, in order. `values` are those of the imported globals in the parent.
fn make_imports(store: &mut Store<World>, values: Option<&[Value]>) -> Result<(Observed, Vec<Extern>)> {
    let module = store.data().spec.module.clone();
    let mut observed = Observed::default();
    let mut imports = Vec::new();
    for (index, import) in module.imports().enumerate() {
        let name = format!("{}.{}", import.module(), import.name());
        imports.push(match import.ty() {
            ExternType::Func(ty) => imports::function(store, index, import.module(), import.name(), ty).into(),
            ExternType::Memory(ty) if ty.is_shared() => SharedMemory::new(module.engine(), ty)?.into(),
            ExternType::Memory(ty) => {
                let memory = Memory::new(&mut *store, ty)?;
                observed.memories.push((name, memory));
                memory.into()
            }
            ExternType::Table(ty) => {
                if !ty.element().is_nullable() {
                    bail!("the harness cannot make the table {name}: its elements cannot be null");
                }
                let null = Ref::null(ty.element().heap_type());
                let table = Table::new(&mut *store, ty, null)?;
                observed.tables.push(table);
                table.into()
            }
            ExternType::Global(ty) => {
                let inherited = values.and_then(|values| values.get(observed.imported_globals.len()));
                let inherited = inherited.and_then(|value| value.to_val(&mut *store, ty.content()));
                let value = match (inherited, ty.mutability()) {
                    (Some(value), _) => value,
                    // It may be the base of segments.
                    (None, Mutability::Const) if ty.content().is_i32() => Val::I32(0),
                    (None, Mutability::Const) if ty.content().is_i64() => Val::I64(0),
                    _ => answers::value(&mut *store, ty.content(), answers::seed(&name, 0, &[]))?,
                };
                let global = Global::new(&mut *store, ty, value)?;
                observed.imported_globals.push(global);
                global.into()
            }
            ExternType::Tag(ty) => Tag::new(&mut *store, &ty)?.into(),
        });
    }
    Ok((observed, imports))
}

/// What a fork must not change, in short.
#[derive(Clone)]
pub(super) struct Fingerprint {
    memories: Vec<(String, u64)>,
    globals: Vec<(String, Value)>,
}

impl Fingerprint {
    /// What is different in `later`.
    pub fn changes(&self, later: &Self) -> Vec<String> {
        let memories = self.memories.iter().zip(&later.memories).filter(|(a, b)| a != b);
        let globals = self.globals.iter().zip(&later.globals).filter(|(a, b)| a != b);
        let memories = memories.map(|((name, _), _)| format!("memory {name} outside the buffer"));
        memories.chain(globals.map(|((name, a), (_, b))| format!("global {name} from {a} to {b}"))).collect()
    }
}

/// The state that strict runs compare.
pub(super) fn fingerprint(mut store: impl AsContextMut<Data = World>) -> Result<Fingerprint> {
    let mut store = store.as_context_mut();
    let observed = store.data().observed.clone();
    let images = observed.memories.iter().map(|(name, memory)| {
        let mut hasher = DefaultHasher::new();
        let data = memory.data(&store);
        let mut from = 0;
        for hole in holes(store.data(), name) {
            data[from..(hole.start as usize).min(data.len())].hash(&mut hasher);
            from = (hole.end as usize).min(data.len());
        }
        data[from..].hash(&mut hasher);
        (name.clone(), hasher.finish())
    });
    let memories = images.collect();
    let globals = globals(&mut store);
    Ok(Fingerprint { memories, globals })
}

/// The values of exported globals.
pub(super) fn globals(mut store: impl AsContextMut<Data = World>) -> Vec<(String, Value)> {
    let mut store = store.as_context_mut();
    let observed = store.data().observed.globals.clone();
    let value = |(name, global): (String, Global)| {
        let value = global.get(&mut store);
        (name, Value::observe(&mut store, &value))
    };
    observed.into_iter().map(value).collect()
}

/// The parts of a memory that are the host's, in order. Other names of the same memory have the same ones.
pub(super) fn holes(world: &World, name: &str) -> Vec<std::ops::Range<u64>> {
    match &world.journal.area {
        Some(area) if world.observed.chosen.iter().any(|chosen| chosen == name) => area.holes.clone(),
        _ => Vec::new(),
    }
}
