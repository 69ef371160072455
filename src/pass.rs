//! The pass, stage by stage.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi;
use crate::analysis;
use crate::analysis::fork_path::{ForkPath, kind};
use crate::analysis::legacy::find_landing_in_catch;
use crate::analysis::listing::Listing;
use crate::analysis::references::{ReferenceRules, Refusal};
use crate::analysis::regions::Joined;
use crate::analysis::state::HiddenState;
use crate::error::Error;
use crate::frame::lay_out_masks;
use crate::ir::{
    self, CallSite, Function, FunctionImport, GlobalRow, Hierarchy, Kind, MemoryRow, Module, Name, Node, Pass,
    TableRow, Type,
};
use crate::limits;
use crate::options::{self, Options, Refs, Sharing};
use crate::output;
use crate::plan::{Callee, FunctionNumber, FunctionPlan};
use crate::separate;
use crate::transform;
use crate::transform::references::ReferenceNeeds;
use crate::transform::roots::{self, Roots};
use crate::transform::runtime::{self, FrameMemory, ResumeTable, Runtime, RuntimeNeeds};
use crate::transform::{asserts, declarations, linking, resume, state, unwind};
use crate::verify::{self, Before, Made};

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
    if output::converges() && module.has_custom_section(abi::SECTION) {
        // The pipeline runs again; this pass has done its work.
        return Ok(());
    }
    let Some(path) = find_path(module, &options)? else {
        if let Some(file) = &options.resume {
            output::add(Path::new(file), separate::nothing(output::is_text()));
        }
        return Ok(());
    };
    modernize_exceptions(pass, module, &path)?;
    let several = linking::option_of_several_modules(&options);
    if let Some(option) = several.filter(|_| pass.is_closed_world()) {
        return Err(Error::ClosedWorld(option));
    }
    if let Some(option) = several.filter(|_| !module.facts().mutable_globals) {
        return Err(Error::NoMutableGlobals(option));
    }
    linking::check_features(module, options.sharing)?;
    let memory = choose_memory(module, &options)?;
    let mut runtime = Runtime::new(module, memory);
    runtime.separate = options.resume.is_some();
    runtime.sharing = options.sharing;
    runtime.asserts = options.asserts;
    let mut hidden = HiddenState::find(module, &path, &options)?;
    state::prepare(module, &mut runtime, &mut hidden)?;
    let globals = globals_to_save(module, &path, &options, &hidden)?;
    declarations::add(module, &mut runtime, &options)?;
    asserts::add(module, &runtime, &path);

    let functions: Vec<Function> = path.defined().iter().map(|&f| module.function_at(path.function(f))).collect();
    module.relax_bottom_results(&functions);
    pass.run_on_functions(module, &functions, &["dce"]).map_err(Error::Binaryen)?;
    transform::joins::add_markers(module, &runtime);
    let mut plans = make_plans(pass, module, &path, &functions, &options, &runtime)?;
    number_functions(&path, &functions, &mut plans);
    if options.verbose {
        plans.iter().filter_map(FunctionPlan::explain_operands).for_each(|line| eprintln!("{line}"));
    }
    let masks = lay_out_masks(&mut plans);
    let resumable: Vec<&FunctionPlan> = plans.iter().filter(|p| p.has_own_resume()).collect();
    let roots = find_roots(module, &path, &options);

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
    let plans = rewrite(pass, module, &runtime, &functions, &resume_functions, plans, options.verify);
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
    clean_up(pass, module, &resume_functions)?;
    if let Some(file) = &options.resume {
        let second = separate::separate(pass, module, &runtime, output::is_text())?;
        output::add(Path::new(file), second);
    }
    put_busy_helpers_first(module, &runtime);
    Ok(())
}

/// The fork path, of a module that can be instrumented; none if there is nothing to instrument.
fn find_path(module: Module<'_>, options: &Options) -> Result<Option<ForkPath>, Error> {
    check_not_instrumented(module)?;
    module.replace_unusable_names();
    check_entries(module, options)?;
    let calls = replace_entry_references(module, options);
    let mut path = ForkPath::discover(module, options, calls);
    if !path.has_entry() {
        // Those of a module that is linked dynamically go into the buffer of the others.
        let is_own = |g: &GlobalRow| g.mutable_ && !g.imported;
        if options.sharing == Sharing::None || !module.globals().iter().any(is_own) {
            warn_about_entries(module, options, "it is left as it is");
            return Ok(None);
        }
        warn_about_entries(module, options, "only its globals are saved");
    }
    if module.give_up_exactness() {
        path = ForkPath::discover(module, options, module.calls());
    }
    for entry in path.unmatched_entries(&options.entry).filter(|_| path.has_entry()) {
        warn(&format!("entry: the module does not import {}", entry.text()));
    }
    check_roots(&path, options)?;
    warn_about_lists(&path, options);
    check_intrinsics(module, &path)?;
    if options.verbose {
        path.explain().iter().for_each(|line| eprintln!("{line}"));
    }
    check_start(module, &path)?;
    check_stacks(module, &path)?;
    Ok(Some(path))
}

fn warn(message: &str) {
    eprintln!("warning: --fork-instrument: {message}");
}

fn check_not_instrumented(module: Module<'_>) -> Result<(), Error> {
    if module.has_custom_section(abi::SECTION) {
        return Err(Error::AlreadyInstrumented(abi::SECTION));
    }
    let functions = module.function_imports().into_iter().map(|import| import.path);
    let others = module.other_imports().into_iter().map(|(path, _)| path);
    if functions.chain(others).any(|path| path.starts_with(&format!("{}.", abi::RESUME_MODULE))) {
        return Err(Error::ResumeModule(abi::RESUME_MODULE));
    }
    match module.exports().into_iter().find(|e| abi::is_export(&e.name)) {
        Some(export) => Err(Error::ExportTaken(export.name)),
        None => Ok(()),
    }
}

/// An entry that is imported, but not as a function, is a mistake.
fn check_entries(module: Module<'_>, options: &Options) -> Result<(), Error> {
    for (name, kind) in module.other_imports() {
        if let Some(entry) = options.entry.iter().find(|p| !p.text().ends_with('*') && p.text() == name) {
            return Err(Error::EntryNotAFunction(entry.text().into(), kind));
        }
    }
    Ok(())
}

/// A frame with the entry's arguments must exist: where an entry import is exported, referenced or tail-called, a
/// function that calls it takes its place. Returns the module's calls afterwards.
fn replace_entry_references(module: Module<'_>, options: &Options) -> Vec<CallSite> {
    let is_entry = |f: &FunctionImport| options.entry.iter().any(|p| p.matches(&f.path));
    let calls = module.calls();
    let mut used: HashSet<Name> = module.references().iter().filter_map(|r| r.function()).collect();
    used.extend(module.exports().iter().filter(|e| e.kind == 0).map(|e| Name::of(&e.item)));
    let is_use = |c: &&CallSite| c.kind == kind::REF_FUNC || c.kind == kind::CALL && c.is_return;
    used.extend(calls.iter().filter(is_use).filter_map(|c| c.target()));
    let imports = module.function_imports().into_iter();
    let entries: Vec<FunctionImport> = imports.filter(|f| is_entry(f) && used.contains(&f.name())).collect();
    if entries.is_empty() {
        return calls;
    }
    for entry in entries {
        let entry = entry.name().text();
        let mut name = format!("fork_entry.{entry}");
        while module.has_function(&name) {
            name.push('_');
        }
        let import = module.function(&entry);
        let wrapper = module.add_function_like(import, &name);
        let build = module.build();
        let arguments: Vec<_> =
            wrapper.local_types().into_iter().enumerate().map(|(i, t)| build.local_get(i as u32, t)).collect();
        wrapper.set_body(build.call(&entry, &arguments, import.results()));
        module.replace_references(&entry, &name);
    }
    module.calls()
}

/// For a module that does not import an entry, or not under that name.
fn warn_about_entries(module: Module<'_>, options: &Options, consequence: &str) {
    let entries: Vec<&str> = options.entry.iter().map(|p| p.text()).collect();
    let imports: Vec<String> = module.function_imports().into_iter().map(|f| f.path).collect();
    let base = |name: &str| name.rsplit('.').next().unwrap_or_default().to_string();
    let same_base = imports.iter().find(|i| entries.iter().any(|e| base(i) == base(e)));
    let near = || entries.iter().find_map(|e| options::closest(e, imports.iter().map(|i| (i.as_str(), i))));
    let remedy = match same_base.or_else(near).or_else(|| imports.iter().find(|i| base(i).contains("fork"))) {
        Some(import) => format!(". It imports {import}: did you mean --pass-arg=fork-instrument-entry@{import}?"),
        None if imports.is_empty() => ". It imports no functions".into(),
        None => ". --pass-arg=fork-instrument-entry@module.name names the import that forks".into(),
    };
    warn(&format!("the module does not import the entry {}: {consequence}{remedy}", entries.join(", ")));
}

fn warn_about_lists(path: &ForkPath, options: &Options) {
    let lists = [
        ("onlylist", options.only_list.as_deref().unwrap_or(&[])),
        ("addlist", options.add_list.as_slice()),
        ("removelist", options.remove_list.as_slice()),
        ("roots", options.roots.as_deref().unwrap_or(&[])),
    ];
    for (list, patterns) in lists {
        for pattern in path.unmatched(patterns) {
            warn(&format!("{list}: no function is named {}", pattern.text()));
        }
    }
}

fn check_start(module: Module<'_>, path: &ForkPath) -> Result<(), Error> {
    let start = module.facts().start;
    if start.is_empty() || !path.is_on_path(Name::of(&start)) {
        return Ok(());
    }
    Err(if path.is_entry(Name::of(&start)) { Error::StartIsEntry(start) } else { Error::StartForks(start) })
}

/// A root that is not there leaves the function that was meant without its test, which hosts would enter anew.
fn check_roots(path: &ForkPath, options: &Options) -> Result<(), Error> {
    // Modules that are linked dynamically can have one list for all.
    let roots = options.roots.as_deref().filter(|_| options.sharing == Sharing::None).unwrap_or(&[]);
    let Some(gone) = path.unmatched(roots).find(|pattern| !pattern.text().ends_with('*')) else { return Ok(()) };
    let problem = "no function has this name, and whichever was meant would not be resumed. Exports can have other names than their \
                   functions";
    Err(options::bad("roots", gone.text(), problem))
}

/// Binaryen makes a call of its operand out of this one.
const CALL_WITHOUT_EFFECTS: &str = "binaryen-intrinsics.call.without.effects";

fn check_intrinsics(module: Module<'_>, path: &ForkPath) -> Result<(), Error> {
    let mut imports = module.function_imports().into_iter();
    let Some(intrinsic) = imports.find(|import| import.path == CALL_WITHOUT_EFFECTS) else { return Ok(()) };
    match module.calls().iter().find(|call| call.kind == kind::CALL && call.target() == Some(intrinsic.name())) {
        Some(call) => {
            Err(Error::Intrinsic { function: path.function(call.caller).name().text(), call: CALL_WITHOUT_EFFECTS })
        }
        None => Ok(()),
    }
}

/// A fork on one stack cannot save the others.
fn check_stacks(module: Module<'_>, path: &ForkPath) -> Result<(), Error> {
    match path.sites(kind::STACK_SWITCH).next() {
        Some(site) if !path.defined().is_empty() => {
            let function = module.function_at(path.function(site.caller));
            let is_switch = |node: &&Node| node.kind() == Kind::StackSwitch;
            let call = function.nodes().iter().find(is_switch).map(|node| module.print_expression(node.expr()));
            Err(Error::SeveralStacks { function: function.name(), call: call.unwrap_or_default() })
        }
        _ => Ok(()),
    }
}

/// Translates legacy exception handling if a catch body has a landing.
fn modernize_exceptions<'m>(pass: Pass<'m>, module: Module<'m>, path: &ForkPath) -> Result<(), Error> {
    let Some(landing) = find_landing_in_catch(module, path) else { return Ok(()) };
    let (function, call) = (landing.function, landing.call);
    let facts = module.facts();
    if !facts.multivalue || !facts.reference_types {
        return Err(Error::LandingInLegacyCatch { function, call });
    }
    warn(&format!(
        "function {function} forks in a catch body, at the call {call}: the module is translated to modern exception \
         handling (try_table), and engines that run it must support that"
    ));
    pass.run_on_module(module, "translate-to-exnref").map_err(Error::Binaryen)
}

fn choose_memory(module: Module<'_>, options: &Options) -> Result<FrameMemory, Error> {
    let memories = module.memories();
    let exports: Vec<_> = module.exports().into_iter().filter(|export| export.kind == 2).collect();
    let export_of = |m: &MemoryRow| exports.iter().find(|export| export.item == m.name && export.name != m.name);
    let describe = |m: &MemoryRow| match export_of(m) {
        Some(export) => format!("{} (exported as {})", m.name, export.name),
        None => m.name.clone(),
    };
    let known = || memories.iter().map(describe).collect::<Vec<_>>().join(", ");
    let chosen = match (&options.memory, memories.as_slice()) {
        (Some(name), _) => {
            let exported = || exports.iter().find(|export| export.name == *name).map(|export| &export.item);
            let named = |name: &str| memories.iter().find(|m| m.name == name);
            let chosen = named(name).or_else(|| named(exported()?));
            chosen.ok_or_else(|| Error::UnknownMemory(name.clone(), known()))?
        }
        // The declarations add it, and name it.
        (None, _) if options.secondary_memory.is_some() => {
            return Ok(FrameMemory { name: String::new(), is64: false, shared: false });
        }
        (None, []) => return Err(Error::NoMemory),
        (None, [single]) => single,
        (None, _) => return Err(Error::SeveralMemories(known())),
    };
    Ok(FrameMemory { name: chosen.name.clone(), is64: chosen.is64, shared: chosen.shared })
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
    let tables = module.tables().into_iter().filter(is_constant).map(|t| t.name).collect();
    ReferenceRules { tables, globals: constant_globals(module, path), refs: options.refs }
}

fn make_plans<'m>(
    pass: Pass<'m>,
    module: Module<'m>,
    path: &ForkPath,
    functions: &[Function<'m>],
    options: &Options,
    runtime: &Runtime,
) -> Result<Vec<FunctionPlan>, Error> {
    let rules = reference_rules(module, path, options);
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
        let plan =
            |joined: &Joined| analysis::plan_function(module, path, function, indices[i], options, &rules, joined);
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
    let mut tested: BTreeSet<String> =
        in_tables.into_iter().map(|f| path.function(f).name().text()).filter(|n| named(n)).collect();
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
        let mut name = format!("{}.resume", plan.function);
        while module.has_function(&name) {
            name.push('_');
        }
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

/// Carries out the plans. Each is dropped at once, unless they are to be kept: together they are as large as the code.
fn rewrite<'m>(
    pass: Pass<'m>,
    module: Module<'m>,
    runtime: &Runtime,
    functions: &[Function<'m>],
    resume_functions: &[Function<'m>],
    plans: Vec<FunctionPlan>,
    keep: bool,
) -> Vec<FunctionPlan> {
    let plans: Vec<Mutex<Option<FunctionPlan>>> = plans.into_iter().map(|p| Mutex::new(Some(p))).collect();
    pass.for_each_function(functions, &|i, function| {
        let mut slot = plans[i].lock().expect("no thread panicked");
        let plan = slot.take().expect("each function is rewritten once");
        if plan.has_own_resume() {
            let resumed = resume_functions[plan.number.0 as usize];
            resume::write(module, function, resumed, &plan, runtime);
            resumed.flatten_blocks();
        }
        if plan.is_resumable() {
            unwind::instrument(module, function, &plan, runtime);
            function.flatten_blocks();
        }
        *slot = keep.then_some(plan);
    });
    plans.into_iter().filter_map(|slot| slot.into_inner().expect("no thread panicked")).collect()
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
fn clean_up<'m>(pass: Pass<'m>, module: Module<'m>, resume_functions: &[Function<'m>]) -> Result<(), Error> {
    pass.run_on_functions(module, resume_functions, &["dce", "remove-unused-names", "reorder-locals"])
        .map_err(Error::Binaryen)
}

/// Calls of a helper that pay for its being among the first functions, which makes the indices of others longer.
const BUSY: u32 = 50;

/// Helpers that are called from very many places get the shortest indices.
fn put_busy_helpers_first(module: Module<'_>, runtime: &Runtime) {
    module.put_functions_first(&module.functions_with_calls(&runtime.name(""), BUSY));
}
