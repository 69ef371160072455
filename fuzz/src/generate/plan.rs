//! What a program consists of, before its code: signatures, globals, tags, the table.

use wasm_encoder::ValType;

use super::numeric::Ty;
use super::source::Source;
use super::{Features, Limits};

/// Types of parameters and results.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    pub params: Vec<Ty>,
    pub results: Vec<Ty>,
}

impl Signature {
    pub fn new(params: &[Ty], results: &[Ty]) -> Self {
        Self { params: params.to_vec(), results: results.to_vec() }
    }
}

/// A function of the program.
#[derive(Clone, Debug)]
pub struct Function {
    /// Index into [`Plan::signatures`].
    pub signature: usize,
    /// It spends fuel and returns at once if there is none: anything may call it. Others may call only such ones.
    pub guarded: bool,
    /// It forks first, and then may throw.
    pub throws: bool,
}

/// A mutable or constant global with a number.
#[derive(Clone, Copy, Debug)]
pub struct Global {
    pub ty: Ty,
    pub mutable: bool,
    pub exported: bool,
}

/// Everything but the code.
pub struct Plan {
    pub features: Features,
    pub limits: Limits,
    pub entry: Signature,
    /// All signatures, those of the imports first.
    pub signatures: Vec<Signature>,
    /// Defined functions; `run` is the first.
    pub functions: Vec<Function>,
    /// Globals after the fuel, which is number 0.
    pub globals: Vec<Global>,
    /// Payloads.
    pub tags: Vec<Vec<Ty>>,
    /// Indices of defined functions; `None` is an empty slot.
    pub table: Vec<Option<usize>>,
    pub fuel: i32,
    pub export_table: bool,
}

/// Index of the fork import.
pub const ENTRY: u32 = 0;
/// Imported functions.
pub const IMPORTS: u32 = 5;
/// Index of the fuel.
pub const FUEL: u32 = 0;

impl Plan {
    pub fn make(source: &mut Source, features: Features, limits: Limits) -> Self {
        let entry = entry_signature(source, features);
        let mut signatures = vec![entry.clone()];
        signatures.extend([Ty::I32, Ty::I64, Ty::F32, Ty::F64].map(|ty| Signature::new(&[ty], &[])));
        let count = source.range(limits.functions.0, limits.functions.1);
        let mut functions = vec![];
        for number in 0..count {
            let throws = features.exceptions && number > 0 && source.one_in(3);
            // Some share a signature, so that indirect calls have a choice.
            let shared = number > 1 && source.one_in(3);
            let signature = match shared {
                true => {
                    functions.get(source.below(number) as usize).map_or(0, |function: &Function| function.signature)
                }
                false => {
                    let params = if number == 0 { 0 } else { source.below(5) };
                    let most = if features.multivalue { 4 } else { 2 };
                    let params = (0..params).map(|_| any(source, features)).collect();
                    // What calls return can meet if it is one value.
                    let count = if throws && !source.one_in(4) { 1 } else { source.below(most) };
                    let results = (0..count).map(|_| any(source, features)).collect();
                    signatures.push(Signature { params, results });
                    signatures.len() - 1
                }
            };
            let guarded = if number == 0 { source.one_in(4) } else { !source.one_in(4) };
            functions.push(Function { signature, guarded, throws });
        }
        let globals = (0..source.range(1, 7)).map(|_| Global {
            ty: any(source, features),
            mutable: !source.one_in(5),
            exported: source.one_in(3),
        });
        let globals = globals.collect();
        let tags = match features.exceptions {
            true => {
                let tag = |source: &mut Source| (0..source.below(3)).map(|_| any(source, features)).collect();
                (0..source.range(1, 3)).map(|_| tag(source)).collect()
            }
            false => Vec::new(),
        };
        let guarded: Vec<usize> = (0..functions.len()).filter(|index| functions[*index].guarded).collect();
        let slots = if guarded.is_empty() { 0 } else { source.below(9) };
        let table = (0..slots).map(|_| if source.one_in(8) { None } else { Some(source.pick(&guarded)) }).collect();
        let fuel = source.range(10, limits.fuel) as i32;
        let export_table = source.one_in(6);
        Self { features, limits, entry, signatures, functions, globals, tags, table, fuel, export_table }
    }

    pub fn signature(&self, function: usize) -> &Signature {
        &self.signatures[self.functions[function].signature]
    }
}

fn entry_signature(source: &mut Source, features: Features) -> Signature {
    use Ty::{F32, F64, I32, I64};
    let most = if features.multivalue { 7 } else { 6 };
    match source.below(most) {
        0 => Signature::new(&[], &[I32]),
        1 => Signature::new(&[I32], &[I32]),
        2 => Signature::new(&[I32, I64], &[I64]),
        3 => Signature::new(&[], &[]),
        4 => Signature::new(&[F64, I32, I32, F32], &[I32]),
        5 => Signature::new(&[I64], &[F64]),
        _ => Signature::new(&[I32, F32], &[I32, I64]),
    }
}

/// Any type; integers are more frequent.
pub fn any(source: &mut Source, features: Features) -> Ty {
    let v128 = if features.simd { 2 } else { 0 };
    [Ty::I32, Ty::I64, Ty::F32, Ty::F64, Ty::V128][source.weighted(&[5, 3, 2, 2, v128])]
}

/// As wasm-encoder has them.
pub fn vals(types: &[Ty]) -> Vec<ValType> {
    types.iter().map(|ty| ty.val()).collect()
}
