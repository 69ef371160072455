//! The cxx bridge to the shim under `cpp/`. Everything here is wrapped by the safe handles of [`super`].
//!
//! Expressions cross as addresses (`usize`), types as Binaryen's type ids.
#![allow(clippy::missing_safety_doc)]

use super::task::{FunctionTask, finish_outputs, run_function_task, run_pass};

#[cxx::bridge(namespace = "fork_instrument")]
pub mod bridge {
    /// One expression of a function body, in post-order.
    #[derive(Clone, Copy)]
    struct Node {
        expression: usize,
        /// Binaryen's `Expression::Id`.
        id: u32,
        type_id: usize,
        /// Row of the parent; `u32::MAX` for the body itself.
        parent: u32,
        /// Position among the parent's children, in order of execution.
        child: u32,
        /// First row of the subtree: its rows are `first..=self`.
        first: u32,
        /// 0 no call, 1 `call`, 2 `call_indirect`, 3 `call_ref`.
        call: u32,
        /// The local that a `local.get`, `local.set` or `local.tee` names; else `u32::MAX`.
        local: u32,
    }

    /// What `EffectAnalyzer` says of an expression.
    struct Effects {
        calls: bool,
        generative: bool,
        traps: bool,
        /// Any effect but a trap.
        side_effects: bool,
        /// A call, an exception, a branch or a return: what follows may not be executed.
        leaves: bool,
        /// Reads of memory, tables, mutable globals and the like, whose value a call may change.
        reads_mutable_state: bool,
        reads: Vec<u32>,
        writes: Vec<u32>,
    }

    struct ModuleFacts {
        /// Name of the start function; empty if there is none.
        start: String,
        reference_types: bool,
        mutable_globals: bool,
        multivalue: bool,
        multimemory: bool,
        has_dylink: bool,
    }

    /// Names are numbers (`intern_name`).
    #[derive(Clone, Copy)]
    struct FunctionRow {
        name: usize,
        /// Binaryen's function.
        address: usize,
        imported: bool,
        heap_type: usize,
        params: usize,
        results: usize,
    }

    struct ExportRow {
        name: String,
        /// 0 function, 1 table, 2 memory, 3 global, 4 tag.
        kind: u32,
        item: String,
    }

    struct GlobalRow {
        name: String,
        imported: bool,
        mutable_: bool,
        type_id: usize,
        /// The name that it is imported under; empty if it is not.
        base: String,
    }

    /// What is not UTF-8 in it has been replaced.
    struct PassArgument {
        key: String,
        value: String,
    }

    struct MemoryRow {
        name: String,
        imported: bool,
        is64: bool,
        shared: bool,
    }

    struct TableRow {
        name: String,
        imported: bool,
        is64: bool,
        of_functions: bool,
        initial: u64,
    }

    struct TagRow {
        name: String,
        params: usize,
        /// It has results: a tag for suspensions, not for exceptions.
        suspends: bool,
    }

    /// An imported function.
    struct FunctionImport {
        name: usize,
        /// module.base
        path: String,
    }

    /// An import that is no function.
    struct ImportRow {
        /// module.base
        name: String,
        kind: String,
    }

    /// A function named by an element segment, or by an initializer (then with no table: 0). No function: what an imported
    /// global holds.
    #[derive(Clone, Copy)]
    struct Reference {
        table: usize,
        function: usize,
    }

    /// Something in a body that matters to the call graph.
    #[derive(Clone, Copy)]
    struct CallSite {
        /// Index of the function whose body it is in.
        caller: u32,
        /// 0 `call`, 1 `call_indirect`, 2 `call_ref`, 3 `ref.func`, 4 a write to a table, 5 a write of a reference to a global,
        /// 6 a switch to another stack, 7 a legacy `try`.
        kind: u32,
        /// The function, table or global; 0 if there is none.
        target: usize,
        is_return: bool,
        heap_type: usize,
    }

    /// A data or an element segment.
    #[derive(Clone, PartialEq, Eq, Debug)]
    struct SegmentRow {
        name: String,
        is_data: bool,
    }

    /// What holds objects.
    #[derive(Clone, Debug)]
    struct ObjectHolder {
        name: String,
        /// 0: a global, 1: a table, 2: a passive element segment.
        kind: u32,
    }

    /// A slot of the resume table.
    struct ResumeEntry {
        index: u64,
        function: String,
    }

    /// What moves to a second module, and how the two modules meet.
    struct Split {
        functions: Vec<String>,
        /// Globals that only those functions use.
        globals: Vec<String>,
        /// Functions, and globals, of which each module gets its own.
        shared_functions: Vec<String>,
        shared_globals: Vec<String>,
        /// The resume table, and its slots.
        table: String,
        entries: Vec<ResumeEntry>,
        /// The module name of the second module's imports.
        import_module: String,
        table_export: String,
    }

    /// One expression of a function body, in post-order, with what it names. Names are numbers (`intern_name`).
    #[derive(Clone, Copy)]
    struct CodeRow {
        expression: usize,
        /// Binaryen's `Expression::Id`.
        id: u32,
        type_id: usize,
        /// Row of the parent; `u32::MAX` for the body itself.
        parent: u32,
        /// Position among the parent's children, in order of execution.
        child: u32,
        /// First row of the subtree: its rows are `first..=self`.
        first: u32,
        /// Label, function, global, table, memory or segment; 0 if it names none.
        name: usize,
        /// A constant's bits, a local, a component of a tuple, or an offset in memory.
        value: u64,
        /// Bytes that are loaded or stored.
        bytes: u32,
        is_signed: bool,
        /// A tail call.
        is_return: bool,
        /// A branch carries a value; a constant has bits.
        has_value: bool,
        /// A branch is conditional.
        has_condition: bool,
        /// What a `try` or `try_table` catches goes no further out: it catches everything, or delegates.
        catches_all: bool,
        /// The labels of a `br_table`, the default last, or of the catches of a `try_table`: first, and how many.
        target: u32,
        targets: u32,
        /// A hash of the expression without its type and its children; 0 if it names labels.
        operation: u64,
    }

    struct Code {
        rows: Vec<CodeRow>,
        targets: Vec<usize>,
    }

    /// A local behind an expression.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct LivenessPoint {
        expression: usize,
        local: u32,
    }

    /// Sets of a local, and the reads that may find what they set.
    struct Web {
        local: u32,
        /// A read may find what the local is at the start.
        from_entry: bool,
        /// Calls behind which it is live.
        landings: u32,
        /// Reads and sets.
        uses: u32,
    }

    /// A read of a local.
    #[derive(Clone, PartialEq, Eq)]
    struct LocalRead {
        expression: usize,
        /// A hash of the sets that it may find, and of whether it may find a parameter, and which, or zero.
        found: usize,
    }

    /// Two webs, the lower first.
    struct WebPair {
        first: u32,
        second: u32,
    }

    /// An active element segment.
    struct TableSegment {
        table: usize,
        /// The global that gives the offset; 0 if it is constant.
        global: usize,
        offset: u64,
        functions: Vec<usize>,
    }

    extern "Rust" {
        type FunctionTask<'a>;
        fn run_function_task(task: &FunctionTask<'_>, index: usize);
        fn finish_outputs() -> bool;
        fn run_pass(pass: Pin<&mut Pass>, module: Pin<&mut Module>, argument: &CxxString) -> String;
    }

    unsafe extern "C++" {
        include!("cpp/tree.h");
        include!("cpp/code.h");
        include!("cpp/analyses.h");
        include!("cpp/calls.h");
        include!("cpp/module.h");
        include!("cpp/names.h");
        include!("cpp/outlining.h");
        include!("cpp/references.h");
        include!("cpp/registration.h");
        include!("cpp/split.h");
        include!("cpp/state.h");
        include!("cpp/tool.h");
        include!("cpp/webs.h");

        #[namespace = "wasm"]
        type Module;
        #[namespace = "wasm"]
        type Function;
        #[namespace = "wasm"]
        type Pass;
        type LivenessAtCalls;
        type LocalWebs;
        type SecondModule;

        fn list_nodes(func: Pin<&mut Function>) -> Vec<Node>;
        fn list_expressions(func: Pin<&mut Function>) -> Vec<usize>;
        fn get_child(parent: usize, index: u32) -> usize;
        fn set_child(parent: usize, index: u32, child: usize);
        fn copy_code(
            module: Pin<&mut Module>,
            from: Pin<&mut Function>,
            to: Pin<&mut Function>,
            expression: usize,
            left_out: &[usize],
        ) -> usize;
        fn copy_location(from: Pin<&mut Function>, to: Pin<&mut Function>, original: usize, replacement: usize);
        fn make_block(
            module: Pin<&mut Module>,
            label: &str,
            children: &[usize],
            has_type: bool,
            type_id: usize,
        ) -> usize;
        fn make_call(module: Pin<&mut Module>, function: &str, operands: &[usize], results: usize) -> usize;
        fn is_return_call(expression: usize) -> bool;
        fn give_up_exactness(module: Pin<&mut Module>) -> bool;
        fn refinalize(module: Pin<&mut Module>, func: Pin<&mut Function>);
        fn remove_markers(module: Pin<&mut Module>, func: Pin<&mut Function>, markers: &[String]);
        fn flatten_blocks(func: Pin<&mut Function>);
        fn list_labels(func: Pin<&mut Function>, prefix: &str) -> Vec<String>;
        fn copy_expression(module: Pin<&mut Module>, expression: usize) -> usize;
        fn print_expression(module: Pin<&mut Module>, expression: usize) -> String;

        fn read_code(func: Pin<&mut Function>) -> Code;
        fn intern_name(name: &str) -> usize;
        fn name_text(name: usize) -> String;
        fn fold_constants(expression: usize, operands: &[u64], result: &mut u64) -> bool;
        fn list_table_segments(module: &Module) -> Vec<TableSegment>;

        fn effects(module: Pin<&mut Module>, expression: usize) -> Effects;
        fn shallow_effects(module: Pin<&mut Module>, expression: usize) -> Effects;
        fn hash_expression(expression: usize) -> u64;
        fn equal_expressions(left: usize, right: usize) -> bool;
        fn equal_functions(left: Pin<&mut Function>, right: Pin<&mut Function>) -> bool;
        fn liveness_at_calls(
            module: Pin<&mut Module>,
            func: Pin<&mut Function>,
            others: &[usize],
        ) -> UniquePtr<LivenessAtCalls>;
        fn after(self: &LivenessAtCalls, call: usize) -> Result<Vec<u32>>;
        fn reachable(self: &LivenessAtCalls, call: usize) -> bool;
        fn stale_after(self: &LivenessAtCalls, points: &[LivenessPoint]) -> Vec<bool>;

        fn local_webs(module: Pin<&mut Module>, func: Pin<&mut Function>, others: &[usize]) -> UniquePtr<LocalWebs>;
        fn webs(self: &LocalWebs) -> &[Web];
        fn conflicts(self: &LocalWebs) -> &[WebPair];
        fn landing_count(self: &LocalWebs) -> u32;
        fn assign(self: &LocalWebs, locals: &[u32]);

        fn local_reads(module: Pin<&mut Module>, func: Pin<&mut Function>) -> Vec<LocalRead>;

        fn count_expressions(func: Pin<&mut Function>) -> usize;
        fn live_after(module: Pin<&mut Module>, func: Pin<&mut Function>, points: &[LivenessPoint]) -> Vec<u8>;
        fn equal_in_form(left: usize, right: usize) -> bool;
        fn generalize(
            module: Pin<&mut Module>,
            expression: usize,
            from: &[u32],
            to: &[u32],
            leaves: &[u32],
            next: &mut usize,
        ) -> usize;
        fn replace_children(block: usize, first: usize, count: usize, replacement: usize);

        fn module_facts(module: &Module) -> ModuleFacts;
        fn list_functions(module: &Module) -> Vec<FunctionRow>;
        fn list_function_imports(module: &Module) -> Vec<FunctionImport>;
        fn list_exports(module: &Module) -> Vec<ExportRow>;
        fn list_globals(module: &Module) -> Vec<GlobalRow>;
        fn list_memories(module: &Module) -> Vec<MemoryRow>;
        fn list_tables(module: &Module) -> Vec<TableRow>;
        fn list_references(module: Pin<&mut Module>) -> Vec<Reference>;
        fn list_calls(module: Pin<&mut Module>) -> Vec<CallSite>;
        fn functions_with_calls(module: Pin<&mut Module>, prefix: &str, at_least: u32) -> Vec<String>;
        fn describe_call(call: usize) -> Result<CallSite>;
        fn is_sub_type(callee: usize, expected: usize) -> bool;
        fn has_name_with_prefix(module: &Module, prefix: &str) -> bool;
        fn merge_text(module: Pin<&mut Module>, text: &str) -> Result<()>;
        fn add_custom_section(module: Pin<&mut Module>, name: &str, data: &[u8]);
        fn list_other_imports(module: &Module) -> Vec<ImportRow>;
        fn has_function(module: &Module, name: &str) -> bool;
        fn has_custom_section(module: &Module, name: &str) -> bool;
        fn retarget_export(module: Pin<&mut Module>, export_name: &str, function: &str);
        fn replace_references(module: Pin<&mut Module>, function: &str, replacement: &str);
        fn add_resume_function(module: Pin<&mut Module>, like: &Function, name: &str) -> *mut Function;
        fn add_function_like(module: Pin<&mut Module>, like: &Function, name: &str);
        fn remove_functions(module: Pin<&mut Module>, functions: &[String]);
        fn put_functions_first(module: Pin<&mut Module>, functions: &[String]);
        fn add_function_table(module: Pin<&mut Module>, name: &str, functions: &[String]);
        fn extend_function_table(module: Pin<&mut Module>, name: &str, functions: &[String]) -> u64;
        fn get_function(module: Pin<&mut Module>, name: &str) -> *mut Function;
        fn function_name(func: &Function) -> String;
        fn add_local(func: Pin<&mut Function>, type_id: usize, name: &str) -> u32;
        fn local_name(func: Pin<&mut Function>, index: u32) -> String;
        fn local_types(func: Pin<&mut Function>) -> Vec<usize>;
        fn type_components(type_id: usize) -> Vec<usize>;
        fn is_defaultable(type_id: usize) -> bool;
        fn is_reference(type_id: usize) -> bool;
        fn print_type(module: Pin<&mut Module>, type_id: usize) -> String;
        fn for_each_function(count: usize, task: &FunctionTask<'_>);
        fn run_on_functions(
            pass: Pin<&mut Pass>,
            module: Pin<&mut Module>,
            functions: &[usize],
            passes: &[String],
        ) -> Result<()>;
        fn run_on_module(pass: Pin<&mut Pass>, module: Pin<&mut Module>, name: &str) -> Result<()>;
        fn pass_arguments(pass: &Pass) -> Vec<PassArgument>;
        fn is_closed_world(pass: &Pass) -> bool;
        fn optimize_level(pass: &Pass) -> i32;
        fn shrink_level(pass: &Pass) -> i32;

        fn uses_segments(func: &Function) -> bool;
        fn split_module(first: Pin<&mut Module>, split: &Split) -> Result<UniquePtr<SecondModule>>;
        fn rename_table_export(second: Pin<&mut SecondModule>, from: &str, to: &str);
        fn write_second(pass: Pin<&mut Pass>, second: Pin<&mut SecondModule>, text: bool) -> Result<Vec<u8>>;
        type ReachingSets;
        fn reference_top(type_id: usize) -> usize;
        fn reference_class(type_id: usize) -> u32;
        fn local_type(module: &Module, type_id: usize) -> usize;
        fn nullable_type(type_id: usize) -> usize;
        fn basic_reference(reference_class: u32) -> usize;
        fn reaching_sets(module: Pin<&mut Module>, func: Pin<&mut Function>) -> UniquePtr<ReachingSets>;
        fn at(self: &ReachingSets, expression: usize, local: u32) -> Result<Vec<usize>>;
        fn is_replayable(
            module: Pin<&mut Module>,
            expression: usize,
            tables: &[String],
            globals: &[String],
            captures: &mut Vec<usize>,
        ) -> bool;
        fn is_same_replay(left: usize, right: usize) -> bool;
        fn make_replay(module: Pin<&mut Module>, expression: usize, locals: &[u32]) -> usize;
        fn make_nullable(module: Pin<&mut Module>, func: Pin<&mut Function>, locals: &[u32]);
        fn cast_reference(module: Pin<&mut Module>, func: Pin<&mut Function>, value: usize, type_id: usize) -> usize;
        fn list_tags(module: &Module) -> Vec<TagRow>;
        fn add_reference_table(
            module: Pin<&mut Module>,
            name: &str,
            export_name: &str,
            type_id: usize,
            size: u32,
            functions: &[String],
        );
        fn make_default(module: Pin<&mut Module>, type_id: usize) -> usize;
        fn relax_bottom_results(module: Pin<&mut Module>, functions: &[usize]);

        fn replace_unusable_names(module: Pin<&mut Module>);

        fn list_dropped_segments(module: Pin<&mut Module>) -> Vec<SegmentRow>;
        fn note_drops(module: Pin<&mut Module>, segments: &[SegmentRow], globals: &[String]);
        fn add_drop_again(module: Pin<&mut Module>, name: &str, segments: &[SegmentRow], globals: &[String]);
        fn list_changing_objects(module: Pin<&mut Module>, are_copied: bool, is_linked: bool) -> Vec<ObjectHolder>;
        fn make_globals_mutable(module: Pin<&mut Module>, names: &[String]) -> Vec<String>;

        fn register_pass(name: &str, description: &str);
        fn run_wasm_opt(arguments: &[u8]) -> Result<i32>;
        fn install_terminate_handler();
    }
}
