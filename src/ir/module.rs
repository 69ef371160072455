//! The module around the functions, and the running pass.

use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;

use super::ffi::bridge;
use super::task::FunctionTask;
use super::{
    Builder, CallSite, Effects, ExportRow, Expr, Function, FunctionImport, FunctionRow, GlobalRow, MemoryRow,
    ModuleFacts, Reference, TableRow, Type, c, pinned,
};

/// Binaryen's module.
#[derive(Clone, Copy)]
pub struct Module<'m>(NonNull<bridge::Module>, PhantomData<&'m bridge::Module>);

// SAFETY: Binaryen lets threads read the module and allocate in its arena; items are added outside of parallel work.
unsafe impl Send for Module<'_> {}
unsafe impl Sync for Module<'_> {}

impl<'m> Module<'m> {
    pub(super) fn new(module: Pin<&mut bridge::Module>) -> Self {
        // SAFETY: the reference is only turned into the handle's pointer.
        Module(NonNull::from(unsafe { module.get_unchecked_mut() }), PhantomData)
    }

    pub(super) fn pin(self) -> Pin<&'m mut bridge::Module> {
        // SAFETY: see `pinned`.
        unsafe { pinned(self.0) }
    }

    pub(super) fn raw(self) -> c::BinaryenModuleRef {
        self.0.as_ptr().cast()
    }

    pub fn build(self) -> Builder<'m> {
        Builder::new(self)
    }

    /// Gives items other names whose names are empty or have a zero byte, as a name section can have and a parsed text cannot.
    pub fn replace_unusable_names(self) {
        bridge::replace_unusable_names(self.pin());
    }

    pub fn facts(self) -> ModuleFacts {
        bridge::module_facts(&self.pin())
    }

    /// Makes exact types of globals and signatures inexact if no cast can lead to such types. Whether there were any.
    pub fn give_up_exactness(self) -> bool {
        bridge::give_up_exactness(self.pin())
    }

    pub fn functions(self) -> Vec<FunctionRow> {
        bridge::list_functions(&self.pin())
    }

    /// Imported functions, in order of the module.
    pub fn function_imports(self) -> Vec<FunctionImport> {
        bridge::list_function_imports(&self.pin())
    }

    pub fn exports(self) -> Vec<ExportRow> {
        bridge::list_exports(&self.pin())
    }

    pub fn globals(self) -> Vec<GlobalRow> {
        bridge::list_globals(&self.pin())
    }

    pub fn memories(self) -> Vec<MemoryRow> {
        bridge::list_memories(&self.pin())
    }

    pub fn tables(self) -> Vec<TableRow> {
        bridge::list_tables(&self.pin())
    }

    /// Function references outside of function bodies.
    pub fn references(self) -> Vec<Reference> {
        bridge::list_references(self.pin())
    }

    /// Defined functions whose names begin with the prefix, and that so many direct calls name.
    pub fn functions_with_calls(self, prefix: &str, at_least: u32) -> Vec<String> {
        bridge::functions_with_calls(self.pin(), prefix, at_least)
    }

    /// Calls, function references and table writes in function bodies.
    pub fn calls(self) -> Vec<CallSite> {
        bridge::list_calls(self.pin())
    }

    /// Whether a function of heap type `callee` can be called through the heap type `expected`.
    pub fn is_sub_type(self, callee: usize, expected: usize) -> bool {
        bridge::is_sub_type(callee, expected)
    }

    pub fn has_name_with_prefix(self, prefix: &str) -> bool {
        bridge::has_name_with_prefix(&self.pin(), prefix)
    }

    /// The defined or imported function of an internal name. Binaryen throws when there is none.
    pub fn function(self, name: &str) -> Function<'m> {
        Function::from_raw(bridge::get_function(self.pin(), name))
    }

    /// The function of a row of this module.
    pub fn function_at(self, row: &FunctionRow) -> Function<'m> {
        Function::from_raw(row.address as *mut _)
    }

    /// Effects of an expression and all below it.
    pub fn effects(self, expr: Expr<'m>) -> Effects {
        bridge::effects(self.pin(), expr.address())
    }

    /// Effects of an expression itself, without its children.
    pub fn shallow_effects(self, expr: Expr<'m>) -> Effects {
        bridge::shallow_effects(self.pin(), expr.address())
    }

    pub fn print_expression(self, expr: Expr<'m>) -> String {
        bridge::print_expression(self.pin(), expr.address())
    }

    pub fn print_type(self, type_: Type) -> String {
        bridge::print_type(self.pin(), type_.0)
    }

    /// Adds what a module in text form defines, exports and imports; imports of a module without a name stand for items
    /// of the same internal name here. An error is the parser's message.
    pub fn merge_text(self, text: &str) -> Result<(), String> {
        bridge::merge_text(self.pin(), text).map_err(|e| e.what().to_string())
    }

    pub fn add_custom_section(self, name: &str, data: &[u8]) {
        bridge::add_custom_section(self.pin(), name, data);
    }

    /// Names (module.base) and kinds of imports that are no functions.
    pub fn other_imports(self) -> Vec<(String, String)> {
        bridge::list_other_imports(&self.pin()).into_iter().map(|row| (row.name, row.kind)).collect()
    }

    pub fn has_function(self, name: &str) -> bool {
        bridge::has_function(&self.pin(), name)
    }

    pub fn has_custom_section(self, name: &str) -> bool {
        bridge::has_custom_section(&self.pin(), name)
    }

    pub fn export_function(self, export: &str, function: &str) {
        let (function, export) = (super::build::c_name(function), super::build::c_name(export));
        // SAFETY: the strings are NUL-terminated, and Binaryen interns them.
        unsafe { c::BinaryenAddFunctionExport(self.raw(), function.as_ptr(), export.as_ptr()) };
    }

    /// Adds a defined function without variables.
    pub fn add_function(self, name: &str, params: Type, results: Type, body: Expr<'m>) {
        let name = super::build::c_name(name);
        // SAFETY: the name is NUL-terminated and interned, there are no variables, and the body is this module's.
        unsafe {
            c::BinaryenAddFunction(self.raw(), name.as_ptr(), params.0, results.0, std::ptr::null_mut(), 0, body.raw())
        };
    }

    pub fn retarget_export(self, export: &str, function: &str) {
        bridge::retarget_export(self.pin(), export, function);
    }

    /// Replaces references to a function, but for plain calls, by references to another.
    pub fn replace_references(self, function: &str, replacement: &str) {
        bridge::replace_references(self.pin(), function, replacement);
    }

    /// Adds a function with the results of `like`, no parameters, and all locals of `like` as variables.
    pub fn add_resume_function(self, like: Function<'m>, name: &str) -> Function<'m> {
        Function::from_raw(bridge::add_resume_function(self.pin(), &like.pin(), name))
    }

    /// Adds a defined function of the same type, with a body of `unreachable`.
    pub fn add_function_like(self, like: Function<'m>, name: &str) -> Function<'m> {
        bridge::add_function_like(self.pin(), &like.pin(), name);
        self.function(name)
    }

    /// Adds a passive data segment.
    /// Removes functions that nothing uses.
    pub fn remove_functions(self, functions: &[String]) {
        bridge::remove_functions(self.pin(), functions);
    }

    /// Moves functions to the front, where their indices are short.
    pub fn put_functions_first(self, functions: &[String]) {
        bridge::put_functions_first(self.pin(), functions);
    }

    /// Adds a table and fills it with functions.
    pub fn add_function_table(self, name: &str, functions: &[String]) {
        bridge::add_function_table(self.pin(), name, functions);
    }

    /// Fills a table with functions from an offset on, a constant expression, when the module is instantiated.
    pub fn add_function_segment(self, name: &str, table: &str, functions: &[String], offset: Expr<'m>) {
        let (name, table) = (super::build::c_name(name), super::build::c_name(table));
        let functions: Vec<_> = functions.iter().map(|f| super::build::c_name(f)).collect();
        let mut pointers: Vec<_> = functions.iter().map(|f| f.as_ptr()).collect();
        // SAFETY: the strings are NUL-terminated and interned, and the offset is this module's.
        unsafe {
            c::BinaryenAddActiveElementSegment(
                self.raw(),
                table.as_ptr(),
                name.as_ptr(),
                pointers.as_mut_ptr(),
                pointers.len() as u32,
                offset.raw(),
            )
        };
    }

    pub fn set_start(self, function: &str) {
        let name = super::build::c_name(function);
        // SAFETY: the name is NUL-terminated; the function is looked up in this module.
        unsafe { c::BinaryenSetStart(self.raw(), c::BinaryenGetFunction(self.raw(), name.as_ptr())) };
    }

    /// Appends functions to a defined table; returns the index of the first.
    pub fn extend_function_table(self, name: &str, functions: &[String]) -> u64 {
        bridge::extend_function_table(self.pin(), name, functions)
    }
}

/// The pass as Binaryen runs it: its options and its threads.
#[derive(Clone, Copy)]
pub struct Pass<'m>(NonNull<bridge::Pass>, PhantomData<&'m bridge::Pass>);

impl<'m> Pass<'m> {
    pub(super) fn new(pass: Pin<&mut bridge::Pass>) -> Self {
        // SAFETY: the reference is only turned into the handle's pointer.
        Pass(NonNull::from(unsafe { pass.get_unchecked_mut() }), PhantomData)
    }

    pub(super) fn pin(self) -> Pin<&'m mut bridge::Pass> {
        // SAFETY: see `pinned`.
        unsafe { pinned(self.0) }
    }

    /// All `--pass-arg`s that are not another pass's own, sorted by key.
    pub fn arguments(self) -> Vec<(String, String)> {
        bridge::pass_arguments(&self.pin()).into_iter().map(|argument| (argument.key, argument.value)).collect()
    }

    /// Whether the tool was told that no other module has anything of this one.
    pub fn is_closed_world(self) -> bool {
        bridge::is_closed_world(&self.pin())
    }

    /// 0 to 4, as in `-O0` to `-O4`.
    pub fn optimize_level(self) -> i32 {
        bridge::optimize_level(&self.pin())
    }

    /// 0, 1 for `-Os`, 2 for `-Oz`.
    pub fn shrink_level(self) -> i32 {
        bridge::shrink_level(&self.pin())
    }

    /// Does work once for each function, on Binaryen's threads. Panics in the work are passed on.
    pub fn for_each_function(self, functions: &[Function<'m>], work: &(dyn Fn(usize, Function<'m>) + Sync)) {
        let work = |i: usize| work(i, functions[i]);
        let task = FunctionTask::new(&work);
        bridge::for_each_function(functions.len(), &task);
        if let Some(message) = task.panicked() {
            panic!("{message}");
        }
    }

    /// Runs Binaryen's passes on functions, with the pipeline's options.
    pub fn run_on_functions(
        self,
        module: Module<'m>,
        functions: &[Function<'m>],
        passes: &[&str],
    ) -> Result<(), String> {
        let passes: Vec<String> = passes.iter().map(|s| s.to_string()).collect();
        let functions = super::function::addresses(functions);
        bridge::run_on_functions(self.pin(), module.pin(), &functions, &passes).map_err(|e| e.what().to_string())
    }

    /// Runs one of Binaryen's passes on the whole module.
    pub fn run_on_module(self, module: Module<'m>, name: &str) -> Result<(), String> {
        bridge::run_on_module(self.pin(), module.pin(), name).map_err(|e| e.what().to_string())
    }
}
