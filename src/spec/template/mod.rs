//! Templates and expressions: the only room that knows minijinja.
//!
//! A [`Template`] is text with `{{ … }}` in it, an [`Expression`] what stands between the braces. Both are compiled
//! once, know which names they use ([`Names`], [`Reference`]), and are rendered against a [`Scope`]. What names a
//! value as it is (`item.x`, `params.a.b`, or a list, mapping or `a if b else c` of such) gives exactly that value;
//! anything else goes through minijinja, where a date, a time and a file's path are text, a duration is its seconds,
//! and integers beyond 128 bits are refused. Nothing undefined is ever printed: it is an error that names it.
//!
//! There are no statements (`{% … %}`) and no comments (`{# … #}`): `${#x}` and `{%s}` mean what they mean elsewhere.

mod engine;
mod names;
mod program;
mod query;
mod shell;
mod values;

use std::ops::Range;
use std::sync::Arc;

use crate::data::{Column, ColumnBuilder, Table, Value};
use engine::Part;
use program::{Program, Row};

pub use names::{Names, Reference, Root};
pub use values::file_safe;

/// Looks an environment variable up.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + Sync + 'a;

/// What a template or expression may look at.
#[derive(Clone, Copy, Default)]
pub struct Scope<'a> {
    pub params: &'a [(String, Value)],
    /// The process's environment.
    pub env: Option<&'a Environment<'a>>,
    /// A row of a table.
    pub item: Option<(&'a Table, usize)>,
    pub key: Option<&'a str>,
    pub index: Option<u64>,
    /// The group's columns: a row of a table.
    pub group: Option<(&'a Table, usize)>,
    /// (id, name) of the run.
    pub run: Option<(&'a str, &'a str)>,
    /// The files that the item makes: names and paths.
    pub files: &'a [(String, String)],
}

/// A value could not be rendered; says which name and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RenderError(pub String);

/// A template or expression is wrong in itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    pub message: String,
    /// The way out, where there is one.
    pub help: Option<String>,
    /// Bytes of the source.
    pub at: Range<usize>,
}

/// Text with `{{ … }}` in it.
#[derive(Clone)]
pub struct Template {
    inner: Arc<TemplateInner>,
}

struct TemplateInner {
    source: String,
    pieces: Vec<Piece>,
    names: Names,
    references: Vec<Reference>,
    quoting: Quoting,
}

/// What becomes of values as they are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoting {
    /// They stand as they are.
    None,
    /// Words of a shell.
    Shell,
    /// Literals of SQL.
    Query,
}

enum Piece {
    Text(String),
    Value {
        program: Program,
        /// Marked `| raw`: not quoted.
        raw: bool,
        /// Only a number is safe here.
        number: bool,
    },
}

impl Template {
    /// Compiles a template; `shell`: values are quoted for the shell as they are printed.
    pub fn parse(source: &str, shell: bool) -> Result<Template, TemplateError> {
        let quoting = if shell { Quoting::Shell } else { Quoting::None };
        Template::quoting(source, quoting, |parts| if shell { shell::check(parts) } else { Ok(Vec::new()) })
    }

    /// Compiles a query: values are literals of SQL as they are printed.
    pub fn parse_query(source: &str, sqlite: bool) -> Result<Template, TemplateError> {
        Template::quoting(source, Quoting::Query, |parts| query::check(parts, sqlite).map(|()| Vec::new()))
    }

    /// `check` gives the places in which only numbers are safe.
    fn quoting(
        source: &str,
        quoting: Quoting,
        check: impl FnOnce(&[Part<'_>]) -> Result<Vec<Range<usize>>, TemplateError>,
    ) -> Result<Template, TemplateError> {
        let parsed = engine::parse_template(source)?;
        let parts = parsed.parts();
        let numbers = check(&parts)?;
        let mut found = names::Found::default();
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts {
            pieces.push(match part {
                Part::Text(text) => Piece::Text(text.to_string()),
                Part::Value { expr, at } => {
                    let number = numbers.contains(&at);
                    let (expr, raw) = names::take_raw(expr, quoting != Quoting::None)?;
                    found.expression(expr)?;
                    Piece::Value { program: Program::compile(expr, parsed.source), raw, number }
                }
            });
        }
        let (names, references) = found.finish();
        let inner = TemplateInner { source: source.to_string(), pieces, names, references, quoting };
        Ok(Template { inner: Arc::new(inner) })
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// What it names.
    pub fn names(&self) -> &Names {
        &self.inner.names
    }

    /// Every name with its place.
    pub fn references(&self) -> &[Reference] {
        &self.inner.references
    }

    /// Whether there is anything to render.
    pub fn is_constant(&self) -> bool {
        self.inner.pieces.iter().all(|p| matches!(p, Piece::Text(_)))
    }

    /// The value: of one whole `{{ … }}` exactly what it is, else text.
    pub fn render(&self, scope: &Scope) -> Result<Value, RenderError> {
        match self.inner.pieces.as_slice() {
            [Piece::Value { program, .. }] if self.inner.quoting == Quoting::None => program.value(&Row::of(scope)),
            _ => self.render_text(scope).map(Value::Text),
        }
    }

    /// The text.
    pub fn render_text(&self, scope: &Scope) -> Result<String, RenderError> {
        let mut out = String::with_capacity(self.inner.source.len());
        for piece in &self.inner.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value { program, raw, number } => {
                    let value = program.value(&Row::of(scope))?;
                    match self.inner.quoting {
                        Quoting::Shell if !raw => shell::quote(&value, *number, &mut out)?,
                        Quoting::Query if !raw => query::quote(&value, &mut out)?,
                        _ => out.push_str(&values::print(&value)?),
                    }
                }
            }
        }
        Ok(out)
    }

    /// The elements of a command line: one whole `{{ … }}` that is a list gives several, anything else one.
    pub fn render_words(&self, scope: &Scope) -> Result<Vec<String>, RenderError> {
        match self.render(scope)? {
            Value::List(items) => items.iter().map(values::print).collect(),
            value => Ok(vec![values::print(&value)?]),
        }
    }
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template({:?})", self.inner.source)
    }
}

/// An expression, as in `assign` and `where`.
#[derive(Clone)]
pub struct Expression {
    inner: Arc<ExpressionInner>,
}

struct ExpressionInner {
    source: String,
    program: Program,
    names: Names,
    references: Vec<Reference>,
}

/// The rows of a table as [`Expression::eval_table`] sees them; the functions are asked only where they are named.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub table: &'a Table,
    /// The key of the item at a row.
    pub key: &'a (dyn Fn(usize) -> String + Sync),
    /// Its number in the stage.
    pub index: &'a (dyn Fn(usize) -> u64 + Sync),
}

impl Expression {
    /// Compiles an expression.
    pub fn parse(source: &str) -> Result<Expression, TemplateError> {
        let (expr, text) = engine::parse_expression(source)?;
        let mut found = names::Found::default();
        names::take_raw(&expr, false)?;
        found.expression(&expr)?;
        let program = Program::compile(&expr, text);
        let (names, references) = found.finish();
        let inner = ExpressionInner { source: source.to_string(), program, names, references };
        Ok(Expression { inner: Arc::new(inner) })
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// What it names.
    pub fn names(&self) -> &Names {
        &self.inner.names
    }

    /// Every name with its place.
    pub fn references(&self) -> &[Reference] {
        &self.inner.references
    }

    /// The value.
    pub fn eval(&self, scope: &Scope) -> Result<Value, RenderError> {
        self.inner.program.value(&Row::of(scope))
    }

    /// The values for all rows of a table, those that fail apart (row and why; their cells are null). `scope` gives
    /// what is the same for all.
    pub fn eval_table(&self, rows: &Rows, scope: &Scope) -> (Column, Vec<(usize, RenderError)>) {
        let mut column = ColumnBuilder::default();
        let mut failed = Vec::new();
        self.each(rows, scope, |row, value| match value {
            Ok(value) => column.push(&value),
            Err(error) => {
                column.push_null();
                failed.push((row, error));
            }
        });
        (column.finish(), failed)
    }

    /// As [`Expression::eval_table`], for a condition: whether each row is kept.
    pub fn test_table(&self, rows: &Rows, scope: &Scope) -> Vec<Result<bool, RenderError>> {
        let mut kept = Vec::with_capacity(rows.table.rows());
        self.each(rows, scope, |_, value| kept.push(value.map(|v| values::truth(&v))));
        kept
    }

    fn each(&self, rows: &Rows, scope: &Scope, mut take: impl FnMut(usize, Result<Value, RenderError>)) {
        let ExpressionInner { program, names, .. } = &*self.inner;
        let mut row = Row::of(scope);
        row.shared = program.evaluates().then(|| Arc::new(rows.table.clone()));
        for at in 0..rows.table.rows() {
            row.item = Some((rows.table, at));
            row.key = names.key.then(|| (rows.key)(at).into());
            row.index = names.index.then(|| (rows.index)(at));
            take(at, program.value(&row));
        }
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expression({:?})", self.inner.source)
    }
}

/// A YAML value with templates anywhere in it.
#[derive(Debug, Clone)]
pub enum TemplateTree {
    Value(Value),
    Template(Template),
    List(Vec<TemplateTree>),
    Map(Vec<(String, TemplateTree)>),
}

impl TemplateTree {
    /// What all its templates name.
    pub fn names(&self) -> Names {
        let mut names = Names::default();
        self.templates(&mut |template| names.unite(template.names()));
        names
    }

    /// Whether the value differs from item to item.
    pub fn per_item(&self) -> bool {
        self.names().per_item()
    }

    /// Calls `visit` for each template in it.
    pub fn templates(&self, visit: &mut impl FnMut(&Template)) {
        match self {
            TemplateTree::Value(_) => {}
            TemplateTree::Template(template) => visit(template),
            TemplateTree::List(items) => items.iter().for_each(|t| t.templates(visit)),
            TemplateTree::Map(entries) => entries.iter().for_each(|(_, t)| t.templates(visit)),
        }
    }

    /// The value.
    pub fn render(&self, scope: &Scope) -> Result<Value, RenderError> {
        match self {
            TemplateTree::Value(value) => Ok(value.clone()),
            TemplateTree::Template(template) => template.render(scope),
            TemplateTree::List(items) => {
                items.iter().map(|t| t.render(scope)).collect::<Result<_, _>>().map(Value::List)
            }
            TemplateTree::Map(entries) => {
                let rendered = entries.iter().map(|(name, t)| Ok((name.clone(), t.render(scope)?)));
                rendered.collect::<Result<_, _>>().map(Value::Map)
            }
        }
    }
}

#[cfg(test)]
mod tests;
