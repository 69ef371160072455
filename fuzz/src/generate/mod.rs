//! Random programs that fork in odd places.
//!
//! A program exports `run`, imports `kernel.kernel_fork` and functions that log a number each, and always ends: every loop
//! and every function that can be called in a circle spends fuel, and returns when there is none. The code is biased
//! to what a transform of the stack can get wrong: locals that are written, read and written again around calls; operands
//! of every kind that are computed before a call and used after it; calls in conditions, arguments, loops and handlers;
//! values that cross blocks, branches and statements.
//!
//! Stages: [`Source`] makes choices, [`Plan`](plan::Plan) lays out the module, `code` writes functions from statements,
//! `expr`essions, `exceptions` and `scenes`, which are longer ones of a purpose; [`generate`] puts the parts together.

mod code;
mod exceptions;
mod expr;
mod numeric;
mod plan;
mod scenes;
mod source;
mod statement;

use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, ElementSection, Elements, EntityType, ExportKind, ExportSection,
    FunctionSection, GlobalSection, GlobalType, ImportSection, MemorySection, MemoryType, Module, RefType,
    TableSection, TableType, TagKind, TagSection, TagType, TypeSection, ValType,
};

pub use source::Source;

use code::{BlockSignature, Body};
use plan::{IMPORTS, Plan, vals};

/// What a program may use beyond the first version of WebAssembly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    pub simd: bool,
    pub multivalue: bool,
    pub tail_calls: bool,
    pub exceptions: bool,
    /// Exceptions caught by reference; these need `exceptions`.
    pub exnref: bool,
    /// Exceptions in the legacy encoding; these need `exceptions`.
    pub legacy: bool,
    /// The module declares no memory of 32 bits but one of 64.
    pub memory64: bool,
}

impl Features {
    fn choose(source: &mut Source, style: Exceptions) -> Self {
        let exceptions = if style == Exceptions::Modern { source.one_in(3) } else { !source.one_in(6) };
        Self {
            simd: source.one_in(4),
            // Handlers take several values.
            multivalue: source.one_in(2) || exceptions,
            tail_calls: source.one_in(3),
            exceptions,
            exnref: exceptions && style == Exceptions::ByReference,
            legacy: exceptions && style == Exceptions::Legacy,
            memory64: source.one_in(8),
        }
    }
}

/// How exceptions are written, if there are some.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Exceptions {
    /// `try_table`, without references to them.
    #[default]
    Modern,
    /// `try_table`, also with references to them.
    ByReference,
    /// `try`.
    Legacy,
}

/// How large a program gets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Functions, at least and at most.
    pub functions: (u32, u32),
    /// Instructions in a function, roughly.
    pub size: u32,
    /// How deep code is nested.
    pub depth: u32,
    /// The most fuel.
    pub fuel: u32,
    pub exceptions: Exceptions,
}

impl Default for Limits {
    fn default() -> Self {
        Self { functions: (3, 12), size: 260, depth: 6, fuel: 120, exceptions: Exceptions::Modern }
    }
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    pub wasm: Vec<u8>,
    pub features: Features,
    /// What it was made from.
    pub choices: Vec<u32>,
}

/// The program of a seed, or of other choices.
pub fn generate(mut source: Source, limits: Limits) -> Program {
    let features = Features::choose(&mut source, limits.exceptions);
    let plan = Plan::make(&mut source, features, limits);
    let mut block_types = Vec::new();
    let functions = 0..plan.functions.len();
    let bodies = functions.map(|function| code::function(&mut source, &plan, function, &mut block_types));
    let bodies: Vec<_> = bodies.collect();
    let wasm = assemble(&mut source, &plan, &bodies, &block_types);
    Program { wasm, features, choices: source.made() }
}

fn assemble(source: &mut Source, plan: &Plan, bodies: &[Body], block_types: &[BlockSignature]) -> Vec<u8> {
    let mut types = TypeSection::new();
    let mut tags = TagSection::new();
    for signature in &plan.signatures {
        types.ty().function(vals(&signature.params), vals(&signature.results));
    }
    for (params, results) in block_types {
        types.ty().function(params.iter().copied(), results.iter().copied());
    }
    let first_tag = (plan.signatures.len() + block_types.len()) as u32;
    for (func_type_idx, tag) in (first_tag..).zip(&plan.tags) {
        types.ty().function(vals(tag), []);
        tags.tag(TagType { kind: TagKind::Exception, func_type_idx });
    }
    let mut imports = ImportSection::new();
    let names = [("kernel", "kernel_fork"), ("log", "i32"), ("log", "i64"), ("log", "f32"), ("log", "f64")];
    for (index, (module, name)) in names.into_iter().enumerate() {
        imports.import(module, name, EntityType::Function(index as u32));
    }
    let mut functions = FunctionSection::new();
    plan.functions.iter().for_each(|function| _ = functions.function(function.signature as u32));
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: plan.features.memory64,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0).export("run", ExportKind::Func, IMPORTS);
    let mut globals = GlobalSection::new();
    let fuel = GlobalType { val_type: ValType::I32, mutable: true, shared: false };
    globals.global(fuel, &ConstExpr::i32_const(plan.fuel));
    for (index, global) in plan.globals.iter().enumerate() {
        let ty = GlobalType { val_type: global.ty.val(), mutable: global.mutable, shared: false };
        globals.global(ty, &ConstExpr::extended([numeric::constant(source, global.ty)]));
        if global.exported {
            exports.export(&format!("global{index}"), ExportKind::Global, index as u32 + 1);
        }
    }
    let mut code = CodeSection::new();
    bodies.iter().for_each(|body| _ = code.function(&body.function()));
    let mut data = DataSection::new();
    let zero = if plan.features.memory64 { ConstExpr::i64_const(0) } else { ConstExpr::i32_const(0) };
    let bytes: Vec<u8> = (0..source.below(64)).map(|_| source.below(256) as u8).collect();
    data.active(0, &zero, bytes);

    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions);
    let mut elements = ElementSection::new();
    if !plan.table.is_empty() {
        let mut tables = TableSection::new();
        tables.table(TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: plan.table.len() as u64,
            maximum: source.one_in(2).then_some(plan.table.len() as u64),
            shared: false,
        });
        module.section(&tables);
        if plan.export_table {
            exports.export("table", ExportKind::Table, 0);
        }
        // Empty slots split the segment.
        for (at, slot) in plan.table.iter().enumerate() {
            if let Some(function) = slot {
                let index = [IMPORTS + *function as u32];
                elements.active(None, &ConstExpr::i32_const(at as i32), Elements::Functions((&index).into()));
            }
        }
    }
    module.section(&memories);
    if !plan.tags.is_empty() {
        module.section(&tags);
    }
    module.section(&globals).section(&exports);
    if !plan.table.is_empty() {
        module.section(&elements);
    }
    module.section(&code).section(&data);
    module.finish()
}
