//! Code as bytes that are the same whenever the code is: comments, layout, quotes, redundant brackets and docstrings
//! are not in them. Along the way, what the code refers to is noted.
//!
//! The bytes are made by this walk alone, never by the parser's own `Hash` or `Debug`, so that a new version of the
//! parser changes no hash. Every node is a tag, its parts and an end; text stands behind its length.

use ruff_python_ast::{
    Alias, Arguments, BoolOp, CmpOp, Comprehension, Decorator, ExceptHandler, Expr, FStringPart, InterpolatedElement,
    InterpolatedStringElement, Number, Operator, Parameter, ParameterWithDefault, Parameters, Pattern, Singleton, Stmt,
    TypeParam, TypeParams, UnaryOp,
};
use ruff_text_size::TextRange;

use super::refers::Refers;
use super::scope::{Scope, names_of_comprehension, scope_of_function, scope_of_lambda};
use super::syntax::with_stack;

/// The walk over one definition or statement.
pub(super) struct Canon<'a> {
    source: &'a str,
    pub bytes: Vec<u8>,
    /// The docstrings, for code that reads them.
    pub docs: Vec<u8>,
    pub refers: Refers,
    /// The functions around, from the outermost to the innermost.
    scopes: Vec<Scope>,
    in_class_body: bool,
}

impl<'a> Canon<'a> {
    pub fn new(source: &'a str) -> Canon<'a> {
        Canon {
            source,
            bytes: Vec::new(),
            docs: Vec::new(),
            refers: Refers::default(),
            scopes: Vec::new(),
            in_class_body: false,
        }
    }

    fn open(&mut self, tag: &str) {
        self.bytes.extend(tag.bytes());
        self.bytes.push(b'(');
    }

    fn close(&mut self) {
        self.bytes.push(b')');
    }

    fn node(&mut self, tag: &str, parts: impl FnOnce(&mut Self)) {
        self.open(tag);
        parts(self);
        self.close();
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend(text.len().to_string().bytes());
        self.bytes.push(b':');
        self.bytes.extend(text.bytes());
    }

    fn maybe<T>(&mut self, part: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match part {
            Some(part) => write(self, part),
            None => self.bytes.push(b'-'),
        }
    }

    fn list<T>(&mut self, parts: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.bytes.push(b'[');
        parts.into_iter().for_each(|part| write(self, part));
        self.bytes.push(b']');
    }

    fn slice(&self, range: TextRange) -> &'a str {
        &self.source[range]
    }

    /// Text as the parser understood it; as it is written where that stands for several things.
    fn literal(&mut self, value: &str, range: TextRange) {
        self.text(value);
        if value.contains('\u{FFFD}') {
            let written = self.slice(range);
            self.node("written", |c| c.text(written));
        }
    }

    pub fn body(&mut self, statements: &[Stmt]) {
        self.list(statements, Self::stmt);
    }

    /// The body of a module, class or function: its first text is its docstring.
    pub fn documented(&mut self, statements: &[Stmt]) {
        if let Some(Stmt::Expr(first)) = statements.first()
            && let Expr::StringLiteral(text) = &*first.value
        {
            self.docs.extend(text.value.to_str().bytes());
            self.docs.push(0);
        }
        self.body(statements);
    }

    fn scoped(&mut self, scope: Scope, f: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.in_class_body, false);
        self.scopes.push(scope);
        f(self);
        self.scopes.pop();
        self.in_class_body = outside;
    }

    /// A name that is looked up: one of the module, unless a function around it binds it.
    fn is_global(&self, name: &str) -> bool {
        for scope in self.scopes.iter().rev() {
            if scope.globals.contains(name) {
                break;
            }
            if scope.locals.contains(name) {
                return false;
            }
        }
        true
    }

    fn refer(&mut self, chain: &str) {
        let root = chain.split('.').next().unwrap_or(chain);
        if self.is_global(root) {
            self.refers.name(chain);
        }
    }

    pub fn stmt(&mut self, stmt: &Stmt) {
        with_stack(|| self.stmt_here(stmt));
    }

    fn stmt_here(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::FunctionDef(def) => self.node(if def.is_async { "async def" } else { "def" }, |c| {
                c.decorators(&def.decorator_list);
                c.text(&def.name);
                c.type_params(def.type_params.as_deref());
                c.parameters(&def.parameters);
                c.maybe(def.returns.as_deref(), Self::annotation);
                c.scoped(scope_of_function(&def.parameters, &def.body), |c| c.documented(&def.body));
            }),
            Stmt::ClassDef(def) => self.node("class", |c| {
                c.decorators(&def.decorator_list);
                c.text(&def.name);
                c.type_params(def.type_params.as_deref());
                c.maybe(def.arguments.as_deref(), Self::arguments);
                let outside = std::mem::replace(&mut c.in_class_body, true);
                c.documented(&def.body);
                c.in_class_body = outside;
            }),
            Stmt::Return(s) => self.node("return", |c| c.maybe(s.value.as_deref(), Self::expr)),
            Stmt::Delete(s) => self.node("del", |c| c.list(&s.targets, Self::expr)),
            Stmt::TypeAlias(s) => self.node("type", |c| {
                c.expr(&s.name);
                c.type_params(s.type_params.as_deref());
                c.expr(&s.value);
            }),
            Stmt::Assign(s) => self.node("=", |c| {
                c.list(&s.targets, Self::expr);
                c.expr(&s.value);
            }),
            Stmt::AugAssign(s) => self.node("op=", |c| {
                c.expr(&s.target);
                c.text(operator(s.op));
                c.expr(&s.value);
            }),
            Stmt::AnnAssign(s) => self.node(if s.simple { ":" } else { "(:)" }, |c| {
                c.expr(&s.target);
                c.annotation(&s.annotation);
                c.maybe(s.value.as_deref(), Self::expr);
            }),
            Stmt::For(s) => self.node(if s.is_async { "async for" } else { "for" }, |c| {
                c.expr(&s.target);
                c.expr(&s.iter);
                c.body(&s.body);
                c.body(&s.orelse);
            }),
            Stmt::While(s) => self.node("while", |c| {
                c.expr(&s.test);
                c.body(&s.body);
                c.body(&s.orelse);
            }),
            Stmt::If(s) => self.node("if", |c| {
                c.expr(&s.test);
                c.body(&s.body);
                c.list(&s.elif_else_clauses, |c, clause| {
                    c.maybe(clause.test.as_ref(), Self::expr);
                    c.body(&clause.body);
                });
            }),
            Stmt::With(s) => self.node(if s.is_async { "async with" } else { "with" }, |c| {
                c.list(&s.items, |c, item| {
                    c.expr(&item.context_expr);
                    c.maybe(item.optional_vars.as_deref(), Self::expr);
                });
                c.body(&s.body);
            }),
            Stmt::Match(s) => self.node("match", |c| {
                c.expr(&s.subject);
                c.list(&s.cases, |c, case| {
                    c.pattern(&case.pattern);
                    c.maybe(case.guard.as_deref(), Self::expr);
                    c.body(&case.body);
                });
            }),
            Stmt::Raise(s) => self.node("raise", |c| {
                c.maybe(s.exc.as_deref(), Self::expr);
                c.maybe(s.cause.as_deref(), Self::expr);
            }),
            Stmt::Try(s) => self.node(if s.is_star { "try*" } else { "try" }, |c| {
                c.body(&s.body);
                c.list(&s.handlers, |c, ExceptHandler::ExceptHandler(handler)| {
                    c.maybe(handler.type_.as_deref(), Self::expr);
                    c.maybe(handler.name.as_ref(), |c, name| c.text(name));
                    c.body(&handler.body);
                });
                c.body(&s.orelse);
                c.body(&s.finalbody);
            }),
            Stmt::Assert(s) => self.node("assert", |c| {
                c.expr(&s.test);
                c.maybe(s.msg.as_deref(), Self::expr);
            }),
            Stmt::Import(s) => self.node(if s.is_lazy { "lazy import" } else { "import" }, |c| {
                c.refers.imports_escape |= c.in_class_body;
                s.names.iter().for_each(|alias| c.refers.import(alias));
                c.list(&s.names, Self::alias);
            }),
            Stmt::ImportFrom(s) => self.node(if s.is_lazy { "lazy from" } else { "from" }, |c| {
                c.refers.imports_escape |= c.in_class_body;
                c.refers.import_from(s);
                c.text(&s.level.to_string());
                c.maybe(s.module.as_ref(), |c, module| c.text(module));
                c.list(&s.names, Self::alias);
            }),
            Stmt::Global(s) => self.node("global", |c| {
                c.refers.imports_escape = true;
                c.list(&s.names, |c, name| c.text(name));
            }),
            Stmt::Nonlocal(s) => self.node("nonlocal", |c| c.list(&s.names, |c, name| c.text(name))),
            // What stands there for nothing, docstrings among it, does nothing.
            Stmt::Expr(s) if s.value.is_literal_expr() => {}
            Stmt::Pass(_) => {}
            Stmt::Expr(s) => self.node("do", |c| c.expr(&s.value)),
            Stmt::Break(_) => self.node("break", |_| {}),
            Stmt::Continue(_) => self.node("continue", |_| {}),
            Stmt::IpyEscapeCommand(s) => self.node("escape", |c| c.text(&s.value)),
        }
    }

    fn alias(&mut self, alias: &Alias) {
        self.text(&alias.name);
        self.maybe(alias.asname.as_ref(), |c, name| c.text(name));
    }

    fn decorators(&mut self, decorators: &[Decorator]) {
        self.list(decorators, |c, decorator| c.expr(&decorator.expression));
    }

    fn annotation(&mut self, annotation: &Expr) {
        self.refers.in_annotation += 1;
        self.expr(annotation);
        self.refers.in_annotation -= 1;
    }

    fn type_params(&mut self, params: Option<&TypeParams>) {
        self.maybe(params, |c, params| {
            c.list(&params.type_params, |c, param| match param {
                TypeParam::TypeVar(p) => c.node("T", |c| {
                    c.text(&p.name);
                    c.maybe(p.bound.as_deref(), Self::expr);
                    c.maybe(p.default.as_deref(), Self::expr);
                }),
                TypeParam::TypeVarTuple(p) => c.node("*T", |c| {
                    c.text(&p.name);
                    c.maybe(p.default.as_deref(), Self::expr);
                }),
                TypeParam::ParamSpec(p) => c.node("**T", |c| {
                    c.text(&p.name);
                    c.maybe(p.default.as_deref(), Self::expr);
                }),
            });
        });
    }

    fn parameters(&mut self, parameters: &Parameters) {
        let with_default = |c: &mut Self, p: &ParameterWithDefault| {
            c.parameter(&p.parameter);
            c.maybe(p.default.as_deref(), Self::expr);
        };
        self.list(&parameters.posonlyargs, with_default);
        self.list(&parameters.args, with_default);
        self.maybe(parameters.vararg.as_deref(), Self::parameter);
        self.list(&parameters.kwonlyargs, with_default);
        self.maybe(parameters.kwarg.as_deref(), Self::parameter);
    }

    fn parameter(&mut self, parameter: &Parameter) {
        self.text(&parameter.name);
        self.maybe(parameter.annotation.as_deref(), Self::annotation);
    }

    fn arguments(&mut self, arguments: &Arguments) {
        self.list(&arguments.args, Self::expr);
        self.list(&arguments.keywords, |c, keyword| {
            c.maybe(keyword.arg.as_ref(), |c, name| {
                c.refers.keyword(name);
                c.text(name);
            });
            c.expr(&keyword.value);
        });
    }

    pub fn expr(&mut self, expr: &Expr) {
        with_stack(|| self.expr_here(expr));
    }

    fn expr_here(&mut self, expr: &Expr) {
        match expr {
            Expr::BoolOp(e) => self.node(if e.op == BoolOp::And { "and" } else { "or" }, |c| {
                c.list(&e.values, Self::expr);
            }),
            Expr::Named(e) => self.node(":=", |c| {
                c.expr(&e.target);
                c.expr(&e.value);
            }),
            Expr::BinOp(e) => self.node("op", |c| {
                c.expr(&e.left);
                c.text(operator(e.op));
                c.expr(&e.right);
            }),
            Expr::UnaryOp(e) => self.node("unary", |c| {
                c.text(match e.op {
                    UnaryOp::Invert => "~",
                    UnaryOp::Not => "not",
                    UnaryOp::UAdd => "+",
                    UnaryOp::USub => "-",
                });
                c.expr(&e.operand);
            }),
            Expr::Lambda(e) => self.node("lambda", |c| {
                c.maybe(e.parameters.as_deref(), Self::parameters);
                c.scoped(scope_of_lambda(e.parameters.as_deref(), &e.body), |c| c.expr(&e.body));
            }),
            Expr::If(e) => self.node("if else", |c| {
                c.expr(&e.test);
                c.expr(&e.body);
                c.expr(&e.orelse);
            }),
            Expr::Dict(e) => self.node("dict", |c| {
                c.list(&e.items, |c, item| {
                    c.maybe(item.key.as_ref(), Self::expr);
                    c.expr(&item.value);
                });
            }),
            Expr::Set(e) => self.node("set", |c| c.list(&e.elts, Self::expr)),
            Expr::ListComp(e) => self.comprehension("list for", &[&e.elt], &e.generators),
            Expr::SetComp(e) => self.comprehension("set for", &[&e.elt], &e.generators),
            Expr::DictComp(e) => {
                let elements: Vec<&Expr> = e.key.as_deref().into_iter().chain([&*e.value]).collect();
                self.comprehension("dict for", &elements, &e.generators);
            }
            Expr::Generator(e) => self.comprehension("for", &[&e.elt], &e.generators),
            Expr::Await(e) => self.node("await", |c| c.expr(&e.value)),
            Expr::Yield(e) => self.node("yield", |c| c.maybe(e.value.as_deref(), Self::expr)),
            Expr::YieldFrom(e) => self.node("yield from", |c| c.expr(&e.value)),
            Expr::Compare(e) => self.node("compare", |c| {
                c.expr(&e.left);
                c.list(e.ops.iter().zip(&e.comparators), |c, (op, operand)| {
                    c.text(comparison(*op));
                    c.expr(operand);
                });
            }),
            Expr::Call(e) => self.node("call", |c| {
                if let Expr::Name(name) = &*e.func
                    && e.arguments.args.is_empty()
                    && c.is_global(&name.id)
                {
                    c.refers.called_bare(&name.id);
                }
                c.expr(&e.func);
                c.arguments(&e.arguments);
            }),
            Expr::FString(e) => self.node("f", |c| {
                let mut text = Text::default();
                for part in &e.value {
                    match part {
                        FStringPart::Literal(literal) => text.add(c, &literal.value, literal.range),
                        FStringPart::FString(f) => c.elements(&f.elements, &mut text),
                    }
                }
                text.end(c);
            }),
            Expr::TString(e) => self.node("t", |c| {
                let mut text = Text::default();
                e.value.iter().for_each(|part| c.elements(&part.elements, &mut text));
                text.end(c);
            }),
            Expr::StringLiteral(e) => self.node("str", |c| {
                c.refers.string(e.value.to_str());
                c.literal(e.value.to_str(), e.range);
            }),
            Expr::BytesLiteral(e) => self.node("bytes", |c| {
                let bytes: Vec<u8> = e.value.bytes().collect();
                c.bytes.extend(bytes.len().to_string().bytes());
                c.bytes.push(b':');
                c.bytes.extend(bytes);
            }),
            Expr::NumberLiteral(e) => self.number(&e.value),
            Expr::BooleanLiteral(e) => self.node(if e.value { "True" } else { "False" }, |_| {}),
            Expr::NoneLiteral(_) => self.node("None", |_| {}),
            Expr::EllipsisLiteral(_) => self.node("...", |_| {}),
            Expr::Attribute(_) => self.attribute(expr),
            Expr::Subscript(e) => self.node("at", |c| {
                c.expr(&e.value);
                c.expr(&e.slice);
            }),
            Expr::Starred(e) => self.node("*", |c| c.expr(&e.value)),
            Expr::Name(e) => {
                self.refer(&e.id);
                self.node("name", |c| c.text(&e.id));
            }
            Expr::List(e) => self.node("list", |c| c.list(&e.elts, Self::expr)),
            Expr::Tuple(e) => self.node("tuple", |c| c.list(&e.elts, Self::expr)),
            Expr::Slice(e) => self.node("slice", |c| {
                c.maybe(e.lower.as_deref(), Self::expr);
                c.maybe(e.upper.as_deref(), Self::expr);
                c.maybe(e.step.as_deref(), Self::expr);
            }),
            Expr::IpyEscapeCommand(e) => self.node("escape", |c| c.text(&e.value)),
        }
    }

    /// `a.b.c` is noted as one chain, so that a module's attributes are told apart.
    fn attribute(&mut self, whole: &Expr) {
        let mut names: Vec<&str> = Vec::new();
        let mut root = whole;
        while let Expr::Attribute(e) = root {
            names.push(&e.attr);
            self.refers.attribute(&e.attr);
            root = &e.value;
        }
        names.reverse();
        if let Expr::Name(name) = root {
            self.refer(&format!("{}.{}", name.id, names.join(".")));
            return self.node("attr", |c| {
                c.node("name", |c| c.text(&name.id));
                c.list(names, Self::text);
            });
        }
        self.node("attr", |c| {
            c.expr(root);
            c.list(names, Self::text);
        });
    }

    fn comprehension(&mut self, tag: &str, elements: &[&Expr], generators: &[Comprehension]) {
        self.node(tag, |c| {
            // The first iterable is evaluated outside.
            c.maybe(generators.first(), |c, first| c.expr(&first.iter));
            let scope = Scope { locals: names_of_comprehension(generators), ..Scope::default() };
            c.scoped(scope, |c| {
                c.list(generators.iter().enumerate(), |c, (number, generator)| {
                    c.text(if generator.is_async { "async" } else { "" });
                    c.expr(&generator.target);
                    if number > 0 {
                        c.expr(&generator.iter);
                    }
                    c.list(&generator.ifs, Self::expr);
                });
                c.list(elements.iter().copied(), Self::expr);
            });
        });
    }

    /// The parts of an f-string.
    fn elements(&mut self, elements: &[InterpolatedStringElement], text: &mut Text) {
        for element in elements {
            match element {
                InterpolatedStringElement::Literal(literal) => text.add(self, &literal.value, literal.range),
                InterpolatedStringElement::Interpolation(element) => {
                    text.end(self);
                    self.interpolation(element);
                }
            }
        }
    }

    fn interpolation(&mut self, element: &InterpolatedElement) {
        self.node("{}", |c| {
            c.expr(&element.expression);
            c.maybe(element.debug_text.as_ref(), |c, _| {
                let written = c.slice(element.range);
                c.text(written);
            });
            c.maybe(element.conversion.to_char(), |c, conversion| c.text(&conversion.to_string()));
            c.maybe(element.format_spec.as_deref(), |c, spec| {
                let mut text = Text::default();
                c.elements(&spec.elements, &mut text);
                text.end(c);
            });
        });
    }

    fn number(&mut self, number: &Number) {
        match number {
            Number::Int(int) => self.node("int", |c| c.text(&int.to_string())),
            Number::Float(float) => self.node("float", |c| c.text(&format!("{:016x}", float.to_bits()))),
            Number::Complex { real, imag } => self.node("complex", |c| {
                c.text(&format!("{:016x}", real.to_bits()));
                c.text(&format!("{:016x}", imag.to_bits()));
            }),
        }
    }

    fn pattern(&mut self, pattern: &Pattern) {
        with_stack(|| self.pattern_here(pattern));
    }

    fn pattern_here(&mut self, pattern: &Pattern) {
        match pattern {
            Pattern::MatchValue(p) => self.node("case", |c| c.expr(&p.value)),
            Pattern::MatchSingleton(p) => self.node("case is", |c| {
                c.text(match p.value {
                    Singleton::None => "None",
                    Singleton::True => "True",
                    Singleton::False => "False",
                });
            }),
            Pattern::MatchSequence(p) => self.node("case []", |c| c.list(&p.patterns, Self::pattern)),
            Pattern::MatchMapping(p) => self.node("case {}", |c| {
                c.list(&p.keys, Self::expr);
                c.list(&p.patterns, Self::pattern);
                c.maybe(p.rest.as_ref(), |c, name| c.capture(name));
            }),
            Pattern::MatchClass(p) => self.node("case ()", |c| {
                c.expr(&p.cls);
                c.list(&p.arguments.patterns, Self::pattern);
                c.list(&p.arguments.keywords, |c, keyword| {
                    c.text(&keyword.attr);
                    c.pattern(&keyword.pattern);
                });
            }),
            Pattern::MatchStar(p) => self.node("case *", |c| c.maybe(p.name.as_ref(), |c, name| c.capture(name))),
            Pattern::MatchAs(p) => self.node("case as", |c| {
                c.maybe(p.pattern.as_deref(), Self::pattern);
                c.maybe(p.name.as_ref(), |c, name| c.capture(name));
            }),
            Pattern::MatchOr(p) => self.node("case |", |c| c.list(&p.patterns, Self::pattern)),
        }
    }

    fn capture(&mut self, name: &str) {
        self.refer(name);
        self.text(name);
    }
}

/// Text of an f-string up to the next value: pieces that stand side by side are one.
#[derive(Default)]
struct Text {
    value: String,
    written: String,
}

impl Text {
    fn add(&mut self, canon: &Canon<'_>, value: &str, range: TextRange) {
        self.value.push_str(value);
        if value.contains('\u{FFFD}') {
            self.written.push_str(canon.slice(range));
        }
    }

    fn end(&mut self, canon: &mut Canon<'_>) {
        let Text { value, written } = std::mem::take(self);
        if !value.is_empty() {
            canon.refers.string(&value);
            canon.node("text", |c| {
                c.text(&value);
                c.text(&written);
            });
        }
    }
}

/// `a.b.c` of names alone.
pub(super) fn chain_of(expr: &Expr) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    let mut at = expr;
    loop {
        match at {
            Expr::Attribute(e) => {
                names.push(&e.attr);
                at = &e.value;
            }
            Expr::Name(e) => {
                names.push(&e.id);
                names.reverse();
                return Some(names.join("."));
            }
            _ => return None,
        }
    }
}

fn operator(op: Operator) -> &'static str {
    match op {
        Operator::Add => "+",
        Operator::Sub => "-",
        Operator::Mult => "*",
        Operator::MatMult => "@",
        Operator::Div => "/",
        Operator::Mod => "%",
        Operator::Pow => "**",
        Operator::LShift => "<<",
        Operator::RShift => ">>",
        Operator::BitOr => "|",
        Operator::BitXor => "^",
        Operator::BitAnd => "&",
        Operator::FloorDiv => "//",
    }
}

fn comparison(op: CmpOp) -> &'static str {
    match op {
        CmpOp::Eq => "==",
        CmpOp::NotEq => "!=",
        CmpOp::Lt => "<",
        CmpOp::LtE => "<=",
        CmpOp::Gt => ">",
        CmpOp::GtE => ">=",
        CmpOp::Is => "is",
        CmpOp::IsNot => "is not",
        CmpOp::In => "in",
        CmpOp::NotIn => "not in",
    }
}
