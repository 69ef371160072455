//! Functions and the analyses that look at one function at a time.

use std::marker::PhantomData;
use std::pin::Pin;
use std::ptr::NonNull;

use super::ffi::bridge;
use super::{Code, Expr, LivenessPoint, LocalRead, Module, Node, Type, Web, WebPair, c, pinned};

/// A function of the module.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Function<'m>(NonNull<bridge::Function>, PhantomData<&'m bridge::Module>);

// SAFETY: parallel work gives each function to one thread (module documentation).
unsafe impl Send for Function<'_> {}
unsafe impl Sync for Function<'_> {}

pub(super) fn addresses(functions: &[Function<'_>]) -> Vec<usize> {
    functions.iter().map(|function| function.0.as_ptr() as usize).collect()
}

impl<'m> Function<'m> {
    pub(super) fn from_raw(raw: *mut bridge::Function) -> Self {
        Function(NonNull::new(raw).expect("Binaryen throws for an unknown function"), PhantomData)
    }

    /// Whether another function has the same type and locals, and the same body but for names of labels. Such functions'
    /// bodies have equal [hashes](super::Expr::hash).
    pub fn same_as(self, other: Function<'m>) -> bool {
        bridge::equal_functions(self.pin(), other.pin())
    }

    pub(super) fn pin(self) -> Pin<&'m mut bridge::Function> {
        // SAFETY: see `pinned`.
        unsafe { pinned(self.0) }
    }

    fn raw(self) -> c::BinaryenFunctionRef {
        self.0.as_ptr().cast()
    }

    pub fn name(self) -> String {
        bridge::function_name(&self.pin())
    }

    pub fn body(self) -> Expr<'m> {
        // SAFETY: the function is alive as long as the module.
        Expr::from_raw(unsafe { c::BinaryenFunctionGetBody(self.raw()) })
    }

    pub fn set_body(self, body: Expr<'m>) {
        // SAFETY: as above.
        unsafe { c::BinaryenFunctionSetBody(self.raw(), body.raw()) }
    }

    pub fn results(self) -> Type {
        // SAFETY: as above.
        Type::from_id(unsafe { c::BinaryenFunctionGetResults(self.raw()) })
    }

    pub fn num_params(self) -> u32 {
        // SAFETY: as above.
        Type::from_id(unsafe { c::BinaryenFunctionGetParams(self.raw()) }).components().len() as u32
    }

    /// Types of all locals, parameters first.
    pub fn local_types(self) -> Vec<Type> {
        bridge::local_types(self.pin()).into_iter().map(Type::from_id).collect()
    }

    /// Adds a variable; its name is made unique in the function.
    pub fn add_local(self, type_: Type, name: &str) -> u32 {
        bridge::add_local(self.pin(), type_.0, name)
    }

    /// The local's name, or its index as text.
    pub fn local_name(self, index: u32) -> String {
        bridge::local_name(self.pin(), index)
    }

    /// The number of expressions in the body.
    pub fn count_expressions(self) -> usize {
        bridge::count_expressions(self.pin())
    }

    /// All expressions of the body in post-order.
    pub fn nodes(self) -> Vec<Node> {
        bridge::list_nodes(self.pin())
    }

    /// Only the addresses of the expressions, which takes less time.
    pub fn expressions(self) -> Vec<usize> {
        bridge::list_expressions(self.pin())
    }

    /// All expressions of the body in post-order, with what they name.
    pub fn code(self) -> Code {
        bridge::read_code(self.pin())
    }

    /// A copy, for `to`, of code of this function, with debug locations. Expressions in `left_out` are in the copy
    /// themselves: the caller must replace them.
    pub fn copy_code_to(self, module: Module<'m>, to: Function<'m>, code: Expr<'m>, left_out: &[Expr<'m>]) -> Expr<'m> {
        let left_out: Vec<usize> = left_out.iter().map(|e| e.address()).collect();
        Expr::from_address(bridge::copy_code(module.pin(), self.pin(), to.pin(), code.address(), &left_out))
    }

    /// Gives `replacement`, in `to`, the debug location of `original`, in this function.
    pub fn copy_location_to(self, to: Function<'m>, original: Expr<'m>, replacement: Expr<'m>) {
        bridge::copy_location(self.pin(), to.pin(), original.address(), replacement.address());
    }

    /// Recomputes all types, and makes locals that cannot be null valid again.
    pub fn refinalize(self, module: Module<'m>) {
        bridge::refinalize(module.pin(), self.pin());
    }

    /// Puts the contents of blocks without a name in the place of those blocks, where they are among other statements.
    pub fn flatten_blocks(self) {
        bridge::flatten_blocks(self.pin());
    }

    /// Replaces calls of the functions by their operands, and removes what then does nothing.
    pub fn remove_markers(self, module: Module<'m>, markers: &[String]) {
        bridge::remove_markers(module.pin(), self.pin(), markers);
    }

    /// Labels of blocks and loops that start with a prefix.
    pub fn labels_with_prefix(self, prefix: &str) -> Vec<String> {
        bridge::list_labels(self.pin(), prefix)
    }

    /// Liveness of locals at calls, but for those that call functions of `others`, numbers of names in ascending order, by
    /// name. Binaryen's analysis may replace code that cannot be reached.
    pub fn liveness(self, module: Module<'m>, others: &[usize]) -> Liveness {
        Liveness(bridge::liveness_at_calls(module.pin(), self.pin(), others))
    }

    /// What of its locals belongs together. Landings are the calls that [`Function::liveness`] is about.
    pub fn webs(self, module: Module<'m>, others: &[usize]) -> Webs<'m> {
        Webs(bridge::local_webs(module.pin(), self.pin(), others), PhantomData)
    }

    /// What each read of a local may find.
    pub fn local_reads(self, module: Module<'m>) -> Vec<LocalRead> {
        bridge::local_reads(module.pin(), self.pin())
    }

    /// Liveness of locals behind expressions that are no `try`s, and behind calls that return. The points are in ascending
    /// order.
    pub fn live_after(self, module: Module<'m>, points: &[LivenessPoint]) -> Vec<LiveAfter> {
        let answer = |answer: u8| match answer {
            0 => LiveAfter::Dead,
            1 => LiveAfter::Live,
            _ => LiveAfter::Unreachable,
        };
        bridge::live_after(module.pin(), self.pin(), points).into_iter().map(answer).collect()
    }
}

/// Whether a local may be read behind an expression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LiveAfter {
    Dead,
    Live,
    /// Control cannot reach the end of the expression.
    Unreachable,
}

/// The webs of a function's locals: each can have a local of its own.
pub struct Webs<'m>(cxx::UniquePtr<bridge::LocalWebs>, PhantomData<Function<'m>>);

impl Webs<'_> {
    /// None, if a local is used where control cannot come, or if the function is too large.
    pub fn list(&self) -> &[Web] {
        self.0.webs()
    }

    /// Webs that cannot be in one local, in ascending order.
    pub fn conflicts(&self) -> &[WebPair] {
        self.0.conflicts()
    }

    pub fn landing_count(&self) -> u32 {
        self.0.landing_count()
    }

    /// Puts each web into a local of the same type, and removes variables that no web is in. What has a web of another
    /// local in it loses its name. The function must be as it was when the webs were found.
    pub fn assign(self, locals: &[u32]) {
        assert_eq!(locals.len(), self.list().len(), "each web has a local");
        self.0.assign(locals);
    }
}

/// Which locals are live after each call of a function.
pub struct Liveness(cxx::UniquePtr<bridge::LivenessAtCalls>);

impl Liveness {
    /// Whether control can reach the call.
    pub fn is_reachable(&self, call: Expr<'_>) -> bool {
        self.0.reachable(call.address())
    }

    /// The locals that may be read after the call returns or throws, ascending. Panics when the call cannot be reached.
    pub fn after(&self, call: Expr<'_>) -> Vec<u32> {
        self.0.after(call.address()).expect("the call can be reached")
    }
    /// Whether a local is not live at the head of a loop, but would be if it were read after a call, for calls with locals
    /// in ascending order. Of a call that cannot be reached, it is not.
    pub fn stale_after(&self, points: &[LivenessPoint]) -> Vec<bool> {
        self.0.stale_after(points)
    }
}
