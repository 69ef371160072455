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
use crate::carry::Carrier;
use crate::protocol::{Buffer, ForkExports, copy_memory, grow_bytes, is_resume_table, shared_memory};
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
        let world = World::new(spec.clone(), Journal::default(), wasi);
        let mut store = new_store(world, deadline)?;
        if let Limit::Fuel(fuel) = spec.limit {
            store.set_fuel(fuel)?;
        }
        let (observed, imports) = make_imports(&mut store, &[])?;
        let instance = match Instance::new(&mut store, &spec.module, &imports) {
            Ok(instance) => instance,
            Err(error) => return Ok(Err(Box::new(FailedStart { store, error }))),
        };
        let mut machine = Self { store, instance, deadline };
        machine.settle(observed)?;
        machine.place_buffer();
        Ok(Ok(machine))
    }

    /// Puts a fresh instance with the same memories in the place of this one, ready to rewind. What was there is returned.
    pub fn fork(&mut self) -> Result<Machine> {
        if let Some(name) = shared_memory(&self.store.data().spec.module) {
            bail!(
                "the memory {name} is shared, and this host copies none: the one for V8, tests/node/replay.mjs, does"
            );
        }
        let mut store = new_store(self.store.data().of_a_child(), self.deadline)?;
        if let Limit::Fuel(_) = store.data().spec.limit {
            store.set_fuel(self.store.get_fuel()?)?;
        }
        let parent = self.store.data().observed.clone();
        let values = parent.imported_globals.iter().map(|global| {
            let value = global.get(&mut self.store);
            let ty = global.ty(&self.store).content().clone();
            Value::exact(&mut self.store, &value).to_val(&mut store, &ty)
        });
        let values: Vec<Option<Val>> = values.collect();
        let mut child = Self::start(store, &values, self.deadline)?;
        let observed = child.store.data().observed.clone();
        for ((_, from), (_, to)) in parent.memories.iter().zip(&observed.memories) {
            copy_memory(*from, &self.store, *to, &mut child.store)?;
        }
        prepare_resume(&mut child.store)?;
        if child.store.data().spec.carry {
            self.carry_references(&mut child, &parent, &observed)?;
        } else {
            grow_tables(self, &mut child, &parent, &observed)?;
        }
        Ok(std::mem::replace(self, child))
    }

    fn carry_references(&mut self, child: &mut Machine, parent: &Observed, observed: &Observed) -> Result<()> {
        let mut instances = vec![(self.instance, child.instance)];
        instances.extend(self.store.data().resume_instance.zip(child.store.data().resume_instance));
        let mut carrier = Carrier::new(&mut self.store, &mut child.store, &instances);
        for (from, to) in parent.tables.iter().zip(&observed.tables) {
            carrier.copy_table(*from, *to)?;
        }
        for (from, to) in parent.imported_globals.iter().zip(&observed.imported_globals) {
            carrier.copy_global(*from, *to)?;
        }
        Ok(())
    }

    /// A further instance.
    fn start(mut store: Store<World>, values: &[Option<Val>], deadline: Option<Instant>) -> Result<Self> {
        let spec = store.data().spec.clone();
        let (observed, imports) = make_imports(&mut store, values)?;
        let instance = Instance::new(&mut store, &spec.module, &imports).context("a fresh instance")?;
        let mut machine = Self { store, instance, deadline };
        machine.settle(observed)?;
        Ok(machine)
    }

    /// Notes what the instance exports.
    fn settle(&mut self, mut observed: Observed) -> Result<()> {
        let names: Vec<String> = self.instance.exports(&mut self.store).map(|e| e.name().to_owned()).collect();
        for name in names {
            match self.instance.get_export(&mut self.store, &name) {
                Some(Extern::Memory(memory)) => observed.memories.push((name, memory)),
                Some(Extern::Global(global)) => observed.globals.push((name, global)),
                Some(Extern::Table(table)) if !is_resume_table(&name) => observed.tables.push(table),
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

/// The child's tables get the sizes of the parent's.
fn grow_tables(from: &Machine, to: &mut Machine, parent: &Observed, observed: &Observed) -> Result<()> {
    for (theirs, ours) in parent.tables.iter().zip(&observed.tables) {
        let missing = theirs.size(&from.store).saturating_sub(ours.size(&to.store));
        let element = ours.ty(&to.store).element().clone();
        if missing > 0 && element.is_nullable() {
            ours.grow(&mut to.store, missing, Ref::null(element.heap_type()))?;
        }
    }
    Ok(())
}

fn new_store(world: World, deadline: Option<Instant>) -> Result<Store<World>> {
    let engine = world.spec.engine.clone();
    let mut store = Store::new(&engine, world);
    let ticks = deadline.map_or(1 << 60, |deadline| {
        let rest = deadline.saturating_duration_since(Instant::now());
        (rest.as_millis() / TICK.as_millis()) as u64 + 1
    });
    store.set_epoch_deadline(ticks);
    store.limiter(|world| &mut world.limits);
    Ok(store)
}

/// Everything the module imports, in order. `values` are those of the imported globals in the parent.
fn make_imports(store: &mut Store<World>, values: &[Option<Val>]) -> Result<(Observed, Vec<Extern>)> {
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
                let inherited = values.get(observed.imported_globals.len()).cloned().flatten();
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
    let mut globals = globals(&mut store);
    // What the two modules share is the runtime's state, or the program's in resume functions as well.
    if let Some(resume) = &store.data().spec.resume {
        globals.retain(|(name, _)| !resume.imports().any(|import| import.name() == name));
    }
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
