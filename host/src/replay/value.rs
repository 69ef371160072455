//! Values as the harness records and compares them.

use std::fmt;

use wasmtime::{AsContextMut, I31, Ref, Val};

/// A value. Numbers are exact, floats by their bits; of references only what compares across instances.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value {
    /// A number.
    I32(i32),
    /// A number.
    I64(i64),
    /// The bits of a number.
    F32(u32),
    /// The bits of a number.
    F64(u64),
    /// The bits of a vector.
    V128(u128),
    /// A null reference.
    Null,
    /// A small number in a reference.
    I31(i32),
    /// Another reference.
    Reference,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::I32(value) => write!(f, "i32:{value}"),
            Value::I64(value) => write!(f, "i64:{value}"),
            Value::F32(bits) => write!(f, "f32:{:?}", f32::from_bits(bits)),
            Value::F64(bits) => write!(f, "f64:{:?}", f64::from_bits(bits)),
            Value::V128(bits) => write!(f, "v128:{bits:#034x}"),
            Value::Null => write!(f, "null"),
            Value::I31(value) => write!(f, "i31:{value}"),
            Value::Reference => write!(f, "reference"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Value {
    /// The value of a wasmtime value. All NaNs are one: which one an operation gives is not determined.
    pub(super) fn observe(store: impl AsContextMut, val: &Val) -> Self {
        match Self::exact(store, val) {
            Value::F32(bits) if f32::from_bits(bits).is_nan() => Value::F32(f32::NAN.to_bits()),
            Value::F64(bits) if f64::from_bits(bits).is_nan() => Value::F64(f64::NAN.to_bits()),
            value => value,
        }
    }

    /// The value of a wasmtime value, with the bits of a NaN.
    pub(super) fn exact(mut store: impl AsContextMut, val: &Val) -> Self {
        match val {
            Val::I32(value) => Value::I32(*value),
            Val::I64(value) => Value::I64(*value),
            Val::F32(bits) => Value::F32(*bits),
            Val::F64(bits) => Value::F64(*bits),
            Val::V128(bits) => Value::V128(bits.as_u128()),
            Val::AnyRef(Some(reference)) => match reference.as_i31(&mut store) {
                Ok(Some(value)) => Value::I31(value.get_i32()),
                _ => Value::Reference,
            },
            val => match val.ref_() {
                Some(reference) if reference.is_null() => Value::Null,
                _ => Value::Reference,
            },
        }
    }

    /// The wasmtime value to pass for a parameter of that type; `None` for what the harness cannot make.
    pub fn to_val(self, store: impl AsContextMut, ty: &wasmtime::ValType) -> Option<Val> {
        let val = match self {
            Value::I32(value) => Val::I32(value),
            Value::I64(value) => Val::I64(value),
            Value::F32(bits) => Val::F32(bits),
            Value::F64(bits) => Val::F64(bits),
            Value::V128(bits) => Val::V128(bits.into()),
            Value::Null => Val::null_ref(ty.as_ref()?.heap_type()),
            Value::I31(value) => Val::from(Ref::from(wasmtime::AnyRef::from_i31(store, I31::wrapping_i32(value)))),
            Value::Reference => return None,
        };
        Some(val)
    }
}
