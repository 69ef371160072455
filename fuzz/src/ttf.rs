//! Modules of Binaryen's own generator.

use anyhow::Result;
use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection, Instruction,
    MemorySection, MemoryType, Module, TypeSection, ValType,
};

use crate::campaign::Made;
use crate::generate::Source;
use crate::pipeline;
use crate::prepare::{prepare, validate};
use crate::tool::{Ran, Tool};

/// The case of a seed, if its module is of use.
pub fn case(seed: u64, tool: &Tool) -> Result<Made> {
    let mut source = Source::from_seed(seed);
    let bytes: Vec<u8> = (0..source.range(50, 800)).flat_map(|_| source.bits().to_le_bytes()).collect();
    let numeric = !source.one_in(2);
    let features = if numeric { pipeline::numeric_features() } else { pipeline::all_features() };
    let mut args = features.clone();
    args.extend(
        ["-ttf", "--fuzz-preserve-imports-exports", "--no-fuzz-oob", "--translate-to-exnref"].map(str::to_owned),
    );
    args.push(format!("--initial-fuzz={}", tool.file("initial.wasm", &initial())?.display()));
    let Ran::Done(wasm) = tool.run(&bytes, &args)? else { return Ok(None) };
    let rarity = source.range(4, 60);
    let Some(prepared) = prepare(&mut source, &wasm, rarity)? else { return Ok(None) };
    if prepared.roots.is_empty() || validate(&prepared.wasm).is_err() {
        return Ok(None);
    }
    let (passes, mut options) = pipeline::choose(&mut source, numeric);
    options.extend(features);
    let separate = source.one_in(4);
    Ok(Some((prepared.case(&mut source, passes, options, seed, separate), Vec::new())))
}

/// What the generator begins with: a program that forks.
fn initial() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32], [ValType::I32]);
    types.ty().function([], [ValType::I32]);
    let mut imports = ImportSection::new();
    imports.import("kernel", "kernel_fork", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    functions.function(1);
    let mut memories = MemorySection::new();
    let memory = MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None };
    memories.memory(memory);
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0).export("run", ExportKind::Func, 1);
    let mut run = Function::new([]);
    run.instruction(&Instruction::I32Const(1)).instruction(&Instruction::Call(0)).instruction(&Instruction::End);
    let mut code = CodeSection::new();
    code.function(&run);
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memories).section(&exports).section(&code);
    module.finish()
}
