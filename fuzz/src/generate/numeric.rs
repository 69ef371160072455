//! Types, and the operations on them.

use wasm_encoder::{BlockType, Instruction, MemArg, ValType};

use super::source::Source;

/// A type of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ty {
    I32,
    I64,
    F32,
    F64,
    V128,
}

use Instruction as I;
use Ty::{F32, F64, I32, I64, V128};

impl Ty {
    /// The type as wasm-encoder has it.
    pub fn val(self) -> ValType {
        match self {
            I32 => ValType::I32,
            I64 => ValType::I64,
            F32 => ValType::F32,
            F64 => ValType::F64,
            V128 => ValType::V128,
        }
    }

    /// A block without parameters and with a result of this type.
    pub fn block(self) -> BlockType {
        BlockType::Result(self.val())
    }

    fn bytes_log2(self) -> u32 {
        match self {
            I32 | F32 => 2,
            I64 | F64 => 3,
            V128 => 4,
        }
    }
}

/// A constant: small ones, edges, and any.
pub fn constant(source: &mut Source, ty: Ty) -> Instruction<'static> {
    let kind = source.weighted(&[60, 25, 15]);
    let number: i64 = match kind {
        0 => i64::from(source.below(20)),
        1 => {
            let edges = [-1, 1 << 31, i64::from(i32::MAX), i64::MIN, i64::MAX, 1 << 32, 127, -128, 65535];
            source.pick(&edges)
        }
        _ => source.bits() as i64,
    };
    match ty {
        I32 => I::I32Const(number as i32),
        I64 => I::I64Const(number),
        F32 => I::F32Const((number as f32 * if kind == 0 { 0.5 } else { 1.0 }).into()),
        F64 => I::F64Const((number as f64 * if kind == 0 { 0.25 } else { 1.0 }).into()),
        V128 => I::V128Const(i128::from(number) << 64 | i128::from(number.wrapping_mul(0x9e37_79b9))),
    }
}

/// Zero.
pub fn zero(ty: Ty) -> Instruction<'static> {
    match ty {
        I32 => I::I32Const(0),
        I64 => I::I64Const(0),
        F32 => I::F32Const(0.0.into()),
        F64 => I::F64Const(0.0.into()),
        V128 => I::V128Const(0),
    }
}

/// Operations from one type to another that do not trap.
pub fn unary(source: &mut Source, to: Ty, simd: bool) -> (Ty, Instruction<'static>) {
    let i32s = [
        (I32, I::I32Eqz),
        (I64, I::I64Eqz),
        (I64, I::I32WrapI64),
        (I32, I::I32Clz),
        (I32, I::I32Popcnt),
        (I32, I::I32Extend8S),
        (F32, I::I32TruncSatF32S),
        (F64, I::I32TruncSatF64U),
        (F32, I::I32ReinterpretF32),
        (V128, I::I32x4ExtractLane(2)),
        (V128, I::V128AnyTrue),
        (V128, I::I8x16Bitmask),
    ];
    let i64s = [
        (I32, I::I64ExtendI32S),
        (I32, I::I64ExtendI32U),
        (I64, I::I64Ctz),
        (I64, I::I64Extend32S),
        (F32, I::I64TruncSatF32U),
        (F64, I::I64TruncSatF64S),
        (F64, I::I64ReinterpretF64),
        (V128, I::I64x2ExtractLane(1)),
    ];
    let f32s = [
        (I32, I::F32ConvertI32S),
        (I64, I::F32ConvertI64U),
        (F32, I::F32Neg),
        (F32, I::F32Abs),
        (F32, I::F32Floor),
        (F64, I::F32DemoteF64),
        (V128, I::F32x4ExtractLane(3)),
    ];
    let f64s = [
        (I32, I::F64ConvertI32S),
        (I64, I::F64ConvertI64S),
        (F64, I::F64Neg),
        (F64, I::F64Sqrt),
        (F64, I::F64Ceil),
        (F32, I::F64PromoteF32),
        (V128, I::F64x2ExtractLane(0)),
    ];
    let v128s = [
        (I32, I::I32x4Splat),
        (I64, I::I64x2Splat),
        (F32, I::F32x4Splat),
        (F64, I::F64x2Splat),
        (V128, I::V128Not),
        (V128, I::I16x8Neg),
        (V128, I::I32x4TruncSatF32x4S),
    ];
    let list: &[(Ty, Instruction<'static>)] = match to {
        I32 => &i32s,
        I64 => &i64s,
        F32 => &f32s,
        F64 => &f64s,
        V128 => &v128s,
    };
    let usable: Vec<_> = list.iter().filter(|(from, _)| simd || *from != V128).collect();
    usable[source.below(usable.len() as u32) as usize].clone()
}

/// Operations on two values of one type that do not trap.
pub fn binary(source: &mut Source, to: Ty, simd: bool) -> (Ty, Instruction<'static>) {
    let i32s = [
        (I32, I::I32Add),
        (I32, I::I32Sub),
        (I32, I::I32Mul),
        (I32, I::I32Xor),
        (I32, I::I32And),
        (I32, I::I32ShrU),
        (I32, I::I32Rotl),
        (I32, I::I32LtS),
        (I32, I::I32GeU),
        (I32, I::I32Eq),
        (I64, I::I64LtU),
        (I64, I::I64Ne),
        (F32, I::F32Lt),
        (F64, I::F64Ge),
    ];
    let i64s = [(I64, I::I64Add), (I64, I::I64Sub), (I64, I::I64Mul), (I64, I::I64Or), (I64, I::I64Shl)];
    let f32s = [(F32, I::F32Add), (F32, I::F32Sub), (F32, I::F32Mul), (F32, I::F32Min), (F32, I::F32Copysign)];
    let f64s = [(F64, I::F64Add), (F64, I::F64Sub), (F64, I::F64Mul), (F64, I::F64Div), (F64, I::F64Max)];
    let v128s = [(V128, I::I32x4Add), (V128, I::V128Xor), (V128, I::I16x8Mul), (V128, I::I8x16SubSatS)];
    let list: &[(Ty, Instruction<'static>)] = match to {
        I32 => &i32s,
        I64 => &i64s,
        F32 => &f32s,
        F64 => &f64s,
        V128 if simd => &v128s,
        V128 => &[],
    };
    list[source.below(list.len() as u32) as usize].clone()
}

/// A division that traps on some operands.
pub fn division(source: &mut Source, ty: Ty) -> Instruction<'static> {
    match ty {
        I64 => source.pick_clone(&[I::I64DivS, I::I64DivU, I::I64RemS, I::I64RemU]),
        _ => source.pick_clone(&[I::I32DivS, I::I32DivU, I::I32RemS, I::I32RemU]),
    }
}

/// A conversion that traps on some operands.
pub fn truncation(source: &mut Source, to: Ty) -> (Ty, Instruction<'static>) {
    match to {
        I64 => source.pick_clone(&[(F32, I::I64TruncF32S), (F64, I::I64TruncF64U)]),
        _ => source.pick_clone(&[(F32, I::I32TruncF32U), (F64, I::I32TruncF64S)]),
    }
}

impl Source {
    fn pick_clone<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u32) as usize].clone()
    }
}

fn place(source: &mut Source, natural: u32) -> MemArg {
    let align = if source.one_in(3) { source.below(natural + 1) } else { natural };
    MemArg { offset: u64::from(source.below(64)), align, memory_index: 0 }
}

/// A load.
pub fn load(source: &mut Source, ty: Ty) -> Instruction<'static> {
    let small = source.one_in(3);
    let at = place(source, if small && matches!(ty, I32 | I64) { 0 } else { ty.bytes_log2() });
    match ty {
        I32 if small => I::I32Load8U(at),
        I32 => I::I32Load(at),
        I64 if small => I::I64Load8S(at),
        I64 => I::I64Load(at),
        F32 => I::F32Load(at),
        F64 => I::F64Load(at),
        V128 => I::V128Load(at),
    }
}

/// A store.
pub fn store(source: &mut Source, ty: Ty) -> Instruction<'static> {
    let small = source.one_in(3);
    let at = place(source, if small && matches!(ty, I32 | I64) { 0 } else { ty.bytes_log2() });
    match ty {
        I32 if small => I::I32Store8(at),
        I32 => I::I32Store(at),
        I64 if small => I::I64Store8(at),
        I64 => I::I64Store(at),
        F32 => I::F32Store(at),
        F64 => I::F64Store(at),
        V128 => I::V128Store(at),
    }
}
