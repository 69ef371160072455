//! Makes modules of other generators fit: calls of the fork import in odd places, exports to begin with, a memory that can
//! grow.

use std::convert::Infallible;

use anyhow::{Context, Result, anyhow, bail};
use fork_host::replay::{Entry, Value};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, ConstExpr, ExportKind, ExportSection, Instruction, MemoryType, Module};
use wasmparser::{
    CompositeInnerType, ExternalKind, FunctionBody, Operator, Parser, Payload, TypeRef, ValType, Validator,
    WasmFeatures,
};

use crate::check::Case;
use crate::generate::Source;
use crate::pipeline;

/// A module that was prepared.
pub struct Prepared {
    pub wasm: Vec<u8>,
    /// Exports that the harness can call.
    pub roots: Vec<(String, Vec<Value>)>,
    /// It changes what a fork does not copy: tables, segments, references in globals.
    keeps_state_outside: bool,
    /// Locals can hold references.
    has_references: bool,
    /// Exceptions can carry references: no fork keeps such exceptions.
    throws_references: bool,
    /// Which memory holds the frames, if there are several.
    memory: Option<u32>,
}

impl Prepared {
    /// The case with these passes and options, and others that the module needs.
    pub fn case(
        self,
        source: &mut Source,
        passes: Vec<String>,
        mut options: Vec<String>,
        seed: u64,
        separate: bool,
    ) -> Case {
        let keeps_references = self.has_references && !source.one_in(3);
        options.extend(keeps_references.then(|| pipeline::KEEP_REFERENCES.to_owned()));
        options.extend(self.memory.map(|index| format!("--pass-arg=fork-instrument-memory@{index}")));
        let same_instance = self.keeps_state_outside || keeps_references;
        let forks_can_fail = self.throws_references;
        let (wasm, roots) = (self.wasm, self.roots);
        Case { wasm, passes, options, roots, seed, same_instance, forks_can_fail, separate, ..Case::default() }
    }
}

/// What the module has.
#[derive(Default)]
struct Facts {
    /// Type indices of all functions, imported ones first.
    functions: Vec<u32>,
    imported: u32,
    entry: Option<u32>,
    types: Vec<Option<(Vec<ValType>, Vec<ValType>)>>,
    exports: Vec<(String, u32)>,
    memories: u32,
    /// The most that a memory begins with.
    pages: u64,
    keeps_state_outside: bool,
    has_references: bool,
    throws_references: bool,
}

/// Puts calls of the entry into `wasm`, one in `rarity` places; `None` if the module does not import it.
pub fn prepare(source: &mut Source, wasm: &[u8], rarity: u32) -> Result<Option<Prepared>> {
    let facts = facts(wasm)?;
    let Some(entry) = facts.entry else { return Ok(None) };
    let memory = source.below(facts.memories);
    let mut prepare = Prepare { source, facts, entry, rarity, memory };
    let mut module = Module::new();
    prepare.parse_core_module(&mut module, Parser::new(0), wasm).map_err(|error| anyhow!("{error}"))?;
    let facts = prepare.facts;
    let mut roots = Vec::new();
    for (name, function) in &facts.exports {
        let Some((params, _)) = facts.signature(*function) else { continue };
        let args = params.iter().map(|param| argument(prepare.source, *param)).collect::<Option<Vec<_>>>();
        roots.extend(args.map(|args| (name.clone(), args)));
    }
    // A few of them, not always the first ones.
    while roots.len() > 3 {
        roots.swap_remove(prepare.source.below(roots.len() as u32) as usize);
    }
    Ok(Some(Prepared {
        wasm: module.finish(),
        roots,
        keeps_state_outside: facts.keeps_state_outside,
        has_references: facts.has_references,
        throws_references: facts.throws_references,
        memory: (facts.memories > 1).then_some(memory),
    }))
}

fn argument(source: &mut Source, ty: ValType) -> Option<Value> {
    let number = source.below(30) as i32;
    Some(match ty {
        ValType::I32 => Value::I32(number),
        ValType::I64 => Value::I64(i64::from(number)),
        ValType::F32 => Value::F32((number as f32).to_bits()),
        ValType::F64 => Value::F64(f64::from(number).to_bits()),
        ValType::V128 => Value::V128(number as u128),
        ValType::Ref(ty) if ty.is_nullable() => Value::Null,
        ValType::Ref(_) => return None,
    })
}

impl Facts {
    fn signature(&self, function: u32) -> Option<&(Vec<ValType>, Vec<ValType>)> {
        self.types.get(*self.functions.get(function as usize)? as usize)?.as_ref()
    }

    fn has_reference_params(&self, ty: u32) -> bool {
        let signature = self.types.get(ty as usize).and_then(Option::as_ref);
        signature.is_some_and(|(params, _)| params.iter().any(ValType::is_reference_type))
    }
}

/// Whether the module has a memory of at least one page. A program without one would reach the fork buffer with any address:
/// it is in what the host adds to the memory.
pub fn has_memory(wasm: &[u8]) -> bool {
    facts(wasm).is_ok_and(|facts| facts.pages > 0)
}

/// Whether the module changes what a fork does not copy.
pub fn keeps_state_outside(wasm: &[u8]) -> bool {
    facts(wasm).map_or(true, |facts| facts.keeps_state_outside)
}

fn facts(wasm: &[u8]) -> Result<Facts> {
    let fork = Entry::parse("kernel.kernel_fork");
    let mut facts = Facts::default();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::TypeSection(types) => {
                for ty in types.into_iter().flat_map(|group| group.map(|group| group.into_types())).flatten() {
                    facts.types.push(match ty.composite_type.inner {
                        CompositeInnerType::Func(func) => Some((func.params().to_vec(), func.results().to_vec())),
                        _ => None,
                    });
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    match import.ty {
                        TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                            if fork.matches(import.module, import.name) {
                                facts.entry = Some(facts.imported);
                            }
                            facts.functions.push(ty);
                            facts.imported += 1;
                        }
                        TypeRef::Memory(memory) => facts.pages = facts.pages.max(memory.initial),
                        TypeRef::Tag(tag) => facts.throws_references |= facts.has_reference_params(tag.func_type_idx),
                        TypeRef::Global(_) | TypeRef::Table(_) => {}
                    }
                }
            }
            Payload::FunctionSection(functions) => {
                for function in functions {
                    facts.functions.push(function?);
                }
            }
            Payload::MemorySection(memories) => {
                facts.memories = memories.count();
                for memory in memories {
                    facts.pages = facts.pages.max(memory?.initial);
                }
            }
            Payload::TagSection(tags) => {
                for tag in tags {
                    facts.throws_references |= facts.has_reference_params(tag?.func_type_idx);
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    let ty = global?.ty;
                    facts.keeps_state_outside |= ty.mutable && ty.content_type.is_reference_type();
                    facts.has_references |= ty.mutable && ty.content_type.is_reference_type();
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        facts.exports.push((export.name.to_owned(), export.index));
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                for local in body.get_locals_reader()? {
                    facts.has_references |= local?.1.is_reference_type();
                }
                for operator in body.get_operators_reader()? {
                    facts.keeps_state_outside |= matches!(
                        operator?,
                        Operator::TableSet { .. }
                            | Operator::TableGrow { .. }
                            | Operator::TableFill { .. }
                            | Operator::TableCopy { .. }
                            | Operator::TableInit { .. }
                            | Operator::ElemDrop { .. }
                            | Operator::DataDrop { .. }
                    );
                }
            }
            _ => {}
        }
    }
    Ok(facts)
}

/// Elements of an array that an initializer makes, at most.
const MAX_ARRAY: i32 = 256;

struct Prepare<'a> {
    source: &'a mut Source,
    facts: Facts,
    entry: u32,
    rarity: u32,
    /// The memory that holds the frames.
    memory: u32,
}

impl Reencode for Prepare<'_> {
    type Error = Infallible;

    fn memory_type(&mut self, ty: wasmparser::MemoryType) -> Result<MemoryType, reencode::Error<Infallible>> {
        // It can grow for the buffer, and is large enough that the program seldom comes across what is in there. The
        // harness has no shared ones; atomic operations are allowed on others, too.
        let page_size = 1 << ty.page_size_log2.unwrap_or(16);
        let initial = ty.initial.max((1 << 20) / page_size);
        Ok(reencode::utils::memory_type(self, wasmparser::MemoryType { initial, maximum: None, shared: false, ..ty }))
    }

    fn const_expr(&mut self, expr: wasmparser::ConstExpr<'_>) -> Result<ConstExpr, reencode::Error<Infallible>> {
        // Every instance makes the arrays of initializers, and every child is an instance.
        let mut instructions = Vec::new();
        let mut reader = expr.get_operators_reader();
        while !reader.is_end_then_eof() {
            let instruction = self.parse_instruction(&mut reader)?;
            if matches!(instruction, Instruction::ArrayNew(_) | Instruction::ArrayNewDefault(_))
                && let Some(Instruction::I32Const(length)) = instructions.last_mut()
            {
                *length = length.rem_euclid(MAX_ARRAY);
            }
            instructions.push(instruction);
        }
        Ok(ConstExpr::extended(instructions))
    }

    fn parse_export(
        &mut self,
        exports: &mut ExportSection,
        export: wasmparser::Export<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        // They get names of ours.
        if export.kind == ExternalKind::Memory {
            return Ok(());
        }
        reencode::utils::parse_export(self, exports, export)
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        reencode::utils::parse_export_section(self, exports, section)?;
        for memory in 0..self.facts.memories {
            let name = if memory == self.memory { "memory".to_owned() } else { format!("memory {memory}") };
            exports.export(&name, ExportKind::Memory, memory);
        }
        for function in self.facts.imported..self.facts.functions.len() as u32 {
            if !self.facts.exports.iter().any(|(_, exported)| *exported == function) {
                let name = format!("root {function}");
                exports.export(&name, ExportKind::Func, function);
                self.facts.exports.push((name, function));
            }
        }
        Ok(())
    }

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            if self.source.one_in(self.rarity) {
                self.call().iter().for_each(|instruction| _ = function.instruction(instruction));
            }
            let instruction = self.parse_instruction(&mut reader)?;
            function.instruction(&instruction);
        }
        code.function(&function);
        Ok(())
    }
}

impl Prepare<'_> {
    /// A call of the entry that leaves the stack as it is.
    fn call(&mut self) -> Vec<Instruction<'static>> {
        let Some((params, results)) = self.facts.signature(self.entry).cloned() else { return Vec::new() };
        let mut code = Vec::new();
        for param in params {
            let number = self.source.below(100) as i32;
            code.push(match param {
                ValType::I64 => Instruction::I64Const(i64::from(number)),
                ValType::F32 => Instruction::F32Const((number as f32).into()),
                ValType::F64 => Instruction::F64Const(f64::from(number).into()),
                _ => Instruction::I32Const(number),
            });
        }
        code.push(Instruction::Call(self.entry));
        code.extend(results.iter().map(|_| Instruction::Drop));
        code
    }
}

/// Checks a module with all features but those of components.
pub fn validate(wasm: &[u8]) -> Result<()> {
    let mut features = WasmFeatures::all();
    features.remove(WasmFeatures::COMPONENT_MODEL);
    Validator::new_with_features(features).validate_all(wasm).context("invalid")?;
    if wasm.len() > 100 << 20 {
        bail!("{} bytes", wasm.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{
        EntityType, GlobalSection, GlobalType, HeapType, ImportSection, MemorySection, RefType, StorageType,
        TypeSection, ValType as Encoded,
    };

    use super::*;

    #[test]
    fn arrays_of_initializers_are_made_small() {
        let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
        types.ty().function([], [Encoded::I32]);
        types.ty().array(&StorageType::I16, true);
        imports.import("kernel", "kernel_fork", EntityType::Function(0));
        let mut memories = MemorySection::new();
        memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
        let array = Encoded::Ref(RefType { nullable: true, heap_type: HeapType::Concrete(1) });
        let make = [Instruction::I32Const(5), Instruction::I32Const(312_047_097), Instruction::ArrayNew(1)];
        let mut globals = GlobalSection::new();
        globals.global(GlobalType { val_type: array, mutable: false, shared: false }, &ConstExpr::extended(make));
        let mut module = Module::new();
        module.section(&types).section(&imports).section(&memories).section(&globals);

        let prepared = prepare(&mut Source::from_seed(0), &module.finish(), 10).unwrap().unwrap();
        validate(&prepared.wasm).unwrap();
        let globals = Parser::new(0).parse_all(&prepared.wasm).find_map(|payload| match payload.unwrap() {
            Payload::GlobalSection(globals) => Some(globals),
            _ => None,
        });
        let global = globals.unwrap().into_iter().next().unwrap().unwrap();
        let operators: Vec<_> = global.init_expr.get_operators_reader().into_iter().map(Result::unwrap).collect();
        assert!(matches!(operators[0], Operator::I32Const { value: 5 }), "what the elements are stays as it is");
        assert!(matches!(operators[1], Operator::I32Const { value } if value == 312_047_097 % 256), "{operators:?}");
    }
}
