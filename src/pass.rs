//! The pass, stage by stage.

mod input;
mod locals;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi;
use crate::analysis::fork_path::{ForkPath, kind};
use crate::analysis::listing::Listing;
use crate::analysis::outlining::{self, Search};
use crate::analysis::references::{ReferenceRules, Refusal};
use crate::analysis::regions::Joined;
use crate::analysis::state::HiddenState;
use crate::analysis::{self, Planner};
use crate::error::Error;
use crate::frame::lay_out_masks;
use crate::ir::{self, Function, GlobalRow, Hierarchy, Module, Name, Pass, TableRow, Type};
use crate::limits;
use crate::options::{self, Options, Refs, Sharing};
use crate::output;
use crate::plan::{Callee, FunctionNumber, FunctionPlan};
use crate::separate;
use crate::transform;
use crate::transform::references::{self, ReferenceNeeds};
use crate::transform::roots::{self, Roots};
use crate::transform::runtime::{self, ResumeTable, Runtime, RuntimeNeeds};
use crate::transform::{asserts, declarations, linking, resume, state, unwind};
use crate::verify::{self, Before, Made};

/// Whether this pass has instrumented the module, or has begun to: where the pipeline is repeated, it finds its own section.
static HAS_RUN: AtomicBool = AtomicBool::new(false);

/// Puts the pass into Binaryen's registry.
pub fn register() {
    ir::register_pass(options::PASS_NAME, &options::description(), |pass, module, argument| {
        run(pass, module, argument).map_err(|e| format!("--fork-instrument: {e}"))
    });
}

fn run<'m>(pass: Pass<'m>, module: Module<'m>, argument: &str) -> Result<(), Error> {
    let options = Options::parse(argument, &pass.arguments())?;
    if let Some(file) = options.resume.as_ref().filter(|file| output::is_taken(Path::new(file))) {
        return Err(options::bad("resume", file, "the first module goes there: give the second a file of its own"));
    }
    if output::converges() && HAS_RUN.load(Ordering::Relaxed) && module.has_custom_section(abi::SECTION) {
        // The pipeline runs again; this pass has done its work.
        return Ok(());
    }
    if let Some(file) = &options.resume {
        let cannot = |e| options::bad("resume", file, &format!("the file cannot be written: {e}"));
        output::writable(Path::new(file)).map_err(cannot)?;
    }
    let Some(path) = input::find_path(module, &options)? else {
        if let Some(file) = &options.resume {
            output::add(Path::new(file), separate::nothing(output::is_text()));
        }
        return Ok(());
    };
    HAS_RUN.store(true, Ordering::Relaxed);
    instrument(pass, module, &options, path)
}

fn instrument<'m>(pass: Pass<'m>, module: Module<'m>, options: &Options, path: ForkPath) -> Result<(), Error> {
    input::modernize_exceptions(pass, module, &path)?;
    input::check_linking(pass, module, options)?;
    input::check_globals(module, options)?;
    let memory = input::choose_memory(module, options)?;
    let mut runtime = Runtime::new(module, memory);
    runtime.separate = options.resume.is_some();
    runtime.sharing = options.sharing;
    runtime.asserts = options.asserts;
    let mut hidden = HiddenState::find(module, &path, options)?;
    state::prepare(module, &mut runtime, &mut hidden)?;
    let globals = globals_to_save(module, &path, options, &hidden)?;
    declarations::add(module, &mut runtime, options)?;
    asserts::add(module, &runtime, &path);

    let functions: Vec<Function> = path.defined().iter().map(|&f| module.function_at(path.function(f))).collect();
    module.relax_bottom_results(&functions);
    pass.run_on_functions(module, &functions, &["dce"]).map_err(Error::Binaryen)?;
    locals::share(pass, module, &path, &functions, options)?;
    transform::joins::add_markers(module, &runtime);
    let rules = reference_rules(module, &path, options);
    let planner = Planner { module, path: &path, options, rules };
    let mut plans = make_plans(pass, &planner, &functions, &runtime)?;
    number_functions(&path, &functions, &mut plans);
    if !options.asserts && options.sharing == Sharing::None && pass.shrink_level() == 0 {
        analysis::in_line::choose(&path, &mut plans);
    }
    if options.verbose {
        plans.iter().filter_map(FunctionPlan::explain_operands).for_each(|line| eprintln!("{line}"));
    }
    let masks = lay_out_masks(&mut plans);
    let resumable: Vec<&FunctionPlan> = plans.iter().filter(|p| p.has_own_resume()).collect();
    let roots = find_roots(module, &path, options);

    let before = options.verify.then(|| Before::of(pass, module, &plans));
    let resume_functions = add_resume_functions(module, &mut runtime, &functions, &plans);
    check_numbers(resumable.len(), &runtime.table)?;
    runtime::add_default_results(module, &mut runtime, &resumable)?;
    let references = ReferenceNeeds::of(module, &path, &resumable, &globals);
    let results = root_results(module, &roots);
    let mut needs = RuntimeNeeds::of(&resumable, globals, references, &runtime, &results);
    needs.masks = masks;
    runtime::add(module, &mut runtime, &needs)?;
    runtime::add_reference_finishers(module, &runtime);
    fill_table(module, &runtime)?;
    linking::raise_reserve_at_start(module, &runtime);
    let is_closed = !path.is_shared();
    // What else it said is in the plans, and it is as large as they are.
    drop(path);
    let rewriting = Rewriting { module, runtime: &runtime, functions: &functions, resume_functions: &resume_functions };
    let plans = rewriting.carry_out(pass, plans, options.verify);
    roots::add(module, &runtime, &roots);
    state::export(module, &hidden);
    if let Some(before) = before {
        if let Some(tamper) = verify::TAMPER.get() {
            tamper(module);
        }
        let shares_frames = options.sharing != Sharing::None;
        let made = Made { plans: &plans, resume_names: &runtime.resume_names, shares_frames, is_closed };
        verify::verify(pass, module, &before, &made)?;
    }
    remove_markers(pass, module, &runtime, &[functions, resume_functions.clone()].concat());
    clean_up(pass, module, &mut runtime, &resume_functions)?;
    if let Some(file) = &options.resume {
        let second = separate::separate(pass, module, &runtime, output::is_text())?;
        output::add(Path::new(file), second);
    }
    put_busy_helpers_first(module, &runtime);
    Ok(())
}

/// The module's own mutable globals, less references that keep their first value in its first state.
fn globals_to_save(
    module: Module<'_>,
    path: &ForkPath,
    options: &Options,
    hidden: &HiddenState,
) -> Result<Vec<GlobalRow>, Error> {
    let mut globals: Vec<GlobalRow> = module.globals();
    let constant = constant_globals(module, path);
    globals.retain(|g| g.mutable_ && !g.imported);
    let is_constant = |g: &GlobalRow| constant.contains(&g.name) && !hidden.globals.contains(&g.name);
    globals.retain(|g| Type::from_id(g.type_id).is_numeric() || !is_constant(g));
    let is_kept = |g: &GlobalRow| match Type::from_id(g.type_id).hierarchy() {
        Hierarchy::None | Hierarchy::I31 => true,
        Hierarchy::Function | Hierarchy::Extern | Hierarchy::Any => options.refs == Refs::Tables,
        Hierarchy::Exception | Hierarchy::Other => false,
    };
    let Some(global) = globals.iter().find(|g| !is_kept(g)) else { return Ok(globals) };
    let name = global.name.clone();
    Err(match Type::from_id(global.type_id).hierarchy() {
        Hierarchy::Exception | Hierarchy::Other => Error::UnkeepableGlobal(name),
        _ => Error::ReferenceGlobal(name),
    })
}

/// Names of what the program writes, of one kind.
fn written(path: &ForkPath, kind: u32) -> HashSet<String> {
    path.sites(kind).filter_map(|site| site.target()).map(Name::text).collect()
}

/// Globals that keep the value that they start with.
fn constant_globals(module: Module<'_>, path: &ForkPath) -> Vec<String> {
    let mut changing: HashSet<String> = written(path, kind::GLOBAL_WRITE);
    changing.extend(module.exports().into_iter().filter(|e| e.kind == 3).map(|e| e.item));
    let is_constant = |g: &GlobalRow| !g.mutable_ || !g.imported && !changing.contains(&g.name);
    module.globals().into_iter().filter(is_constant).map(|g| g.name).collect()
}

fn reference_rules(module: Module<'_>, path: &ForkPath, options: &Options) -> ReferenceRules {
    let mut written = written(path, kind::TABLE_WRITE);
    written.extend(module.exports().into_iter().filter(|e| e.kind == 1).map(|e| e.item));
    let is_constant = |t: &TableRow| !t.imported && !written.contains(&t.name);
    let mut tables: Vec<String> = module.tables().into_iter().filter(is_constant).map(|t| t.name).collect();
    let mut globals = constant_globals(module, path);
    tables.sort_unstable();
    globals.sort_unstable();
    ReferenceRules { tables, globals, refs: options.refs }
}

fn make_plans<'m>(
    pass: Pass<'m>,
    planner: &Planner<'_, 'm>,
    functions: &[Function<'m>],
    runtime: &Runtime,
) -> Result<Vec<FunctionPlan>, Error> {
    let (module, path) = (planner.module, planner.path);
    let indices = path.defined();
    let plans: Vec<Mutex<Option<Result<FunctionPlan, Refusal<'m>>>>> =
        functions.iter().map(|_| Mutex::new(None)).collect();
    let is_too_large = AtomicBool::new(false);
    pass.for_each_function(functions, &|i, function| {
        let mut listing = Listing::of(function);
        // Each expression takes a byte or more.
        if listing.row_count() > limits::BODY || function.local_types().len() > limits::LOCALS {
            is_too_large.store(true, Ordering::Relaxed);
        }
        // Finding out what is live can change code that cannot be reached.
        let liveness = analysis::joins::has_handlers(&listing).then(|| path.liveness(module, function));
        if liveness.is_some() {
            listing = Listing::of(function);
        }
        let joins = analysis::joins::find(module, path, function, &listing, liveness.as_ref());
        let joined = transform::joins::mark(module, runtime, &listing, &joins);
        // The plan makes another, of the marked body, and each can be larger than the body.
        drop(listing);
        let plan = |joined: &Joined| planner.plan(function, indices[i], joined);
        let plan = plan(&joined).or_else(|refusal| {
            // What the function has to do with references may be different for each of the calls that meet.
            if joins.is_empty() {
                return Err(refusal);
            }
            function.remove_markers(module, &transform::joins::markers(runtime));
            plan(&Joined::default())
        });
        *plans[i].lock().expect("no thread panicked") = Some(plan);
    });
    if !is_too_large.into_inner() {
        output::limit();
    }
    let plans = plans
        .into_iter()
        .map(|slot| slot.into_inner().expect("no thread panicked").expect("every function was planned"))
        .map(|plan| plan.map_err(|refusal| refusal.into_error(module)))
        .collect::<Result<Vec<_>, _>>()?;
    check_sites(&plans)?;
    Ok(plans)
}

/// Sites are chosen by a `br_table`, and take two bytes in frames.
fn check_sites(plans: &[FunctionPlan]) -> Result<(), Error> {
    let most = limits::BRANCH_TARGETS - 1;
    let Some(plan) = plans.iter().find(|plan| plan.landings.len() > most) else { return Ok(()) };
    Err(Error::TooManyLandings { function: plan.function.clone(), count: plan.landings.len(), most })
}

/// Without a table, a `br_table` chooses among functions by their numbers.
fn check_numbers(count: usize, table: &ResumeTable) -> Result<(), Error> {
    let most = limits::BRANCH_TARGETS - 1;
    match table {
        ResumeTable::Switch if count > most => Err(Error::TooManyFunctions { count, most }),
        _ => Ok(()),
    }
}

/// Numbers the functions that can be suspended, equal ones alike, and resolves what landings resume.
fn number_functions<'m>(path: &ForkPath, functions: &[Function<'m>], plans: &mut [FunctionPlan]) {
    let mut numbers: HashMap<u32, FunctionNumber> = HashMap::new();
    // Functions with a resume function of their own, by the hash of their bodies.
    let mut owners: HashMap<u64, Vec<(Function<'m>, FunctionNumber)>> = HashMap::new();
    let mut next = FunctionNumber(0);
    let defined = path.defined().into_iter().zip(functions);
    for ((index, &function), plan) in defined.zip(plans.iter_mut()).filter(|(_, p)| p.is_resumable()) {
        let same_hash = owners.entry(function.body().hash()).or_default();
        match same_hash.iter().find(|(owner, _)| owner.same_as(function)) {
            Some(&(_, number)) => (plan.number, plan.shares_resume) = (number, true),
            None => {
                plan.number = next;
                same_hash.push((function, next));
                next.0 += 1;
            }
        }
        if !plan.elides {
            numbers.insert(index, plan.number);
        }
    }
    for landing in plans.iter_mut().flat_map(|p| &mut p.landings) {
        if let Some(callee) = landing.direct.and_then(|f| numbers.get(&f)) {
            landing.callee = Callee::Function(*callee);
        }
    }
}

fn find_roots(module: Module<'_>, path: &ForkPath, options: &Options) -> Roots {
    let mut exported: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for export in module.exports().into_iter().filter(|e| e.kind == 0) {
        if path.is_defined(Name::of(&export.item)) {
            exported.entry(export.item).or_default().push(export.name);
        }
    }
    let in_tables = path.in_tables();
    let mut resume_exports: Vec<Type> = in_tables.iter().map(|&f| Type::from_id(path.function(f).results)).collect();
    // Exceptions do not go through hosts.
    let is_plain = |r: &Type| {
        let is_plain = |t: &Type| !matches!(t.hierarchy(), Hierarchy::Exception | Hierarchy::Other);
        r.components().iter().all(is_plain)
    };
    resume_exports.retain(is_plain);
    resume_exports.iter_mut().for_each(|r| *r = r.top());
    resume_exports.sort_unstable();
    resume_exports.dedup();
    let named = |name: &str| match &options.roots {
        Some(patterns) => patterns.iter().any(|p| p.matches(name)),
        None => path.has_open_place(),
    };
    // A host can tell whether an export is the same function as one that it gets otherwise: no wrapper is.
    let referenced: HashSet<Name> = path.sites(kind::REF_FUNC).filter_map(|site| site.target()).collect();
    let is_seen =
        |name: &String| exported.contains_key(name) && (path.has_open_place() || referenced.contains(&Name::of(name)));
    let mut tested: BTreeSet<String> =
        in_tables.into_iter().map(|f| path.function(f).name().text()).filter(|n| named(n) || is_seen(n)).collect();
    tested.extend(exported.keys().filter(|name| path.is_only_exported(Name::of(name))).cloned());
    let wrapped = exported.into_iter().filter(|(name, _)| !tested.contains(name)).collect();
    Roots { wrapped, tested, resume_exports }
}

/// Results of what roots resume.
fn root_results(module: Module<'_>, roots: &Roots) -> Vec<Type> {
    let mut results: Vec<Type> =
        roots.wrapped.keys().chain(&roots.tested).map(|name| module.function(name).results()).collect();
    results.extend(&roots.resume_exports);
    results
}

/// The resume functions, by number; they are still empty.
fn add_resume_functions<'m>(
    module: Module<'m>,
    runtime: &mut Runtime,
    functions: &[Function<'m>],
    plans: &[FunctionPlan],
) -> Vec<Function<'m>> {
    let mut added = Vec::new();
    for (&function, plan) in functions.iter().zip(plans).filter(|(_, p)| p.has_own_resume()) {
        // Names with the prefix are those of helpers: a function may be named like it.
        let mut name = plan.function.clone();
        let resumed = |name: &str| format!("{name}.resume");
        while module.has_function(&resumed(&name)) || resumed(&name).starts_with(&runtime.name("")) {
            name.push('_');
        }
        let name = resumed(&name);
        added.push(module.add_resume_function(function, &name));
        runtime.resume_names.push(name);
    }
    runtime.table = choose_table(module, runtime);
    added
}

/// Where resume functions are reached through: a table of ours; without reference types, which a second table needs, a
/// switch, or, for a separate module, the end of the module's own table.
fn choose_table(module: Module<'_>, runtime: &Runtime) -> ResumeTable {
    let tables = module.tables();
    match tables.as_slice() {
        // In the module's own table a wrong index that trapped could reach a resume function.
        [own] if !module.facts().reference_types => {
            if own.imported || !own.of_functions || !runtime.separate {
                return ResumeTable::Switch;
            }
            if module.exports().iter().any(|export| export.kind == 1 && export.item == own.name) {
                input::warn(
                    "resume functions go behind the end of the exported table, and hosts that count on its size find another: pass \
                     --enable-reference-types if the engine has it",
                );
            }
            ResumeTable::Table { name: own.name.clone(), base: own.initial, is64: own.is64 }
        }
        _ => ResumeTable::Table { name: runtime.name("resume"), base: 0, is64: false },
    }
}

/// Puts the resume functions, and what else is reached that way, into the table.
fn fill_table(module: Module<'_>, runtime: &Runtime) -> Result<(), Error> {
    let ResumeTable::Table { name, .. } = &runtime.table else { return Ok(()) };
    let functions = runtime.table_functions();
    if runtime.sharing != Sharing::None {
        return linking::add_table(module, runtime, name, &functions);
    }
    if module.tables().iter().any(|t| t.name == *name) {
        module.extend_function_table(name, &functions);
    } else {
        module.add_function_table(name, &functions);
    }
    Ok(())
}

/// The functions of the fork path, and the resume functions by number.
struct Rewriting<'a, 'm> {
    module: Module<'m>,
    runtime: &'a Runtime,
    functions: &'a [Function<'m>],
    resume_functions: &'a [Function<'m>],
}

impl<'m> Rewriting<'_, 'm> {
    /// Carries out the plans. Each is dropped at once, unless they are to be kept: together they are as large as the
    /// code.
    fn carry_out(&self, pass: Pass<'m>, plans: Vec<FunctionPlan>, keep: bool) -> Vec<FunctionPlan> {
        let plans: Vec<Mutex<Option<FunctionPlan>>> = plans.into_iter().map(|p| Mutex::new(Some(p))).collect();
        pass.for_each_function(self.functions, &|i, function| {
            let mut slot = plans[i].lock().expect("no thread panicked");
            let plan = slot.take().expect("each function is rewritten once");
            self.rewrite(function, &plan);
            *slot = keep.then_some(plan);
        });
        plans.into_iter().filter_map(|slot| slot.into_inner().expect("no thread panicked")).collect()
    }

    fn rewrite(&self, function: Function<'m>, plan: &FunctionPlan) {
        if plan.has_own_resume() {
            let resumed = self.resume_functions[plan.number.0 as usize];
            resume::write(self.module, function, resumed, plan, self.runtime);
            resumed.flatten_blocks();
        } else {
            // Its frames are another's, whose resume function makes references again of the same numbers.
            references::keep_captures(self.module, function, plan);
        }
        if plan.is_resumable() {
            unwind::instrument(self.module, function, plan, self.runtime);
            function.flatten_blocks();
        }
    }
}

fn remove_markers<'m>(pass: Pass<'m>, module: Module<'m>, runtime: &Runtime, functions: &[Function<'m>]) {
    let markers = transform::joins::markers(runtime);
    pass.for_each_function(functions, &|_, function| {
        function.remove_markers(module, &markers);
        function.flatten_blocks();
    });
    module.remove_functions(&markers);
}

/// Removes what the instrumentation left behind. Binaryen does not write blocks without a name, so that flattening them
/// is for readers of the text, and for passes that follow; dead code and names that nothing branches to cost bytes.
fn clean_up<'m>(
    pass: Pass<'m>,
    module: Module<'m>,
    runtime: &mut Runtime,
    resume_functions: &[Function<'m>],
) -> Result<(), Error> {
    let run = |passes: &[&str]| pass.run_on_functions(module, resume_functions, passes).map_err(Error::Binaryen);
    run(&["dce", "remove-unused-names"])?;
    let mut functions = resume_functions.to_vec();
    if runtime.separate {
        let moving = separate::moving(module, runtime)?;
        functions.retain(|function| moving.contains(&Name::of(&function.name())));
    }
    functions.retain(|&function| outlining::can_be_searched(function));
    outline(pass, module, runtime, &functions);
    run(&["reorder-locals"])
}

/// Functions that are searched for code that occurs again at a time, since each takes memory.
const OUTLINED_TOGETHER: usize = 4000;

/// How often code is searched: calls of what has been outlined are in code that occurs again.
const SEARCHES: u32 = 3;

/// Makes functions of code that occurs again in these.
fn outline<'m>(pass: Pass<'m>, module: Module<'m>, runtime: &mut Runtime, functions: &[Function<'m>]) {
    for functions in functions.chunks(OUTLINED_TOGETHER) {
        let mut functions = functions.to_vec();
        let mut search = Search::Everything;
        // Calls are what frames in line are to spare.
        let fixed = Name::of(&runtime.position_global());
        for _ in 0..SEARCHES {
            let outlined = outlining::find(pass, module, &functions, fixed, &search);
            let names = transform::outline::outline(module, runtime, &outlined);
            let places = outlined.iter().flat_map(|outlined| &outlined.places);
            let changed: HashSet<Function<'m>> = places.map(|place| place.function).collect();
            functions.retain(|function| changed.contains(function));
            functions.extend(names.iter().map(|name| module.function(name)));
            search = Search::Around(names.iter().map(|name| Name::of(name)).collect());
            runtime.outlined.extend(names);
        }
    }
}

/// Calls of a helper that pay for its being among the first functions, which makes the indices of others longer.
const BUSY: u32 = 50;

/// Helpers that are called from very many places get the shortest indices.
fn put_busy_helpers_first(module: Module<'_>, runtime: &Runtime) {
    module.put_functions_first(&module.functions_with_calls(&runtime.name(""), BUSY));
}
