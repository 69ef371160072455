//! The values that the harness makes up.

use std::hash::{DefaultHasher, Hash, Hasher};

use wasmtime::{AnyRef, AsContextMut, ExternRef, HeapType, I31, Ref, Result, Val, ValType, bail};

use super::value::Value;
use crate::wasi::process::mix;

/// A number for an import's call: a function of its name, its arguments, and how often it was called before.
pub(super) fn seed(import: &str, number: u64, args: &[Value]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (import, number, args).hash(&mut hasher);
    mix(hasher.finish())
}

/// A value of any type, as a function of the seed: a small number, a null reference, or where null is not
/// allowed a reference that the host can make.
pub(super) fn value(mut store: impl AsContextMut, ty: &ValType, seed: u64) -> Result<Val> {
    let small = (seed & 0xff) as i32;
    Ok(match ty {
        ValType::I32 => Val::I32(small),
        ValType::I64 => Val::I64((seed & 0xff_ffff_ffff) as i64),
        ValType::F32 => Val::F32((small as f32 + 0.5).to_bits()),
        ValType::F64 => Val::F64((f64::from(small) + 0.25).to_bits()),
        ValType::V128 => Val::V128((u128::from(seed) << 64 | u128::from(mix(seed))).into()),
        ValType::Ref(ty) if ty.is_nullable() => Val::null_ref(ty.heap_type()),
        ValType::Ref(ty) => match ty.heap_type() {
            HeapType::Extern => Ref::from(ExternRef::new(&mut store, seed)?).into(),
            HeapType::Any | HeapType::Eq | HeapType::I31 => {
                Ref::from(AnyRef::from_i31(&mut store, I31::wrapping_i32(small))).into()
            }
            _ => bail!("the harness cannot make a value of type {ty}"),
        },
    })
}

/// What a failed fork returns in a result of this type.
pub(super) fn error(store: impl AsContextMut, ty: &ValType, errno: i32) -> Result<Val> {
    Ok(match ty {
        ValType::I32 => Val::I32(errno),
        ValType::I64 => Val::I64(i64::from(errno)),
        ValType::F32 => Val::F32((errno as f32).to_bits()),
        ValType::F64 => Val::F64(f64::from(errno).to_bits()),
        ty => value(store, ty, 0)?,
    })
}
