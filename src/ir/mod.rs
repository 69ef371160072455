//! Safe handles over Binaryen's IR: the only place with `unsafe`.
//!
//! A [`Module`], [`Function`] or [`Expr`] is a small copyable handle with the lifetime of Binaryen's module. Binaryen
//! allocates expressions in an arena that lives as long as the module, so a handle never dangles within the pass. The
//! handles give shared mutability, as Binaryen's own pointers do; what Binaryen asks of its passes is asked of ours: a
//! thread touches only the function that it was given, and module items are added outside of parallel work.

mod build;
mod code;
pub mod ffi;
mod function;
mod module;
mod references;
mod split;
mod state;
mod task;

use std::ffi::OsString;
use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;

pub use build::{Builder, Literal};
pub use code::{Comparison, Name};
pub use ffi::bridge::{
    CallSite, Code, CodeRow, Effects, ExportRow, FunctionImport, FunctionRow, GlobalRow, LivenessPoint, LocalRead,
    MemoryRow, ModuleFacts, Node, ObjectHolder, Reference, ResumeEntry, SegmentRow, Split, TableRow, TableSegment,
    TagRow, Web, WebPair,
};
pub use function::{Function, LiveAfter, Liveness, Webs};
pub use module::{Module, Pass};
pub use references::{Hierarchy, ReachingSets, is_same_replay};
pub use split::SecondModule;
pub use task::{PassBody, at_successful_exit, register_pass};

use binaryen_sys as c;
use ffi::bridge;

/// A Binaryen type: a value type, a tuple of them, `none` or `unreachable`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type(usize);

impl Type {
    pub const NONE: Type = Type(0);
    pub const UNREACHABLE: Type = Type(1);
    pub const I32: Type = Type(2);
    pub const I64: Type = Type(3);
    pub const F32: Type = Type(4);
    pub const F64: Type = Type(5);
    pub const V128: Type = Type(6);

    pub(crate) fn from_id(id: usize) -> Type {
        Type(id)
    }

    pub fn is_concrete(self) -> bool {
        self.0 > Type::UNREACHABLE.0
    }

    /// The value types of a tuple; of a single value type, itself; of `none` and `unreachable`, nothing.
    pub fn components(self) -> Vec<Type> {
        if self.is_numeric() {
            return vec![self];
        }
        bridge::type_components(self.0).into_iter().map(Type).collect()
    }

    /// One of i32, i64, f32, f64 and v128.
    pub fn is_numeric(self) -> bool {
        (Type::I32.0..=Type::V128.0).contains(&self.0)
    }

    pub fn is_reference(self) -> bool {
        bridge::is_reference(self.0)
    }

    /// Whether a local of this type has a value before it is set.
    pub fn is_defaultable(self) -> bool {
        bridge::is_defaultable(self.0)
    }

    /// Bytes of a numeric value in memory; 0 for other types.
    pub fn size(self) -> u32 {
        match self {
            Type::I32 | Type::F32 => 4,
            Type::I64 | Type::F64 => 8,
            Type::V128 => 16,
            _ => 0,
        }
    }

    /// The name in the text format of a numeric type, or of a reference type that frames know of.
    pub fn keyword(self) -> Option<&'static str> {
        Some(match self {
            Type::I32 => "i32",
            Type::I64 => "i64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::V128 => "v128",
            _ => return Type::FRAME_REFERENCES.iter().find(|(h, _)| h.top() == self).map(|(_, keyword)| *keyword),
        })
    }
}

impl std::fmt::Debug for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.keyword() {
            Some(keyword) => f.write_str(keyword),
            None => write!(f, "Type({})", self.0),
        }
    }
}

/// An expression in a module's arena.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Expr<'m>(NonNull<c::BinaryenExpression>, PhantomData<&'m c::BinaryenModule>);

// SAFETY: an expression belongs to one function, and parallel work gives each function to one thread (module
// documentation).
unsafe impl Send for Expr<'_> {}
unsafe impl Sync for Expr<'_> {}

impl<'m> Expr<'m> {
    fn from_raw(raw: *mut c::BinaryenExpression) -> Self {
        Expr(NonNull::new(raw).expect("Binaryen returns expressions, not null"), PhantomData)
    }

    pub(crate) fn from_address(address: usize) -> Self {
        Self::from_raw(address as *mut _)
    }

    fn raw(self) -> c::BinaryenExpressionRef {
        self.0.as_ptr()
    }

    pub fn address(self) -> usize {
        self.0.as_ptr() as usize
    }

    pub fn type_(self) -> Type {
        // SAFETY: the expression is alive as long as the module.
        Type(unsafe { c::BinaryenExpressionGetType(self.raw()) })
    }

    /// Recomputes the type from the children's types.
    pub fn finalize(self) {
        // SAFETY: as above.
        unsafe { c::BinaryenExpressionFinalize(self.raw()) }
    }

    pub fn kind(self) -> Kind {
        // SAFETY: as above.
        Kind::from_id(unsafe { c::BinaryenExpressionGetId(self.raw()) })
    }

    /// The child at a position in the order of execution. Panics when there is none.
    pub fn child(self, index: u32) -> Expr<'m> {
        Expr::from_address(bridge::get_child(self.address(), index))
    }

    pub fn set_child(self, index: u32, child: Expr<'m>) {
        bridge::set_child(self.address(), index, child.address());
    }

    /// What a call calls; `None` for other expressions, and for a `call_ref` of the bottom type.
    pub fn describe_call(self) -> Option<CallSite> {
        matches!(self.kind(), Kind::Call | Kind::CallIndirect | Kind::CallRef)
            .then(|| bridge::describe_call(self.address()).ok())
            .flatten()
    }

    pub fn is_return_call(self) -> bool {
        bridge::is_return_call(self.address())
    }

    /// A hash under which expressions equal by [`Expr::same_as`] collide.
    pub fn hash(self) -> u64 {
        bridge::hash_expression(self.address())
    }

    /// Whether two expressions have the same structure and the same leaves.
    pub fn same_as(self, other: Expr<'m>) -> bool {
        bridge::equal_expressions(self.address(), other.address())
    }

    fn binary_op(self) -> Option<c::BinaryenOp> {
        // SAFETY: the accessor is used on the kind of expression it is for.
        (self.kind() == Kind::Binary).then(|| unsafe { c::BinaryenBinaryGetOp(self.raw()) })
    }

    /// Whether it is a bitwise or of integers.
    pub fn is_or(self) -> bool {
        // SAFETY: the accessor is used on the kind of expression it is for; the others return constants.
        self.kind() == Kind::Binary
            && unsafe {
                let op = c::BinaryenBinaryGetOp(self.raw());
                op == c::BinaryenOrInt32() || op == c::BinaryenOrInt64()
            }
    }

    /// Whether it is a bitwise and of integers.
    pub fn is_and(self) -> bool {
        // SAFETY: as above.
        self.kind() == Kind::Binary
            && unsafe {
                let op = c::BinaryenBinaryGetOp(self.raw());
                op == c::BinaryenAndInt32() || op == c::BinaryenAndInt64()
            }
    }

    /// Whether it multiplies 32-bit integers.
    pub fn is_multiplication(self) -> bool {
        // SAFETY: as above.
        self.binary_op() == Some(unsafe { c::BinaryenMulInt32() })
    }

    /// Whether it is an `if` with two arms.
    pub fn has_else(self) -> bool {
        // SAFETY: as above.
        self.kind() == Kind::If && !unsafe { c::BinaryenIfGetIfFalse(self.raw()) }.is_null()
    }

    /// Whether it compares an integer with zero: `eqz`.
    pub fn is_zero_test(self) -> bool {
        // SAFETY: as above.
        self.kind() == Kind::Unary
            && unsafe {
                let op = c::BinaryenUnaryGetOp(self.raw());
                op == c::BinaryenEqZInt32() || op == c::BinaryenEqZInt64()
            }
    }

    /// The label of a block or loop, if it has one, or that a branch goes to.
    pub fn label_name(self) -> Option<Name> {
        // SAFETY: each accessor is used on the kind of expression it is for.
        let name = unsafe {
            match self.kind() {
                Kind::Block => c::BinaryenBlockGetName(self.raw()),
                Kind::Loop => c::BinaryenLoopGetName(self.raw()),
                Kind::Break => c::BinaryenBreakGetName(self.raw()),
                _ => return None,
            }
        };
        Name::from_number(name as usize)
    }

    /// The name of a block or loop, if it has one.
    pub fn label(self) -> Option<String> {
        self.label_name().filter(|_| self.kind() != Kind::Break).map(Name::text)
    }

    /// The label that a `br` or `br_if` goes to.
    pub fn branch_label(self) -> Option<String> {
        self.label_name().filter(|_| self.kind() == Kind::Break).map(Name::text)
    }

    /// The label that an unconditional branch goes to.
    pub fn jump_label(self) -> Option<Name> {
        // SAFETY: the expression is a branch.
        let is_jump = || unsafe { c::BinaryenBreakGetCondition(self.raw()) }.is_null();
        self.label_name().filter(|_| self.kind() == Kind::Break && is_jump())
    }

    /// Gives an `if` without an else-arm one. Panics on other expressions.
    pub fn add_else(self, arm: Expr<'m>) {
        assert_eq!(self.kind(), Kind::If);
        // SAFETY: the expression is an `if`.
        unsafe {
            assert!(c::BinaryenIfGetIfFalse(self.raw()).is_null());
            c::BinaryenIfSetIfFalse(self.raw(), arm.raw());
        }
    }

    /// Puts a child into a block, in front of the one at an index. Panics on other expressions.
    pub fn insert_child(self, index: u32, child: Expr<'m>) {
        assert_eq!(self.kind(), Kind::Block);
        // SAFETY: the expression is a block, and Binaryen checks the index.
        unsafe { c::BinaryenBlockInsertChildAt(self.raw(), index, child.raw()) }
    }

    /// The local that a `local.get`, `local.set` or `local.tee` names. Panics on other expressions.
    pub fn local(self) -> u32 {
        // SAFETY: each accessor is used on the kind of expression it is for.
        unsafe {
            match self.kind() {
                Kind::LocalGet => c::BinaryenLocalGetGetIndex(self.raw()),
                Kind::LocalSet => c::BinaryenLocalSetGetIndex(self.raw()),
                other => panic!("{other:?} names no local"),
            }
        }
    }

    /// The children of a block. Panics on other expressions.
    pub fn block_children(self) -> Vec<Expr<'m>> {
        assert_eq!(self.kind(), Kind::Block);
        // SAFETY: the expression is a block, and the indices are within its list.
        unsafe {
            (0..c::BinaryenBlockGetNumChildren(self.raw()))
                .map(|i| Expr::from_raw(c::BinaryenBlockGetChildAt(self.raw(), i)))
                .collect()
        }
    }
}

/// The kinds of expression that the pass treats by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Block,
    If,
    Loop,
    Try,
    TryTable,
    Break,
    BrOn,
    Switch,
    Call,
    CallIndirect,
    CallRef,
    LocalGet,
    LocalSet,
    GlobalGet,
    GlobalSet,
    Load,
    Store,
    Drop,
    Return,
    Const,
    Unary,
    Binary,
    /// The payload of a legacy catch.
    Pop,
    Select,
    Nop,
    Unreachable,
    TupleMake,
    TupleExtract,
    RefNull,
    RefCast,
    RefAs,
    RefTest,
    /// `resume`, `resume_throw` or `switch`.
    StackSwitch,
    Other,
}

impl Kind {
    fn from_id(id: u32) -> Kind {
        static KINDS: std::sync::OnceLock<Vec<Kind>> = std::sync::OnceLock::new();
        KINDS.get_or_init(Kind::by_id).get(id as usize).copied().unwrap_or(Kind::Other)
    }

    fn by_id() -> Vec<Kind> {
        // SAFETY: these functions return constants.
        let ids = unsafe {
            [
                (c::BinaryenBlockId(), Kind::Block),
                (c::BinaryenIfId(), Kind::If),
                (c::BinaryenLoopId(), Kind::Loop),
                (c::BinaryenTryId(), Kind::Try),
                (c::BinaryenTryTableId(), Kind::TryTable),
                (c::BinaryenBreakId(), Kind::Break),
                (c::BinaryenBrOnId(), Kind::BrOn),
                (c::BinaryenSwitchId(), Kind::Switch),
                (c::BinaryenCallId(), Kind::Call),
                (c::BinaryenCallIndirectId(), Kind::CallIndirect),
                (c::BinaryenCallRefId(), Kind::CallRef),
                (c::BinaryenLocalGetId(), Kind::LocalGet),
                (c::BinaryenLocalSetId(), Kind::LocalSet),
                (c::BinaryenGlobalGetId(), Kind::GlobalGet),
                (c::BinaryenGlobalSetId(), Kind::GlobalSet),
                (c::BinaryenLoadId(), Kind::Load),
                (c::BinaryenStoreId(), Kind::Store),
                (c::BinaryenDropId(), Kind::Drop),
                (c::BinaryenReturnId(), Kind::Return),
                (c::BinaryenConstId(), Kind::Const),
                (c::BinaryenUnaryId(), Kind::Unary),
                (c::BinaryenBinaryId(), Kind::Binary),
                (c::BinaryenPopId(), Kind::Pop),
                (c::BinaryenSelectId(), Kind::Select),
                (c::BinaryenNopId(), Kind::Nop),
                (c::BinaryenUnreachableId(), Kind::Unreachable),
                (c::BinaryenTupleMakeId(), Kind::TupleMake),
                (c::BinaryenTupleExtractId(), Kind::TupleExtract),
                (c::BinaryenRefNullId(), Kind::RefNull),
                (c::BinaryenRefCastId(), Kind::RefCast),
                (c::BinaryenRefAsId(), Kind::RefAs),
                (c::BinaryenRefTestId(), Kind::RefTest),
                (c::BinaryenResumeId(), Kind::StackSwitch),
                (c::BinaryenResumeThrowId(), Kind::StackSwitch),
                (c::BinaryenStackSwitchId(), Kind::StackSwitch),
            ]
        };
        let mut kinds = Vec::new();
        for (id, kind) in ids {
            let id = id as usize;
            if kinds.len() <= id {
                kinds.resize(id + 1, Kind::Other);
            }
            kinds[id] = kind;
        }
        kinds
    }

    /// Block, if, loop, try and try_table: their children are regions rather than operands.
    pub fn is_control_flow(self) -> bool {
        matches!(self, Kind::Block | Kind::If | Kind::Loop | Kind::Try | Kind::TryTable)
    }
}

impl Node {
    pub fn expr<'m>(&self) -> Expr<'m> {
        Expr::from_address(self.expression)
    }

    pub fn kind(&self) -> Kind {
        Kind::from_id(self.id)
    }

    pub fn type_(&self) -> Type {
        Type(self.type_id)
    }

    pub fn is_call(&self) -> bool {
        self.call != 0
    }
}

/// Runs Binaryen's `wasm-opt` with the process's arguments. Does not return when it succeeds: the tool ends the process
/// with its status. An error is the text of a fatal error.
pub fn run_wasm_opt(arguments: Vec<OsString>) -> Result<i32, String> {
    bridge::install_terminate_handler();
    let mut bytes = Vec::new();
    for argument in arguments {
        bytes.extend(argument.as_encoded_bytes());
        bytes.push(0);
    }
    bridge::run_wasm_opt(&bytes).map_err(|e| e.what().to_string())
}

/// A pinned reference to a C++ object behind a handle.
///
/// SAFETY: the pointer is valid for the module's lifetime, and the opaque C++ types have no Rust-visible fields, so
/// that aliasing references never overlap memory that Rust reads or writes.
unsafe fn pinned<'a, T>(raw: NonNull<T>) -> Pin<&'a mut T> {
    unsafe { Pin::new_unchecked(&mut *raw.as_ptr()) }
}
