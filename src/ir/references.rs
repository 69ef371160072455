//! References: the hierarchies of their types, where locals get them from, and expressions that make them.

use super::ffi::bridge;
use super::{Builder, Expr, Function, Module, TagRow, Type};

/// What a type is, as far as keeping its values goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hierarchy {
    /// No reference, or a tuple.
    None,
    Function,
    Extern,
    Any,
    Exception,
    /// Of [`Any`](Self::Any), and a number.
    I31,
    /// Continuations, strings, shared references: neither tables nor frames hold them.
    Other,
}

impl Hierarchy {
    /// The nullable type that all of the hierarchy are subtypes of. Panics for `None` and `Other`.
    pub fn top(self) -> Type {
        Type::from_id(match self {
            Hierarchy::Function => bridge::basic_reference(1),
            Hierarchy::Extern => bridge::basic_reference(2),
            Hierarchy::Any => bridge::basic_reference(3),
            Hierarchy::Exception => bridge::basic_reference(4),
            Hierarchy::I31 => bridge::basic_reference(5),
            Hierarchy::None | Hierarchy::Other => panic!("{self:?} has no top type"),
        })
    }
}

impl Type {
    /// The reference types that frames know of, with their names in the text format.
    pub(super) const FRAME_REFERENCES: [(Hierarchy, &'static str); 5] = [
        (Hierarchy::Function, "funcref"),
        (Hierarchy::Extern, "externref"),
        (Hierarchy::Any, "anyref"),
        (Hierarchy::Exception, "exnref"),
        (Hierarchy::I31, "i31ref"),
    ];

    /// What a value type is in a frame: numbers and i31 are themselves, other references are the top of their
    /// hierarchy.
    pub fn in_frame(self) -> Type {
        match self.hierarchy() {
            Hierarchy::None | Hierarchy::Other => self,
            hierarchy => hierarchy.top(),
        }
    }

    pub fn hierarchy(self) -> Hierarchy {
        if self.is_numeric() {
            return Hierarchy::None;
        }
        match bridge::reference_class(self.0) {
            0 => Hierarchy::None,
            1 => Hierarchy::Function,
            2 => Hierarchy::Extern,
            3 => Hierarchy::Any,
            4 => Hierarchy::Exception,
            5 => Hierarchy::I31,
            _ => Hierarchy::Other,
        }
    }

    /// References replaced by the nullable tops of their hierarchies, in tuples as well.
    pub fn top(self) -> Type {
        if self.is_concrete() && !self.is_numeric() { Type(bridge::reference_top(self.0)) } else { self }
    }

    /// Whether it is a continuation of a declared type, or one of the null types of [`Hierarchy::Other`]: nothing can be
    /// cast to these.
    pub fn is_beyond_casts(self) -> bool {
        if !self.is_reference() || self.hierarchy() != Hierarchy::Other {
            return false;
        }
        // SAFETY: the type is a reference, so it has a heap type.
        unsafe {
            let heap = super::c::BinaryenTypeGetHeapType(self.0);
            let is_castable = super::c::BinaryenHeapTypeIsBasic(heap)
                || super::c::BinaryenHeapTypeIsSignature(heap)
                || super::c::BinaryenHeapTypeIsStruct(heap)
                || super::c::BinaryenHeapTypeIsArray(heap);
            !is_castable || super::c::BinaryenHeapTypeIsBottom(heap)
        }
    }

    /// A tuple; of one type, that type; of none, `none`.
    pub fn tuple(types: &[Type]) -> Type {
        let mut types: Vec<usize> = types.iter().map(|t| t.0).collect();
        // SAFETY: the array holds so many types.
        Type(unsafe { super::c::BinaryenTypeCreate(types.as_mut_ptr(), types.len() as u32) })
    }

    pub fn nullable(self) -> Type {
        if self.is_numeric() { self } else { Type(bridge::nullable_type(self.0)) }
    }

    /// Whether null is its one value.
    pub fn is_null(self) -> bool {
        // SAFETY: these read interned types; the heap type is asked of a reference.
        unsafe {
            !self.is_numeric()
                && super::c::BinaryenTypeIsNullable(self.0)
                && super::c::BinaryenHeapTypeIsBottom(super::c::BinaryenTypeGetHeapType(self.0))
        }
    }

    /// Whether it or a component is a reference.
    pub fn has_reference(self) -> bool {
        !self.is_numeric() && self.components().iter().any(|t| !t.is_numeric())
    }
}

/// Which sets a local's value can come from.
pub struct ReachingSets(cxx::UniquePtr<bridge::ReachingSets>);

impl ReachingSets {
    /// The `local.set`s and tees whose value the local can have at a call or a `local.get`; `None` stands for its value
    /// when the function was entered. Panics for code that cannot be reached.
    pub fn at<'m>(&self, expr: Expr<'m>, local: u32) -> Vec<Option<Expr<'m>>> {
        let sets = self.0.at(expr.address(), local).expect("the expression can be reached");
        sets.into_iter().map(|set| (set != 0).then(|| Expr::from_address(set))).collect()
    }
}

impl<'m> Function<'m> {
    pub fn reaching_sets(self, module: Module<'m>) -> ReachingSets {
        ReachingSets(bridge::reaching_sets(module.pin(), self.pin()))
    }

    /// Makes variables nullable; reads that were built as non-nullable check for null instead.
    pub fn make_nullable(self, module: Module<'m>, locals: &[u32]) {
        bridge::make_nullable(module.pin(), self.pin(), locals);
    }

    /// The value, of a supertype as far as references go, as one of the type.
    pub fn cast(self, module: Module<'m>, value: Expr<'m>, type_: Type) -> Expr<'m> {
        Expr::from_address(bridge::cast_reference(module.pin(), self.pin(), value.address(), type_.0))
    }
}

impl<'m> Module<'m> {
    /// Whether the expression can be computed again when its captured operands are known, and these. It may read the
    /// tables and globals named, which are sorted.
    pub fn replayable(self, expr: Expr<'m>, tables: &[String], globals: &[String]) -> Option<Vec<Expr<'m>>> {
        let mut captures = Vec::new();
        bridge::is_replayable(self.pin(), expr.address(), tables, globals, &mut captures)
            .then(|| captures.into_iter().map(Expr::from_address).collect())
    }

    /// A copy of a replayable expression that reads its captured operands from locals.
    pub fn make_replay(self, expr: Expr<'m>, locals: &[u32]) -> Expr<'m> {
        Expr::from_address(bridge::make_replay(self.pin(), expr.address(), locals))
    }

    pub fn tags(self) -> Vec<TagRow> {
        bridge::list_tags(&self.pin())
    }

    /// Adds an exported table of references that starts with functions.
    pub fn add_reference_table(self, name: &str, export: &str, hierarchy: Hierarchy, size: u32, functions: &[String]) {
        bridge::add_reference_table(self.pin(), name, export, hierarchy.top().0, size, functions);
    }

    /// Functions that return a non-null reference to nothing, which they therefore never do, return a nullable one from
    /// now on. Those that are exported, referenced or tail-called stay as they are.
    pub fn relax_bottom_results(self, functions: &[Function<'_>]) {
        bridge::relax_bottom_results(self.pin(), &super::function::addresses(functions));
    }

    /// The type without what only Binaryen knows of a value.
    pub fn local_type(self, type_: Type) -> Type {
        if type_.is_numeric() { type_ } else { Type(bridge::local_type(&self.pin(), type_.0)) }
    }

    /// Some value of the type, if there is one that can be made. Can add functions to the module.
    pub fn make_default(self, type_: Type) -> Option<Expr<'m>> {
        match bridge::make_default(self.pin(), type_.0) {
            0 => None,
            address => Some(Expr::from_address(address)),
        }
    }
}

/// Whether two replayable expressions differ in their captured operands only.
pub fn is_same_replay(left: Expr<'_>, right: Expr<'_>) -> bool {
    bridge::is_same_replay(left.address(), right.address())
}

impl<'m> Builder<'m> {
    pub fn null(self, hierarchy: Hierarchy) -> Expr<'m> {
        self.zero(hierarchy.top()).expect("it can be null")
    }
}
