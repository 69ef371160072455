//! Building expressions.

use std::ffi::CString;

use super::ffi::bridge;
use super::{Expr, Module, Type, c};

/// A constant of a numeric type other than v128.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    I32(i32),
    I64(i64),
}

/// Binaryen's names come from NUL-terminated strings; a name with a NUL inside cannot be one of a module item.
pub(super) fn c_name(name: &str) -> CString {
    CString::new(name.replace('\0', "\u{fffd}")).expect("NULs were replaced")
}

/// Makes expressions in a module's arena.
#[derive(Clone, Copy)]
pub struct Builder<'m>(Module<'m>);

impl<'m> Builder<'m> {
    pub(super) fn new(module: Module<'m>) -> Self {
        Builder(module)
    }

    fn raw(self) -> c::BinaryenModuleRef {
        self.0.raw()
    }

    pub fn literal(self, literal: Literal) -> Expr<'m> {
        // SAFETY: the module is alive; literals are plain values. So for all functions below, with expressions of the
        // same module.
        Expr::from_raw(unsafe {
            let literal = match literal {
                Literal::I32(value) => c::BinaryenLiteralInt32(value),
                Literal::I64(value) => c::BinaryenLiteralInt64(value),
            };
            c::BinaryenConst(self.raw(), literal)
        })
    }

    pub fn i32(self, value: u32) -> Expr<'m> {
        self.literal(Literal::I32(value as i32))
    }

    pub fn i64(self, value: u64) -> Expr<'m> {
        self.literal(Literal::I64(value as i64))
    }

    /// Zero of a type; a tuple of zeros for a tuple. `None` if a component has no default that can be written as a
    /// constant.
    pub fn zero(self, type_: Type) -> Option<Expr<'m>> {
        let components = type_.components();
        if components.len() != 1 {
            let zeros = components.into_iter().map(|t| self.zero(t)).collect::<Option<Vec<_>>>()?;
            return Some(self.tuple(&zeros));
        }
        // SAFETY: as above.
        let literal = unsafe {
            match type_ {
                Type::I32 => c::BinaryenLiteralInt32(0),
                Type::I64 => c::BinaryenLiteralInt64(0),
                Type::F32 => c::BinaryenLiteralFloat32(0.0),
                Type::F64 => c::BinaryenLiteralFloat64(0.0),
                Type::V128 => c::BinaryenLiteralVec128([0u8; 16].as_ptr()),
                _ if type_.is_reference() && type_.is_defaultable() => {
                    return Some(Expr::from_raw(c::BinaryenRefNull(self.raw(), type_.0)));
                }
                _ => return None,
            }
        };
        // SAFETY: as above.
        Some(Expr::from_raw(unsafe { c::BinaryenConst(self.raw(), literal) }))
    }

    pub fn nop(self) -> Expr<'m> {
        Expr::from_raw(unsafe { c::BinaryenNop(self.raw()) })
    }

    pub fn unreachable(self) -> Expr<'m> {
        Expr::from_raw(unsafe { c::BinaryenUnreachable(self.raw()) })
    }

    pub fn drop(self, value: Expr<'m>) -> Expr<'m> {
        Expr::from_raw(unsafe { c::BinaryenDrop(self.raw(), value.raw()) })
    }

    pub fn return_(self, value: Option<Expr<'m>>) -> Expr<'m> {
        Expr::from_raw(unsafe { c::BinaryenReturn(self.raw(), value.map_or(std::ptr::null_mut(), Expr::raw)) })
    }

    pub fn local_get(self, local: u32, type_: Type) -> Expr<'m> {
        Expr::from_raw(unsafe { c::BinaryenLocalGet(self.raw(), local, type_.0) })
    }

    pub fn local_set(self, local: u32, value: Expr<'m>) -> Expr<'m> {
        Expr::from_raw(unsafe { c::BinaryenLocalSet(self.raw(), local, value.raw()) })
    }

    pub fn local_tee(self, local: u32, value: Expr<'m>, type_: Type) -> Expr<'m> {
        Expr::from_raw(unsafe { c::BinaryenLocalTee(self.raw(), local, value.raw(), type_.0) })
    }

    pub fn global_get(self, global: &str, type_: Type) -> Expr<'m> {
        let name = c_name(global);
        Expr::from_raw(unsafe { c::BinaryenGlobalGet(self.raw(), name.as_ptr(), type_.0) })
    }

    pub fn global_set(self, global: &str, value: Expr<'m>) -> Expr<'m> {
        let name = c_name(global);
        Expr::from_raw(unsafe { c::BinaryenGlobalSet(self.raw(), name.as_ptr(), value.raw()) })
    }

    /// A block. Its type is computed from its contents when `type_` is `None`; a block that is branched to with a value
    /// needs one given. A type that is given to a block with a label stays, until the function is refinalized: Binaryen
    /// would walk all that is inside in search of a branch, for each of many blocks within each other.
    pub fn block(self, label: Option<&str>, children: &[Expr<'m>], type_: Option<Type>) -> Expr<'m> {
        let children: Vec<usize> = children.iter().map(|e| e.address()).collect();
        let type_id = type_.map_or(0, |t| t.0);
        let label = label.unwrap_or_default();
        Expr::from_address(bridge::make_block(self.0.pin(), label, &children, type_.is_some(), type_id))
    }

    /// A single expression for a list: itself if there is one, else a block.
    pub fn sequence(self, children: &[Expr<'m>]) -> Expr<'m> {
        match children {
            [single] => *single,
            _ => self.block(None, children, None),
        }
    }

    pub fn loop_(self, label: &str, body: Expr<'m>) -> Expr<'m> {
        let label = c_name(label);
        Expr::from_raw(unsafe { c::BinaryenLoop(self.raw(), label.as_ptr(), body.raw()) })
    }

    pub fn if_(self, condition: Expr<'m>, then: Expr<'m>, otherwise: Option<Expr<'m>>) -> Expr<'m> {
        Expr::from_raw(unsafe {
            c::BinaryenIf(self.raw(), condition.raw(), then.raw(), otherwise.map_or(std::ptr::null_mut(), Expr::raw))
        })
    }

    pub fn select(self, condition: Expr<'m>, if_true: Expr<'m>, if_false: Expr<'m>) -> Expr<'m> {
        Expr::from_raw(unsafe { c::BinaryenSelect(self.raw(), condition.raw(), if_true.raw(), if_false.raw()) })
    }

    /// `br` (no condition) or `br_if`.
    pub fn break_(self, label: &str, condition: Option<Expr<'m>>, value: Option<Expr<'m>>) -> Expr<'m> {
        let label = c_name(label);
        Expr::from_raw(unsafe {
            c::BinaryenBreak(
                self.raw(),
                label.as_ptr(),
                condition.map_or(std::ptr::null_mut(), Expr::raw),
                value.map_or(std::ptr::null_mut(), Expr::raw),
            )
        })
    }

    /// `br_table`.
    pub fn switch(self, labels: &[&str], default: &str, condition: Expr<'m>) -> Expr<'m> {
        self.switch_to(labels, default, condition, std::ptr::null_mut())
    }

    /// A `br_table` that carries a value.
    pub fn switch_with(self, labels: &[&str], default: &str, condition: Expr<'m>, value: Expr<'m>) -> Expr<'m> {
        self.switch_to(labels, default, condition, value.raw())
    }

    fn switch_to(
        self,
        labels: &[&str],
        default: &str,
        condition: Expr<'m>,
        value: c::BinaryenExpressionRef,
    ) -> Expr<'m> {
        let labels: Vec<CString> = labels.iter().map(|l| c_name(l)).collect();
        let mut pointers: Vec<_> = labels.iter().map(|l| l.as_ptr()).collect();
        let default = c_name(default);
        Expr::from_raw(unsafe {
            c::BinaryenSwitch(
                self.raw(),
                pointers.as_mut_ptr(),
                pointers.len() as u32,
                default.as_ptr(),
                condition.raw(),
                value,
            )
        })
    }

    pub fn call(self, function: &str, operands: &[Expr<'m>], results: Type) -> Expr<'m> {
        let operands: Vec<usize> = operands.iter().map(|e| e.address()).collect();
        Expr::from_address(bridge::make_call(self.0.pin(), function, &operands, results.0))
    }

    /// `call_indirect` of a function without parameters.
    pub fn call_indirect(self, table: &str, index: Expr<'m>, results: Type) -> Expr<'m> {
        let table = c_name(table);
        Expr::from_raw(unsafe {
            c::BinaryenCallIndirect(
                self.raw(),
                table.as_ptr(),
                index.raw(),
                std::ptr::null_mut(),
                0,
                Type::NONE.0,
                results.0,
            )
        })
    }

    pub fn tuple(self, values: &[Expr<'m>]) -> Expr<'m> {
        let mut raw: Vec<_> = values.iter().map(|e| e.raw()).collect();
        Expr::from_raw(unsafe { c::BinaryenTupleMake(self.raw(), raw.as_mut_ptr(), raw.len() as u32) })
    }

    pub fn tuple_extract(self, tuple: Expr<'m>, index: u32) -> Expr<'m> {
        Expr::from_raw(unsafe { c::BinaryenTupleExtract(self.raw(), tuple.raw(), index) })
    }

    /// `left >= right`, unsigned.
    pub fn i32_ge_u(self, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenGeUInt32() }, left, right)
    }

    pub fn i32_lt_u(self, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenLtUInt32() }, left, right)
    }

    pub fn i64_xor(self, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenXorInt64() }, left, right)
    }

    pub fn i64_shl(self, value: Expr<'m>, bits: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenShlInt64() }, value, bits)
    }

    pub fn i32_eqz(self, value: Expr<'m>) -> Expr<'m> {
        // SAFETY: the operand is of this module, and an i32.
        Expr::from_raw(unsafe { c::BinaryenUnary(self.raw(), c::BinaryenEqZInt32(), value.raw()) })
    }

    pub fn i32_eq(self, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenEqInt32() }, left, right)
    }

    pub fn i32_ne(self, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenNeInt32() }, left, right)
    }

    pub fn i32_sub(self, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenSubInt32() }, left, right)
    }

    pub fn i32_add(self, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenAddInt32() }, left, right)
    }

    pub fn i32_mul(self, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenMulInt32() }, left, right)
    }

    pub fn i32_and(self, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenAndInt32() }, left, right)
    }

    pub fn i32_or(self, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        self.binary(unsafe { c::BinaryenOrInt32() }, left, right)
    }

    /// Adds numbers of a pointer's type.
    pub fn pointer_add(self, type_: Type, left: Expr<'m>, right: u64) -> Expr<'m> {
        let (op, right) = match type_ {
            Type::I64 => (unsafe { c::BinaryenAddInt64() }, self.i64(right)),
            _ => (unsafe { c::BinaryenAddInt32() }, self.i32(right as u32)),
        };
        self.binary(op, left, right)
    }

    /// `left > right`, of a pointer's type, unsigned.
    pub fn pointer_gt_u(self, type_: Type, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        let op = if type_ == Type::I64 { unsafe { c::BinaryenGtUInt64() } } else { unsafe { c::BinaryenGtUInt32() } };
        self.binary(op, left, right)
    }

    /// Stores the lowest bytes of a number, at any address.
    pub fn store(self, memory: &str, bytes: u32, offset: u32, address: Expr<'m>, value: Expr<'m>) -> Expr<'m> {
        let memory = c_name(memory);
        // SAFETY: as above; the memory is one of the module's.
        Expr::from_raw(unsafe {
            let (address, value, type_) = (address.raw(), value.raw(), value.type_().0);
            c::BinaryenStore(self.raw(), bytes, offset, 1, address, value, type_, memory.as_ptr())
        })
    }

    /// Loads a number from any address; without its sign if it is wider than so many bytes.
    pub fn load(self, memory: &str, bytes: u32, offset: u32, address: Expr<'m>, type_: Type) -> Expr<'m> {
        let memory = c_name(memory);
        // SAFETY: as above; the memory is one of the module's.
        Expr::from_raw(unsafe {
            c::BinaryenLoad(self.raw(), bytes, false, offset, 1, type_.0, address.raw(), memory.as_ptr())
        })
    }

    fn binary(self, op: c::BinaryenOp, left: Expr<'m>, right: Expr<'m>) -> Expr<'m> {
        Expr::from_raw(unsafe { c::BinaryenBinary(self.raw(), op, left.raw(), right.raw()) })
    }
}
