//! Which functions can be on the stack when a fork import is called.
//!
//! The reverse closure from the entry imports over all kinds of calls. A `call_indirect` may reach the functions of a
//! matching type that its table can hold: those of its active element segments, and, when the table is open (imported,
//! exported, or written at run time), every function that is exported or referenced anywhere. A `call_ref` may reach
//! every referenced or exported function of a matching type. Functions of other modules are assumed not to fork.

use std::collections::{HashMap, HashSet};

use crate::ir::{CallSite, Expr, Function, FunctionRow, Hierarchy, Liveness, Module, Name, Type, Webs};
use crate::options::{Options, Pattern, Sharing};

/// Kinds of [`CallSite`].
pub mod kind {
    pub const CALL: u32 = 0;
    pub const CALL_INDIRECT: u32 = 1;
    pub const CALL_REF: u32 = 2;
    pub const REF_FUNC: u32 = 3;
    pub const TABLE_WRITE: u32 = 4;
    pub const GLOBAL_WRITE: u32 = 5;
    pub const STACK_SWITCH: u32 = 6;
    pub const LEGACY_TRY: u32 = 7;
}

/// Why a function is on the fork path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// It is a fork import.
    Entry,
    /// It calls this function.
    Calls(u32),
    /// It calls through this table, which may hold this function.
    CallsThroughTable(Name, u32),
    /// It calls a reference, which may be to this function.
    CallsReference(u32),
    /// It calls through this table, which may hold functions of other instrumented modules.
    CallsOtherModules(Name),
    /// It calls a reference, which may be to a function of another instrumented module.
    CallsReferenceOfOtherModules,
    Listed,
}

/// What a call can do, as far as forking goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallClass {
    CannotFork,
    /// The call of an entry import.
    Entry,
    /// The call of a function of the fork path, by its index.
    Direct(u32),
    /// A call through a table or a reference that may reach a function of the fork path.
    Indirect,
}

/// The fork path of a module.
pub struct ForkPath {
    functions: Vec<FunctionRow>,
    /// Imported functions, as module.base.
    imports: HashMap<Name, String>,
    index: HashMap<Name, u32>,
    reasons: Vec<Option<Reason>>,
    entries: HashSet<u32>,
    /// For each table, the functions that it can hold.
    tables: HashMap<Name, Vec<u32>>,
    /// Functions that a reference can be to, exported ones included.
    referenced: Vec<u32>,
    /// Functions that the module itself refers to, in segments, initializers and code.
    referenced_inside: Vec<u32>,
    /// Functions that the module itself calls by name, at its start too.
    called_inside: HashSet<u32>,
    /// Whether hosts can enter functions through a table or a global.
    has_open_place: bool,
    /// Imported and exported tables, if other modules share the state, so that any call through them may fork; and those that
    /// such functions can get into.
    shared_tables: HashSet<Name>,
    /// Pairs of a table and a heap type through which a function of the fork path can be called.
    forking_tables: HashSet<(Name, usize)>,
    /// By the type of a reference that is called, whether a function that forks can be called.
    forking_references: HashMap<usize, bool>,
    ignores_indirect: bool,
    /// All sites but calls.
    others: Vec<CallSite>,
    /// Names of functions that are not on the path, as numbers, ascending.
    quiet: Vec<usize>,
}

/// Who calls what.
struct Callers {
    direct: HashMap<u32, Vec<u32>>,
    /// Callers through one table (or a reference) and type share their targets: a group for each such pair, in the order in
    /// which they are met.
    groups: Vec<(Option<Name>, Vec<u32>)>,
    /// The groups that can call a function.
    groups_of: HashMap<u32, Vec<usize>>,
    /// Groups that [`Callers::of`] has given.
    given: Vec<bool>,
}

impl Callers {
    fn collect(path: &ForkPath, module: Module<'_>, calls: &[CallSite], options: &Options) -> Callers {
        let mut direct: HashMap<u32, Vec<u32>> = HashMap::new();
        let (mut groups, mut types) = (Vec::new(), Vec::new());
        let mut group_at: HashMap<(Option<Name>, usize), usize> = HashMap::new();
        for call in calls {
            match (call.kind, call.target()) {
                (kind::CALL, Some(callee)) => direct.entry(path.index[&callee]).or_default().push(call.caller),
                (kind::CALL_INDIRECT | kind::CALL_REF, table) if !options.ignore_indirect => {
                    let group = *group_at.entry((table, call.heap_type)).or_insert_with(|| {
                        groups.push((table, Vec::new()));
                        types.push(call.heap_type);
                        groups.len() - 1
                    });
                    groups[group].1.push(call.caller);
                }
                _ => {}
            }
        }
        let mut groups_of: HashMap<u32, Vec<usize>> = HashMap::new();
        for (group, (&(table, _), &heap_type)) in groups.iter().zip(&types).enumerate() {
            for target in path.targets(module, table, heap_type) {
                groups_of.entry(target).or_default().push(group);
            }
        }
        let given = vec![false; groups.len()];
        Callers { direct, groups, groups_of, given }
    }

    /// Those that call through tables which other modules share, or what may have been read from such tables.
    fn of_other_modules(&self, shared_tables: &HashSet<Name>) -> Vec<(u32, Reason)> {
        let mut reached = Vec::new();
        for (table, callers) in &self.groups {
            let reason = match *table {
                Some(table) if shared_tables.contains(&table) => Reason::CallsOtherModules(table),
                None if !shared_tables.is_empty() => Reason::CallsReferenceOfOtherModules,
                _ => continue,
            };
            reached.extend(callers.iter().map(|&caller| (caller, reason)));
        }
        reached
    }

    /// Those that can call a function, but for what has been given for another one with the same table and type.
    fn of(&mut self, callee: u32) -> Vec<(u32, Reason)> {
        let mut reached: Vec<(u32, Reason)> = Vec::new();
        for &caller in self.direct.get(&callee).into_iter().flatten() {
            reached.push((caller, Reason::Calls(callee)));
        }
        for &group in self.groups_of.get(&callee).into_iter().flatten() {
            if !std::mem::replace(&mut self.given[group], true) {
                let (table, callers) = &self.groups[group];
                let reason = match *table {
                    Some(table) => Reason::CallsThroughTable(table, callee),
                    None => Reason::CallsReference(callee),
                };
                reached.extend(callers.iter().map(|&caller| (caller, reason)));
            }
        }
        reached
    }
}

impl ForkPath {
    /// `calls` are the module's.
    pub fn discover(module: Module<'_>, options: &Options, calls: Vec<CallSite>) -> ForkPath {
        let functions = module.functions();
        let index: HashMap<Name, u32> = functions.iter().enumerate().map(|(i, f)| (f.name(), i as u32)).collect();
        let imports: HashMap<Name, String> =
            module.function_imports().into_iter().map(|i| (i.name(), i.path)).collect();
        let is_entry = |path: &String| options.entry.iter().any(|p| p.matches(path));
        let entries = imports.iter().filter(|(_, path)| is_entry(path)).map(|(name, _)| index[name]).collect();
        let mut path = ForkPath {
            reasons: vec![None; functions.len()],
            functions,
            imports,
            index,
            entries,
            tables: HashMap::new(),
            referenced: Vec::new(),
            referenced_inside: Vec::new(),
            called_inside: HashSet::new(),
            has_open_place: false,
            shared_tables: HashSet::new(),
            forking_tables: HashSet::new(),
            forking_references: HashMap::new(),
            ignores_indirect: options.ignore_indirect,
            others: Vec::new(),
            quiet: Vec::new(),
        };
        path.find_references(module, &calls);
        path.find_called(module, &calls);
        if options.sharing != Sharing::None {
            let exports = module.exports().into_iter().filter(|e| e.kind == 1).map(|e| Name::of(&e.item));
            let imports = module.tables().into_iter().filter(|t| t.imported).map(|t| Name::of(&t.name));
            path.shared_tables = exports.chain(imports).collect();
            if path.is_shared() {
                // What is written to another table, or put into it from a global, can have been read from one of those.
                let writes = calls.iter().filter(|call| call.kind == kind::TABLE_WRITE);
                path.shared_tables.extend(writes.filter_map(CallSite::target));
                let items = module.references().into_iter().filter(|item| item.function().is_none());
                path.shared_tables.extend(items.filter_map(|item| item.table()));
            }
        }
        path.close(module, &calls, options);
        path.find_forking_types(module, &calls, options);
        path.others = calls.into_iter().filter(|c| c.kind >= kind::REF_FUNC).collect();
        let all = path.functions.iter().zip(&path.reasons);
        path.quiet = all.filter(|(_, reason)| reason.is_none()).map(|(function, _)| function.name).collect();
        path.quiet.sort_unstable();
        path
    }

    fn find_references(&mut self, module: Module<'_>, calls: &[CallSite]) {
        let mut referenced: HashSet<u32> = HashSet::new();
        let mut in_table: HashMap<Name, HashSet<u32>> = HashMap::new();
        let mut open: HashSet<Name> = HashSet::new();
        for reference in module.references() {
            let Some(function) = reference.function() else {
                open.extend(reference.table());
                continue;
            };
            let function = self.index[&function];
            referenced.insert(function);
            if let Some(table) = reference.table() {
                in_table.entry(table).or_default().insert(function);
            }
        }
        for call in calls {
            match (call.kind, call.target()) {
                (kind::REF_FUNC, Some(function)) => drop(referenced.insert(self.index[&function])),
                (kind::TABLE_WRITE, Some(table)) => drop(open.insert(table)),
                _ => {}
            }
        }
        let sorted = |set: HashSet<u32>| {
            let mut list: Vec<u32> = set.into_iter().collect();
            list.sort_unstable();
            list
        };
        self.referenced_inside = sorted(referenced.clone());
        // Hosts get functions out of tables and globals that they share with the module.
        let mut function_globals: HashSet<Name> = HashSet::new();
        for global in module.globals() {
            if Type::from_id(global.type_id).hierarchy() == Hierarchy::Function {
                self.has_open_place |= global.imported && global.mutable_;
                function_globals.insert(Name::of(&global.name));
            }
        }
        self.has_open_place |= module.tables().iter().any(|t| t.imported);
        for export in module.exports() {
            match export.kind {
                0 => drop(referenced.insert(self.index[&Name::of(&export.item)])),
                1 => {
                    self.has_open_place = true;
                    open.insert(Name::of(&export.item));
                }
                3 => self.has_open_place |= function_globals.contains(&Name::of(&export.item)),
                _ => {}
            }
        }
        self.referenced = sorted(referenced);
        for table in module.tables() {
            let name = Name::of(&table.name);
            let held = if table.imported || open.contains(&name) {
                self.referenced.clone()
            } else {
                sorted(in_table.remove(&name).unwrap_or_default())
            };
            self.tables.insert(name, held);
        }
    }

    fn find_called(&mut self, module: Module<'_>, calls: &[CallSite]) {
        let callees = calls.iter().filter(|c| c.kind == kind::CALL).filter_map(CallSite::target);
        self.called_inside = callees.map(|f| self.index[&f]).collect();
        let start = module.facts().start;
        if !start.is_empty() {
            self.called_inside.insert(self.index[&Name::of(&start)]);
        }
    }

    /// Functions that an indirect call can reach.
    fn targets(&self, module: Module<'_>, table: Option<Name>, heap_type: usize) -> Vec<u32> {
        let held = match table {
            Some(table) => self.tables.get(&table).map_or(&[][..], Vec::as_slice),
            None => &self.referenced,
        };
        held.iter().copied().filter(|&f| module.is_sub_type(self.functions[f as usize].heap_type, heap_type)).collect()
    }

    /// Whether an indirect call can reach a function that forks.
    fn can_fork(&self, module: Module<'_>, table: Option<Name>, heap_type: usize) -> bool {
        self.targets(module, table, heap_type).iter().any(|&f| self.reasons[f as usize].is_some())
    }

    /// Everything that can reach an entry, from the entries, the lists and the calls to other modules on.
    fn close(&mut self, module: Module<'_>, calls: &[CallSite], options: &Options) {
        let mut callers = Callers::collect(self, module, calls, options);
        let removed: HashSet<u32> = self.matching(&options.remove_list).into_iter().collect();
        let only: Option<HashSet<u32>> =
            options.only_list.as_ref().map(|list| self.matching(list).into_iter().collect());
        let allowed = |f: u32| only.as_ref().is_none_or(|set| set.contains(&f)) && !removed.contains(&f);

        let mut queue: Vec<u32> = self.entries.iter().copied().collect();
        queue.sort_unstable();
        // A listed function is on the path without its callers, unless it is found to be.
        let mut queued = vec![false; self.functions.len()];
        for &entry in &queue {
            self.reasons[entry as usize] = Some(Reason::Entry);
            queued[entry as usize] = true;
        }
        let added = self.matching(&options.add_list);
        let only_listed = only.iter().flatten().copied();
        let mut listed: Vec<u32> = added.iter().copied().chain(only_listed).collect();
        listed.sort_unstable();
        for function in listed {
            if self.functions[function as usize].imported || !allowed(function) && !added.contains(&function) {
                continue;
            }
            if self.reasons[function as usize].is_none() {
                self.reasons[function as usize] = Some(Reason::Listed);
                if options.propagate_add_list || only.is_some() {
                    queue.push(function);
                    queued[function as usize] = true;
                }
            }
        }
        let mut reached = callers.of_other_modules(&self.shared_tables);
        let mut next = 0;
        loop {
            for (caller, reason) in reached {
                if allowed(caller) && !std::mem::replace(&mut queued[caller as usize], true) {
                    self.reasons[caller as usize].get_or_insert(reason);
                    queue.push(caller);
                }
            }
            let Some(&callee) = queue.get(next) else { break };
            next += 1;
            reached = callers.of(callee);
        }
    }

    fn find_forking_types(&mut self, module: Module<'_>, calls: &[CallSite], options: &Options) {
        if options.ignore_indirect {
            return;
        }
        let mut seen: HashMap<(Option<Name>, usize), bool> = HashMap::new();
        for call in calls {
            let table = match call.kind {
                kind::CALL_INDIRECT | kind::CALL_REF => call.target(),
                _ => continue,
            };
            let is_shared = table.map_or(self.is_shared(), |t| self.shared_tables.contains(&t));
            let forks = is_shared
                || *seen.entry((table, call.heap_type)).or_insert_with(|| self.can_fork(module, table, call.heap_type));
            match table {
                Some(table) if forks => drop(self.forking_tables.insert((table, call.heap_type))),
                Some(_) => {}
                None => drop(self.forking_references.insert(call.heap_type, forks)),
            }
        }
    }

    fn matching(&self, patterns: &[Pattern]) -> Vec<u32> {
        if patterns.is_empty() {
            return Vec::new();
        }
        let matches = |&f: &u32| {
            let name = self.name(f);
            patterns.iter().any(|p| p.matches(&name))
        };
        (0..self.functions.len() as u32).filter(matches).collect()
    }

    /// Entries that match no imported function.
    pub fn unmatched_entries<'a>(&'a self, patterns: &'a [Pattern]) -> impl Iterator<Item = &'a Pattern> + 'a {
        patterns.iter().filter(|p| !self.imports.values().any(|path| p.matches(path)))
    }

    /// Patterns that match no function.
    pub fn unmatched<'a>(&'a self, patterns: &'a [Pattern]) -> impl Iterator<Item = &'a Pattern> + 'a {
        patterns.iter().filter(|p| !self.functions.iter().any(|f| p.matches(&f.name().text())))
    }

    /// Patterns that match imported functions only.
    pub fn matching_imports_only<'a>(&'a self, patterns: &'a [Pattern]) -> impl Iterator<Item = &'a Pattern> + 'a {
        patterns.iter().filter(|p| {
            let mut matching = self.functions.iter().filter(|f| p.matches(&f.name().text())).peekable();
            matching.peek().is_some() && matching.all(|f| f.imported)
        })
    }

    /// Liveness of a function's locals at the calls that can be suspended, and at some others.
    pub fn liveness<'m>(&self, module: Module<'m>, function: Function<'m>) -> Liveness {
        function.liveness(module, &self.quiet)
    }

    /// The webs of a function's locals, and whether they are live after such calls.
    pub fn webs<'m>(&self, module: Module<'m>, function: Function<'m>) -> Webs<'m> {
        function.webs(module, &self.quiet)
    }

    /// What the call can do.
    pub fn classify(&self, module: Module<'_>, call: Expr<'_>) -> CallClass {
        let Some(call) = call.describe_call() else { return CallClass::CannotFork };
        let forks = match (call.kind, call.target()) {
            (kind::CALL, target) => {
                // What the pass added meanwhile does not fork.
                let Some(&callee) = target.and_then(|t| self.index.get(&t)) else { return CallClass::CannotFork };
                if self.entries.contains(&callee) {
                    return CallClass::Entry;
                }
                return match self.reasons[callee as usize] {
                    Some(_) => CallClass::Direct(callee),
                    None => CallClass::CannotFork,
                };
            }
            (kind::CALL_INDIRECT, Some(table)) => self.forking_tables.contains(&(table, call.heap_type)),
            // Types have become narrower where the code has been changed since.
            _ => match self.forking_references.get(&call.heap_type) {
                Some(&forks) => forks,
                None => !self.ignores_indirect && (self.is_shared() || self.can_fork(module, None, call.heap_type)),
            },
        };
        if forks { CallClass::Indirect } else { CallClass::CannotFork }
    }

    /// Whether anything can fork: an entry is imported, or other modules that share the state can be called.
    pub fn has_entry(&self) -> bool {
        !self.entries.is_empty() || self.is_shared()
    }

    /// Whether calls can reach functions of other modules that share the state.
    pub fn is_shared(&self) -> bool {
        !self.shared_tables.is_empty()
    }

    /// Entry imports, ascending.
    pub fn entries(&self) -> Vec<u32> {
        let mut entries: Vec<u32> = self.entries.iter().copied().collect();
        entries.sort_unstable();
        entries
    }

    pub fn function(&self, index: u32) -> &FunctionRow {
        &self.functions[index as usize]
    }

    fn name(&self, index: u32) -> String {
        self.function(index).name().text()
    }

    pub fn is_on_path(&self, name: Name) -> bool {
        self.index.get(&name).is_some_and(|&i| self.reasons[i as usize].is_some())
    }

    /// Whether it is a function of the path that the module defines.
    pub fn is_defined(&self, name: Name) -> bool {
        self.index.get(&name).is_some_and(|&i| self.is_defined_at(i))
    }

    fn is_defined_at(&self, index: u32) -> bool {
        self.reasons[index as usize].is_some() && !self.functions[index as usize].imported
    }

    /// Whether it is an imported function; nothing if it is none of the program's.
    pub fn is_import(&self, name: Name) -> Option<bool> {
        self.index.get(&name).map(|&i| self.functions[i as usize].imported)
    }

    /// Whether it is an import that forks.
    pub fn is_entry(&self, name: Name) -> bool {
        self.index.get(&name).is_some_and(|i| self.entries.contains(i))
    }

    /// Whether it is an imported function, and no entry.
    pub fn is_other_import(&self, name: Name) -> bool {
        self.index.get(&name).is_some_and(|i| self.functions[*i as usize].imported && !self.entries.contains(i))
    }

    /// Defined functions of the fork path, in order of the module.
    pub fn defined(&self) -> Vec<u32> {
        (0..self.functions.len() as u32).filter(|&i| self.is_defined_at(i)).collect()
    }

    /// Defined functions of the path that the module refers to, so that they can be in a table; ascending.
    pub fn in_tables(&self) -> Vec<u32> {
        self.referenced_inside.iter().copied().filter(|&i| self.is_defined_at(i)).collect()
    }

    /// Whether the module itself neither calls the function by name nor refers to it.
    pub fn is_only_exported(&self, name: Name) -> bool {
        let index = self.index[&name];
        !self.called_inside.contains(&index) && self.referenced_inside.binary_search(&index).is_err()
    }

    /// Functions that the module itself refers to, in order of the module.
    pub fn referenced_functions(&self) -> Vec<String> {
        self.referenced_inside.iter().map(|&f| self.name(f)).collect()
    }

    /// Whether a table or a global of functions is imported or exported, so that hosts can enter functions through it.
    pub fn has_open_place(&self) -> bool {
        self.has_open_place
    }

    /// Sites of a kind that is no call, in functions on the path or not.
    pub fn sites(&self, kind: u32) -> impl Iterator<Item = &CallSite> {
        debug_assert!(kind >= kind::REF_FUNC);
        self.others.iter().filter(move |c| c.kind == kind)
    }

    /// One line a function: why it is on the path.
    pub fn explain(&self) -> Vec<String> {
        // An import's own name says more than the one that it has inside, which linkers drop.
        let name = |f: u32| self.imports.get(&self.function(f).name()).cloned().unwrap_or_else(|| self.name(f));
        self.defined()
            .into_iter()
            .map(|f| {
                let reason = match self.reasons[f as usize].as_ref().expect("the function is on the path") {
                    Reason::Entry => "is the entry".to_string(),
                    Reason::Calls(callee) => format!("calls {}", name(*callee)),
                    Reason::CallsThroughTable(table, callee) => {
                        format!("calls through the table {}, which may hold {}", table.text(), name(*callee))
                    }
                    Reason::CallsReference(callee) => format!("calls a reference, which may be to {}", name(*callee)),
                    Reason::CallsOtherModules(table) => {
                        format!("calls through the table {}, which other modules share", table.text())
                    }
                    Reason::CallsReferenceOfOtherModules => {
                        "calls a reference, which may be to a function of another module".to_string()
                    }
                    Reason::Listed => "is listed".to_string(),
                };
                format!("[fork-instrument] {} {reason}", name(f))
            })
            .collect()
    }
}
