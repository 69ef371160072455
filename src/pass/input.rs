//! What the input must be: names, entries and lists that match, and nothing that a fork could not keep.

use std::collections::HashSet;

use crate::abi;
use crate::analysis::fork_path::{ForkPath, kind};
use crate::analysis::legacy::find_landing_in_catch;
use crate::error::Error;
use crate::ir::{CallSite, FunctionImport, GlobalRow, Kind, MemoryRow, Module, Name, Node, Pass, Type};
use crate::options::{self, Options, Sharing, spelling};
use crate::transform::linking;
use crate::transform::runtime::FrameMemory;

/// The fork path, of a module that can be instrumented; none if there is nothing to instrument.
pub fn find_path(module: Module<'_>, options: &Options) -> Result<Option<ForkPath>, Error> {
    check_is_linked(module)?;
    check_not_instrumented(module)?;
    module.replace_unusable_names();
    check_entries(module, options)?;
    let calls = replace_entry_references(module, options);
    let mut path = ForkPath::discover(module, options, calls);
    if !path.has_entry() {
        let is_needed = match options.sharing {
            Sharing::None => false,
            // Side modules import its state.
            Sharing::Export => !module.memories().is_empty(),
            // Its globals go into the buffer of the others.
            Sharing::Import => module.globals().iter().any(|g| g.mutable_ && !g.imported),
        };
        if !is_needed {
            warn_about_entries(module, options, "it is left as it is");
            return Ok(None);
        }
        warn_about_entries(module, options, "only its state is saved");
    }
    if module.give_up_exactness() {
        path = ForkPath::discover(module, options, module.calls());
    }
    for entry in path.unmatched_entries(&options.entry).filter(|_| path.has_entry()) {
        warn(&format!("entry: the module does not import {}", entry.text()));
    }
    warn_about_linking(module, options);
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

pub fn warn(message: &str) {
    eprintln!("warning: --fork-instrument: {message}");
}

/// What a compiler writes, with relocations, cannot be changed.
fn check_is_linked(module: Module<'_>) -> Result<(), Error> {
    let is_object = |path: &str| path == "env.__linear_memory" && module.has_custom_section("reloc.CODE");
    match module.other_imports().iter().any(|(path, _)| is_object(path)) {
        true => Err(Error::ObjectFile),
        false => Ok(()),
    }
}

/// A module of dynamic linking forks together with others only if it is told so.
fn warn_about_linking(module: Module<'_>, options: &Options) {
    if module.facts().has_dylink && options.sharing == Sharing::None {
        warn(
            "the module is made to be linked with others at run time (it has a section dylink.0). Forks save its own calls only: \
             for others' use export-globals and import-globals (docs/abi.md, \"Dynamic linking\")",
        );
    }
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
    let near = || entries.iter().find_map(|e| spelling::closest(e, imports.iter().map(|i| (i.as_str(), i))));
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
        for pattern in path.matching_imports_only(patterns) {
            let problem = "is imported, and the list is of the module's own functions. entry@ says which imports fork";
            warn(&format!("{list}: {} {problem}", pattern.text()));
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

/// What a module needs whose state is in several.
pub fn check_linking(pass: Pass<'_>, module: Module<'_>, options: &Options) -> Result<(), Error> {
    if let Some(option) = linking::option_of_several_modules(options) {
        if pass.is_closed_world() {
            return Err(Error::ClosedWorld(option));
        }
        if !module.facts().mutable_globals {
            return Err(Error::NoMutableGlobals(option));
        }
    }
    linking::check_features(module, options.sharing)
}

/// Binaryen's text has globals of several values, which it takes apart when it writes a binary.
pub fn check_globals(module: Module<'_>, options: &Options) -> Result<(), Error> {
    let is_tuple = |g: &GlobalRow| Type::from_id(g.type_id).components().len() > 1;
    let must_be_known = |g: &GlobalRow| g.mutable_ || options.resume.is_some();
    match module.globals().into_iter().find(|g| is_tuple(g) && must_be_known(g)) {
        Some(global) => Err(Error::TupleGlobal(global.name)),
        None => Ok(()),
    }
}

/// Translates legacy exception handling if a catch body has a landing.
pub fn modernize_exceptions<'m>(pass: Pass<'m>, module: Module<'m>, path: &ForkPath) -> Result<(), Error> {
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
    // The translation makes dead code behind a delegate invalid.
    for name in ["dce", "translate-to-exnref"] {
        pass.run_on_module(module, name).map_err(Error::Binaryen)?;
    }
    Ok(())
}

/// The memory that holds the frames.
pub fn choose_memory(module: Module<'_>, options: &Options) -> Result<FrameMemory, Error> {
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
        (None, []) if options.sharing == Sharing::Import => return Err(Error::NoSharedMemory),
        (None, []) => return Err(Error::NoMemory),
        (None, [single]) => single,
        (None, _) => return Err(Error::SeveralMemories(known())),
    };
    Ok(FrameMemory { name: chosen.name.clone(), is64: chosen.is64, shared: chosen.shared })
}
