//! What is sure to do nothing but bind a name when a module is imported. Everything else may do something (register,
//! patch, print) and counts whenever its module is imported.

use std::collections::{HashMap, HashSet};

use ruff_python_ast::{Decorator, Expr, ParameterWithDefault, Parameters, Stmt, StmtClassDef, StmtFunctionDef};

use super::canon::chain_of;
use super::syntax::with_stack;

/// What is known of a module's names, statement by statement.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// All names that the module binds; Python's own are not those any more.
    pub bound: HashSet<String>,
    /// Names of plain definitions and values.
    plain: HashSet<String>,
    /// Names of numbers, texts and collections of such, with which operators do nothing else.
    constants: HashSet<String>,
    /// Classes that do nothing to their subclasses.
    classes: HashSet<String>,
    /// Full names of what was imported.
    imported: HashMap<String, String>,
    /// Whether annotations are kept as text.
    annotations_are_text: bool,
}

/// Full names of decorators that only make one function of another.
const DECORATORS: &[&str] = &[
    "abc.abstractmethod",
    "contextlib.contextmanager",
    "dataclasses.dataclass",
    "functools.cache",
    "functools.cached_property",
    "functools.lru_cache",
    "functools.total_ordering",
    "functools.wraps",
    "numba.jit",
    "numba.njit",
    "numba.vectorize",
    "numba.guvectorize",
    "typing.final",
    "typing.no_type_check",
    "typing.overload",
];

const BUILTIN_DECORATORS: &[&str] = &["classmethod", "property", "staticmethod"];

/// Classes of Python that do nothing to their subclasses.
const BASES: &[&str] = &[
    "abc.ABC",
    "enum.Enum",
    "enum.Flag",
    "enum.IntEnum",
    "enum.IntFlag",
    "enum.StrEnum",
    "typing.Generic",
    "typing.NamedTuple",
    "typing.Protocol",
    "typing.TypedDict",
];

const BUILTIN_BASES: &[&str] = &[
    "ArithmeticError",
    "BaseException",
    "Exception",
    "IndexError",
    "KeyError",
    "LookupError",
    "OSError",
    "RuntimeError",
    "TypeError",
    "ValueError",
    "Warning",
    "bool",
    "bytes",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "object",
    "set",
    "str",
    "tuple",
];

/// Functions of Python that only make a value of constants.
const MAKERS: &[&str] = &[
    "abs",
    "bytes",
    "dict",
    "float",
    "frozenset",
    "int",
    "len",
    "list",
    "max",
    "min",
    "range",
    "round",
    "set",
    "str",
    "sum",
    "tuple",
];

/// The same of modules that come with Python, and numpy.
const IMPORTED_MAKERS: &[&str] = &[
    "collections.defaultdict",
    "collections.namedtuple",
    "dataclasses.field",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "decimal.Decimal",
    "fractions.Fraction",
    "functools.partial",
    "logging.getLogger",
    "numpy.arange",
    "numpy.array",
    "numpy.linspace",
    "numpy.ones",
    "numpy.zeros",
    "operator.attrgetter",
    "operator.itemgetter",
    "pathlib.Path",
    "re.compile",
    "threading.Lock",
    "threading.RLock",
    "threading.local",
    "typing.NewType",
    "typing.TypeVar",
];

impl Quiet {
    /// A name is bound, by something that does nothing else or not.
    pub fn bind(&mut self, name: &str, quiet: bool) {
        self.forget(name);
        if quiet {
            self.plain.insert(name.to_string());
        }
    }

    pub fn bind_constant(&mut self, name: &str, constant: bool) {
        if constant {
            self.constants.insert(name.to_string());
        }
    }

    pub fn bind_class(&mut self, def: &StmtClassDef, quiet: bool) {
        self.bind(&def.name, quiet);
        let acts_on_subclasses = |stmt: &Stmt| match stmt {
            Stmt::FunctionDef(method) => matches!(&*method.name, "__init_subclass__" | "__class_getitem__"),
            _ => false,
        };
        if quiet && !def.body.iter().any(acts_on_subclasses) {
            self.classes.insert(def.name.to_string());
        }
    }

    pub fn import(&mut self, name: &str, full_name: &str) {
        self.forget(name);
        self.annotations_are_text |= full_name == "__future__.annotations";
        self.imported.insert(name.to_string(), full_name.to_string());
    }

    fn forget(&mut self, name: &str) {
        self.plain.remove(name);
        self.constants.remove(name);
        self.classes.remove(name);
        self.imported.remove(name);
    }

    /// The full name of an imported thing.
    fn full_name(&self, expr: &Expr) -> Option<String> {
        let chain = chain_of(expr)?;
        let (root, rest) = chain.split_once('.').map_or((&*chain, None), |(root, rest)| (root, Some(rest)));
        let full = self.imported.get(root)?;
        Some(rest.map_or_else(|| full.clone(), |rest| format!("{full}.{rest}")))
    }

    fn is_builtin(&self, expr: &Expr, names: &[&str]) -> bool {
        matches!(expr, Expr::Name(name) if names.contains(&&*name.id) && !self.bound.contains(&*name.id))
    }

    /// Whether defining the function does nothing else.
    pub fn function(&self, def: &StmtFunctionDef) -> bool {
        def.decorator_list.iter().all(|d| self.decorator(d))
            && self.parameters(&def.parameters)
            && def.returns.as_deref().is_none_or(|e| self.annotation(e))
            && def.type_params.is_none()
    }

    fn decorator(&self, decorator: &Decorator) -> bool {
        let (function, arguments) = match &decorator.expression {
            Expr::Call(call) => (&*call.func, Some(&call.arguments)),
            function => (function, None),
        };
        let known = self.full_name(function).is_some_and(|name| DECORATORS.contains(&&*name));
        (known || self.is_builtin(function, BUILTIN_DECORATORS))
            && arguments.is_none_or(|a| {
                a.args.iter().all(|e| self.value(e)) && a.keywords.iter().all(|keyword| self.value(&keyword.value))
            })
    }

    fn parameters(&self, parameters: &Parameters) -> bool {
        let default = |p: &ParameterWithDefault| p.default.as_deref().is_none_or(|e| self.value(e));
        let mut annotations = parameters.iter().filter_map(|p| p.annotation());
        parameters.iter_non_variadic_params().all(default) && annotations.all(|e| self.annotation(e))
    }

    /// Whether defining the class does nothing else.
    pub fn class(&self, def: &StmtClassDef) -> bool {
        let base = |expr: &Expr| {
            let expr = match expr {
                Expr::Subscript(e) if self.annotation(&e.slice) => &e.value,
                expr => expr,
            };
            let own = matches!(expr, Expr::Name(name) if self.classes.contains(&*name.id));
            let known = self.full_name(expr).is_some_and(|name| BASES.contains(&&*name));
            own || known || self.is_builtin(expr, BUILTIN_BASES)
        };
        def.decorator_list.iter().all(|d| self.decorator(d))
            && def.type_params.is_none()
            && def.arguments.iter().all(|a| a.keywords.is_empty() && a.args.iter().all(base))
            && def.body.iter().all(|stmt| self.in_class(stmt))
    }

    fn in_class(&self, stmt: &Stmt) -> bool {
        match stmt {
            Stmt::FunctionDef(def) => {
                let accessor = |d: &Decorator| {
                    let Expr::Attribute(e) = &d.expression else { return false };
                    matches!(&*e.attr, "setter" | "getter" | "deleter") && matches!(&*e.value, Expr::Name(_))
                };
                def.decorator_list.iter().all(|d| accessor(d) || self.decorator(d))
                    && self.parameters(&def.parameters)
                    && def.returns.as_deref().is_none_or(|e| self.annotation(e))
                    && def.type_params.is_none()
            }
            Stmt::Assign(s) => s.targets.iter().all(|target| matches!(target, Expr::Name(_))) && self.value(&s.value),
            Stmt::AnnAssign(s) => {
                matches!(&*s.target, Expr::Name(_))
                    && self.annotation(&s.annotation)
                    && s.value.as_deref().is_none_or(|value| self.value(value))
            }
            Stmt::Expr(s) => s.value.is_literal_expr(),
            Stmt::Pass(_) => true,
            _ => false,
        }
    }

    /// Whether evaluating an annotation does nothing.
    pub fn annotation(&self, expr: &Expr) -> bool {
        with_stack(|| match expr {
            _ if self.annotations_are_text => true,
            Expr::Subscript(e) => self.annotation(&e.value) && self.annotation(&e.slice),
            Expr::BinOp(e) => self.annotation(&e.left) && self.annotation(&e.right),
            Expr::List(e) => e.elts.iter().all(|e| self.annotation(e)),
            Expr::Tuple(e) => e.elts.iter().all(|e| self.annotation(e)),
            Expr::Starred(e) => self.annotation(&e.value),
            Expr::Attribute(_) => chain_of(expr).is_some(),
            Expr::Name(_) => true,
            _ => expr.is_literal_expr(),
        })
    }

    /// Whether evaluating the expression does nothing.
    pub fn value(&self, expr: &Expr) -> bool {
        with_stack(|| match expr {
            Expr::Name(_) => true,
            Expr::Attribute(_) => {
                let chain = chain_of(expr).unwrap_or_default();
                let root = chain.split('.').next().unwrap_or_default();
                self.plain.contains(root) || self.imported.contains_key(root)
            }
            Expr::Tuple(e) => e.elts.iter().all(|e| self.value(e)),
            Expr::List(e) => e.elts.iter().all(|e| self.value(e)),
            Expr::Dict(e) => e.items.iter().all(|item| {
                item.key
                    .as_ref()
                    .map_or_else(|| self.constant(&item.value), |key| self.constant(key) || self.value(key))
                    && self.value(&item.value)
            }),
            Expr::Lambda(e) => e.parameters.as_deref().is_none_or(|p| self.parameters(p)),
            Expr::Call(e) if self.full_name(&e.func).is_some_and(|name| IMPORTED_MAKERS.contains(&&*name)) => {
                e.arguments.args.iter().all(|e| self.value(e))
                    && e.arguments.keywords.iter().all(|keyword| self.value(&keyword.value))
            }
            _ => self.constant(expr),
        })
    }

    /// Whether it is made of numbers, texts and collections of such, so that operators do nothing else.
    pub fn constant(&self, expr: &Expr) -> bool {
        with_stack(|| match expr {
            Expr::Name(name) => self.constants.contains(&*name.id),
            Expr::Tuple(e) => e.elts.iter().all(|e| self.constant(e)),
            Expr::List(e) => e.elts.iter().all(|e| self.constant(e)),
            Expr::Set(e) => e.elts.iter().all(|e| self.constant(e)),
            Expr::Dict(e) => e
                .items
                .iter()
                .all(|item| item.key.as_ref().is_none_or(|key| self.constant(key)) && self.constant(&item.value)),
            Expr::Starred(e) => self.constant(&e.value),
            Expr::UnaryOp(e) => self.constant(&e.operand),
            Expr::BinOp(e) => self.constant(&e.left) && self.constant(&e.right),
            Expr::BoolOp(e) => e.values.iter().all(|e| self.constant(e)),
            Expr::Compare(e) => self.constant(&e.left) && e.comparators.iter().all(|e| self.constant(e)),
            Expr::If(e) => self.constant(&e.test) && self.constant(&e.body) && self.constant(&e.orelse),
            Expr::Subscript(e) => self.constant(&e.value) && self.constant(&e.slice),
            Expr::Slice(e) => [&e.lower, &e.upper, &e.step].into_iter().flatten().all(|e| self.constant(e)),
            Expr::Call(e) => {
                self.is_builtin(&e.func, MAKERS)
                    && e.arguments.args.iter().all(|e| self.constant(e))
                    && e.arguments.keywords.iter().all(|keyword| self.constant(&keyword.value))
            }
            Expr::Attribute(_) => {
                self.full_name(expr).is_some_and(|name| name.starts_with("math.") || name.starts_with("numpy."))
            }
            _ => expr.is_literal_expr(),
        })
    }
}
