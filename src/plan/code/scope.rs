//! Which names are a function's own, by Python's rules: what it binds anywhere is local everywhere in it, unless it
//! says `global`. Names bound by `import` are left out, since what they refer to must be followed.

use std::collections::HashSet;

use ruff_python_ast::visitor::{Visitor, walk_except_handler, walk_expr, walk_pattern, walk_stmt};
use ruff_python_ast::{Comprehension, ExceptHandler, Expr, ExprContext, Parameters, Pattern, Stmt};

use super::syntax::with_stack;

/// The names of one function.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub locals: HashSet<String>,
    pub globals: HashSet<String>,
}

pub(super) fn scope_of_function(parameters: &Parameters, body: &[Stmt]) -> Scope {
    let mut bound = Bound::default();
    bound.parameters(parameters);
    body.iter().for_each(|stmt| bound.visit_stmt(stmt));
    bound.scope()
}

pub(super) fn scope_of_lambda(parameters: Option<&Parameters>, body: &Expr) -> Scope {
    let mut bound = Bound::default();
    parameters.iter().for_each(|p| bound.parameters(p));
    bound.visit_expr(body);
    bound.scope()
}

/// The targets of a comprehension; what `:=` binds in it belongs to the function around.
pub(super) fn names_of_comprehension(generators: &[Comprehension]) -> HashSet<String> {
    let mut bound = Bound::default();
    generators.iter().for_each(|generator| bound.target(&generator.target));
    bound.names
}

/// All names that a module's top level binds.
pub(super) fn names_of_module(body: &[Stmt]) -> HashSet<String> {
    let mut bound = Bound::default();
    body.iter().for_each(|stmt| bound.visit_stmt(stmt));
    bound.names.into_iter().chain(bound.imported).collect()
}

#[derive(Default)]
struct Bound {
    names: HashSet<String>,
    globals: HashSet<String>,
    imported: HashSet<String>,
}

impl Bound {
    fn scope(self) -> Scope {
        let Bound { names, globals, imported } = self;
        let locals = names.into_iter().filter(|n| !globals.contains(n) && !imported.contains(n)).collect();
        Scope { locals, globals }
    }

    fn parameters(&mut self, parameters: &Parameters) {
        self.names.extend(parameters.iter().map(|p| p.name().to_string()));
    }

    fn target(&mut self, target: &Expr) {
        with_stack(|| match target {
            Expr::Name(name) => {
                self.names.insert(name.id.to_string());
            }
            Expr::Tuple(e) => e.elts.iter().for_each(|e| self.target(e)),
            Expr::List(e) => e.elts.iter().for_each(|e| self.target(e)),
            Expr::Starred(e) => self.target(&e.value),
            _ => {}
        });
    }
}

impl<'a> Visitor<'a> for Bound {
    fn visit_stmt(&mut self, stmt: &'a Stmt) {
        match stmt {
            // What is inside binds nothing here, but for its name and what is evaluated around it.
            Stmt::FunctionDef(def) => {
                self.names.insert(def.name.to_string());
                def.decorator_list.iter().for_each(|d| self.visit_expr(&d.expression));
                def.parameters.iter().filter_map(|p| p.default()).for_each(|e| self.visit_expr(e));
            }
            Stmt::ClassDef(def) => {
                self.names.insert(def.name.to_string());
                def.decorator_list.iter().for_each(|d| self.visit_expr(&d.expression));
                def.arguments.iter().for_each(|a| self.visit_arguments(a));
            }
            Stmt::Global(s) => self.globals.extend(s.names.iter().map(ToString::to_string)),
            // Bound by a function around, where it is found.
            Stmt::Nonlocal(_) => {}
            Stmt::Import(s) => self.imported.extend(s.names.iter().map(|alias| {
                let first = alias.name.split('.').next().unwrap_or_default();
                alias.asname.as_ref().map_or(first, |name| name).to_string()
            })),
            Stmt::ImportFrom(s) => {
                self.imported.extend(s.names.iter().map(|a| a.asname.as_ref().unwrap_or(&a.name).to_string()));
            }
            _ => with_stack(|| walk_stmt(self, stmt)),
        }
    }

    fn visit_expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::Name(name) if name.ctx != ExprContext::Load => {
                self.names.insert(name.id.to_string());
            }
            // Its parameters are its own; nothing in it binds here.
            Expr::Lambda(lambda) => {
                let defaults = lambda.parameters.iter().flat_map(|p| p.iter()).filter_map(|p| p.default());
                defaults.for_each(|e| self.visit_expr(e));
            }
            Expr::ListComp(_) | Expr::SetComp(_) | Expr::DictComp(_) | Expr::Generator(_) => {
                let mut walrus = Walrus(HashSet::new());
                with_stack(|| walk_expr(&mut walrus, expr));
                self.names.extend(walrus.0);
            }
            _ => with_stack(|| walk_expr(self, expr)),
        }
    }

    fn visit_except_handler(&mut self, handler: &'a ExceptHandler) {
        let ExceptHandler::ExceptHandler(e) = handler;
        self.names.extend(e.name.iter().map(ToString::to_string));
        walk_except_handler(self, handler);
    }

    fn visit_pattern(&mut self, pattern: &'a Pattern) {
        let name = match pattern {
            Pattern::MatchMapping(p) => &p.rest,
            Pattern::MatchStar(p) => &p.name,
            Pattern::MatchAs(p) => &p.name,
            _ => &None,
        };
        self.names.extend(name.iter().map(ToString::to_string));
        with_stack(|| walk_pattern(self, pattern));
    }
}

/// What `:=` binds inside comprehensions.
struct Walrus(HashSet<String>);

impl<'a> Visitor<'a> for Walrus {
    fn visit_expr(&mut self, expr: &'a Expr) {
        if let Expr::Named(e) = expr
            && let Expr::Name(name) = &*e.target
        {
            self.0.insert(name.id.to_string());
        }
        if !matches!(expr, Expr::Lambda(_)) {
            with_stack(|| walk_expr(self, expr));
        }
    }
}
