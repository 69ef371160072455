//! Modules of wasm-smith.

use anyhow::Result;
use arbitrary::Unstructured;
use wasm_encoder::{EntityType, ImportSection, Module, TypeSection, ValType};
use wasm_smith::Config;

use crate::campaign::Made;
use crate::generate::Source;
use crate::pipeline;
use crate::prepare::{prepare, validate};

/// The case of a seed, if its module is of use.
pub fn case(seed: u64) -> Result<Made> {
    let mut source = Source::from_seed(seed);
    let config = config(&mut source);
    let flattens = !config.exceptions_enabled && !config.gc_enabled;
    let bytes: Vec<u8> = (0..source.range(200, 1500)).flat_map(|_| source.bits().to_le_bytes()).collect();
    let Ok(mut module) = wasm_smith::Module::new(config, &mut Unstructured::new(&bytes)) else { return Ok(None) };
    if module.ensure_termination(200).is_err() {
        return Ok(None);
    }
    let rarity = source.range(4, 40);
    let Some(prepared) = prepare(&mut source, &module.to_bytes(), rarity)? else { return Ok(None) };
    if prepared.roots.is_empty() || validate(&prepared.wasm).is_err() {
        return Ok(None);
    }
    let (passes, mut options) = pipeline::choose(&mut source, flattens);
    options.extend(pipeline::all_features());
    let separate = source.one_in(4);
    Ok(Some((prepared.case(&mut source, passes, options, seed, separate), Vec::new())))
}

fn config(source: &mut Source) -> Config {
    let numeric = source.one_in(2);
    let references = !numeric;
    Config {
        available_imports: Some(imports(source)),
        min_imports: 2,
        max_imports: 4,
        min_memories: 1,
        max_memories: if source.one_in(4) { 3 } else { 1 },
        max_memory32_bytes: 1 << 20,
        max_memory64_bytes: 1 << 20,
        min_funcs: 1,
        max_funcs: 8,
        max_instructions: source.range(20, 250) as usize,
        max_table_elements: 100,
        max_tables: if references { 3 } else { 1 },
        export_everything: true,
        allow_start_export: false,
        canonicalize_nans: true,
        disallow_traps: !source.one_in(3),
        memory64_enabled: source.one_in(5),
        threads_enabled: source.one_in(4),
        custom_page_sizes_enabled: source.one_in(6),
        reference_types_enabled: references,
        gc_enabled: references && source.one_in(2),
        exceptions_enabled: source.one_in(2),
        simd_enabled: source.one_in(3),
        relaxed_simd_enabled: source.one_in(4),
        tail_call_enabled: source.one_in(2),
        wide_arithmetic_enabled: source.one_in(4),
        ..Config::default()
    }
}

/// The imports that smith may choose from.
fn imports(source: &mut Source) -> Vec<u8> {
    let params: &[ValType] = [&[][..], &[ValType::I32], &[ValType::I64, ValType::F64]][source.below(3) as usize];
    let results: &[ValType] = [&[ValType::I32][..], &[], &[ValType::I64]][source.below(3) as usize];
    let mut types = TypeSection::new();
    types.ty().function(params.iter().copied(), results.iter().copied());
    types.ty().function([ValType::I32], []);
    types.ty().function([], [ValType::F32]);
    let mut imports = ImportSection::new();
    imports.import("kernel", "kernel_fork", EntityType::Function(0));
    imports.import("log", "i32", EntityType::Function(1));
    imports.import("env", "number", EntityType::Function(2));
    let mut module = Module::new();
    module.section(&types).section(&imports);
    module.finish()
}
