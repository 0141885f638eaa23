//! A compiled expression: what names values as they are is looked up here, the rest is minijinja's.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::AutoEscape;
use minijinja::machinery::ast::Expr;
use minijinja::machinery::{self, CodeGenerator, Instructions};
use minijinja::value::{Enumerator, Object, Value as Jinja};

use super::engine::{ENVIRONMENT, range};
use super::names::{Found, Root, root_and_name};
use super::values::{describe, file_safe, from_jinja, to_jinja, truth};
use super::{Names, Reference, RenderError, Scope};
use crate::data::{Table, Value};

/// How a value is found.
pub(super) enum Program {
    Constant(Value),
    Path(Path),
    List(Vec<Program>),
    Map(Vec<(String, Program)>),
    Choice(Box<[Program; 3]>),
    Code(Box<Code>),
}

/// `root.name[step]…`
pub(super) struct Path {
    root: Root,
    name: Option<String>,
    steps: Vec<Step>,
    text: &'static str,
}

enum Step {
    Name(String),
    Index(i64),
}

/// What minijinja evaluates.
pub(super) struct Code {
    instructions: Instructions<'static>,
    names: Names,
    references: Vec<Reference>,
    text: &'static str,
}

impl Program {
    /// Compiles an expression of `source` that [`Found`] has accepted.
    pub(super) fn compile(expr: &Expr<'static>, source: &'static str) -> Program {
        if let Some(path) = Path::of(expr, source) {
            return Program::Path(path);
        }
        match expr {
            Expr::Const(constant) => match from_jinja(&constant.value) {
                Ok(value) => Program::Constant(value),
                Err(_) => Program::code(expr, source),
            },
            Expr::List(list) => Program::List(list.items.iter().map(|e| Program::compile(e, source)).collect()),
            Expr::Map(map) => {
                let keys = map.keys.iter().map(|k| match k {
                    Expr::Const(name) => name.value.as_str().map(str::to_string),
                    _ => None,
                });
                match keys.collect::<Option<Vec<String>>>() {
                    Some(keys) if is_unique(&keys) => Program::Map(
                        keys.into_iter().zip(map.values.iter().map(|e| Program::compile(e, source))).collect(),
                    ),
                    _ => Program::code(expr, source),
                }
            }
            Expr::IfExpr(choice) => match &choice.false_expr {
                Some(otherwise) => {
                    let parts = [&choice.test_expr, &choice.true_expr, otherwise];
                    Program::Choice(Box::new(parts.map(|e| Program::compile(e, source))))
                }
                None => Program::code(expr, source),
            },
            _ => Program::code(expr, source),
        }
    }

    fn code(expr: &Expr<'static>, source: &'static str) -> Program {
        let mut generator = CodeGenerator::new("", source);
        generator.compile_expr(expr);
        let mut found = Found::default();
        // Accepted as a whole before, so its parts are.
        let _ = found.expression(expr);
        let (names, references) = found.finish();
        let text = written(expr, source);
        Program::Code(Box::new(Code { instructions: generator.finish().0, names, references, text }))
    }

    /// Whether minijinja has a part in it.
    pub(super) fn evaluates(&self) -> bool {
        match self {
            Program::Constant(_) | Program::Path(_) => false,
            Program::List(items) => items.iter().any(Program::evaluates),
            Program::Map(entries) => entries.iter().any(|(_, p)| p.evaluates()),
            Program::Choice(parts) => parts.iter().any(Program::evaluates),
            Program::Code(_) => true,
        }
    }

    /// The value in a row.
    pub(super) fn value(&self, row: &Row) -> Result<Value, RenderError> {
        match self {
            Program::Constant(value) => Ok(value.clone()),
            Program::Path(path) => path.value(row),
            Program::List(items) => items.iter().map(|p| p.value(row)).collect::<Result<_, _>>().map(Value::List),
            Program::Map(entries) => {
                let entries = entries.iter().map(|(name, p)| Ok((name.clone(), p.value(row)?)));
                entries.collect::<Result<_, _>>().map(Value::Map)
            }
            Program::Choice(parts) => {
                let [test, then, otherwise] = &**parts;
                if truth(&test.value(row)?) { then.value(row) } else { otherwise.value(row) }
            }
            Program::Code(code) => code.value(row),
        }
    }
}

/// An expression as it is written: the spans of what comes after a value begin after it.
fn written(expr: &Expr, source: &'static str) -> &'static str {
    fn start(expr: &Expr) -> usize {
        let own = range(expr.span()).start;
        let inner = match expr {
            Expr::GetAttr(e) => start(&e.expr),
            Expr::GetItem(e) => start(&e.expr),
            Expr::Slice(e) => start(&e.expr),
            Expr::Call(e) => start(&e.expr),
            Expr::Test(e) => start(&e.expr),
            Expr::Filter(e) => e.expr.as_ref().map_or(own, start),
            Expr::BinOp(e) => start(&e.left),
            Expr::Compare(e) => start(&e.expr),
            Expr::IfExpr(e) => start(&e.true_expr),
            _ => own,
        };
        inner.min(own)
    }
    source.get(start(expr)..range(expr.span()).end).unwrap_or(source)
}

fn is_unique(names: &[String]) -> bool {
    names.iter().enumerate().all(|(i, n)| !names[..i].contains(n))
}

impl Path {
    fn of(expr: &Expr, source: &'static str) -> Option<Path> {
        let text = written(expr, source);
        if let Some((root, name)) = root_and_name(expr) {
            return Some(Path { root, name: name.map(str::to_string), steps: Vec::new(), text });
        }
        let (inner, step) = match expr {
            Expr::GetAttr(attr) => (&attr.expr, Step::Name(attr.name.to_string())),
            Expr::GetItem(item) => match &item.subscript_expr {
                Expr::Const(at) => match (at.value.as_str(), at.value.as_i64()) {
                    (Some(name), _) => (&item.expr, Step::Name(name.to_string())),
                    (None, Some(index)) if at.value.is_integer() => (&item.expr, Step::Index(index)),
                    _ => return None,
                },
                _ => return None,
            },
            _ => return None,
        };
        let mut path = Path::of(inner, source)?;
        path.steps.push(step);
        path.text = text;
        Some(path)
    }

    fn value(&self, row: &Row) -> Result<Value, RenderError> {
        let start = row.lookup(self.root, self.name.as_deref())?;
        let mut value = start;
        for step in &self.steps {
            let next = match (&value, step) {
                (Value::Map(entries), Step::Name(name)) => {
                    entries.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
                }
                (Value::List(items), Step::Index(index)) => {
                    let at = if *index < 0 { index + items.len() as i64 } else { *index };
                    usize::try_from(at).ok().and_then(|at| items.get(at).cloned())
                }
                _ => None,
            };
            value = next.ok_or_else(|| RenderError(format!("`{}` is not defined: {}", self.text, inside(&value))))?;
        }
        Ok(value)
    }
}

fn inside(value: &Value) -> String {
    match value {
        Value::Map(entries) => {
            let names: Vec<&str> = entries.iter().map(|(n, _)| n.as_str()).collect();
            format!("the dict has {}", list(&names))
        }
        Value::List(items) => format!("the list has {} elements", items.len()),
        other => format!("a value of type {} has no such part", other.type_name()),
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

impl Code {
    fn value(&self, row: &Row) -> Result<Value, RenderError> {
        static NO_BLOCKS: BTreeMap<&str, Instructions> = BTreeMap::new();
        let root = Jinja::from_object(row.root(&self.names)?);
        let mut printed = String::new();
        let mut output = machinery::make_string_output(&mut printed);
        let result = machinery::eval(&ENVIRONMENT, &self.instructions, root, &NO_BLOCKS, &mut output, AutoEscape::None);
        match result {
            Ok((Some(value), _)) if !value.is_undefined() => from_jinja(&value).map_err(|e| self.explain(row, e)),
            Ok(_) => Err(self.explain(row, RenderError("the value is not defined".into()))),
            Err(error) => Err(self.explain(row, describe(&error))),
        }
    }

    /// Names what is undefined, if something is; else says in which expression it happened.
    fn explain(&self, row: &Row, error: RenderError) -> RenderError {
        if error.0.contains("undefined") || error.0.contains("not defined") {
            for reference in &self.references {
                if let Err(missing) = row.lookup(reference.root, reference.name.as_deref()) {
                    return missing;
                }
            }
        }
        RenderError(format!("{} in `{}`", error.0, self.text.trim()))
    }
}

/// What an expression sees in one row.
pub(super) struct Row<'a> {
    scope: Scope<'a>,
    pub item: Option<(&'a Table, usize)>,
    /// The item's table, to be shared with minijinja's objects.
    pub shared: Option<Arc<Table>>,
    pub key: Option<Cow<'a, str>>,
    pub index: Option<u64>,
    params: OnceCell<Jinja>,
}

impl<'a> Row<'a> {
    pub(super) fn of(scope: &Scope<'a>) -> Row<'a> {
        Row {
            scope: *scope,
            item: scope.item,
            shared: None,
            key: scope.key.map(Cow::Borrowed),
            index: scope.index,
            params: OnceCell::new(),
        }
    }

    /// `root` or `root.name`, exactly.
    fn lookup(&self, root: Root, name: Option<&str>) -> Result<Value, RenderError> {
        let missing = || RenderError(format!("`{}` is not defined here", root.name()));
        let found = match root {
            Root::Params => named(self.scope.params, name),
            Root::Env => name.and_then(|n| (self.scope.env?)(n)).map(Value::Text),
            Root::Item => cell(self.item.ok_or_else(missing)?, name),
            Root::Group => cell(self.scope.group.ok_or_else(missing)?, name),
            Root::Key => Some(Value::Text(file_safe(self.key.as_deref().ok_or_else(missing)?))),
            Root::Index => Some(number(self.index.ok_or_else(missing)?)),
            Root::Run => {
                let (id, run_name) = self.scope.run.ok_or_else(missing)?;
                Some(Value::Text(if name == Some("id") { id } else { run_name }.to_string()))
            }
            Root::Files => self
                .scope
                .files
                .iter()
                .find(|(n, _)| Some(n.as_str()) == name)
                .map(|(_, path)| Value::Text(path.clone())),
        };
        found.ok_or_else(|| self.not_defined(root, name.unwrap_or_default()))
    }

    fn not_defined(&self, root: Root, name: &str) -> RenderError {
        let table = |(table, _): (&Table, usize)| list(&table.names().iter().map(|n| &**n).collect::<Vec<_>>());
        let known = match root {
            Root::Params => format!(
                "; parameters: {}",
                list(&self.scope.params.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>())
            ),
            Root::Env => return RenderError(format!("the environment variable {name} is not set")),
            Root::Item => self.item.map_or(String::new(), |i| format!("; columns: {}", table(i))),
            Root::Group => self.scope.group.map_or(String::new(), |g| format!("; group_by: {}", table(g))),
            _ => String::new(),
        };
        RenderError(format!("`{}.{name}` is not defined{known}", root.name()))
    }

    /// The names that some code uses, as minijinja's object.
    fn root(&self, names: &Names) -> Result<Variables, RenderError> {
        let mut entries = Vec::with_capacity(2);
        if names.whole_item || !names.columns.is_empty() {
            let (table, row) = self.item.ok_or_else(|| RenderError("`item` is not defined here".into()))?;
            let table = self.shared.clone().unwrap_or_else(|| Arc::new(table.clone()));
            entries.push(("item", Jinja::from_object(RowObject { table, row })));
        }
        if names.group {
            let (table, row) = self.scope.group.ok_or_else(|| RenderError("`group` is not defined here".into()))?;
            entries.push(("group", Jinja::from_object(RowObject { table: Arc::new(table.clone()), row })));
        }
        if names.whole_params || !names.params.is_empty() {
            let all = || Jinja::from_pairs(self.scope.params.iter().map(|(n, v)| (n.as_str(), to_jinja(v))));
            entries.push(("params", self.params.get_or_init(all).clone()));
        }
        if !names.env.is_empty() {
            let set = names.env.iter().filter_map(|n| Some((n.as_str(), Jinja::from((self.scope.env?)(n)?))));
            entries.push(("env", Jinja::from_pairs(set)));
        }
        if names.key {
            entries.push(("key", to_jinja(&self.lookup(Root::Key, None)?)));
        }
        if names.index {
            entries.push(("index", to_jinja(&self.lookup(Root::Index, None)?)));
        }
        if !names.files.is_empty() {
            let files = self.scope.files.iter().map(|(name, path)| (name.as_str(), Jinja::from(path.as_str())));
            entries.push(("files", Jinja::from_pairs(files)));
        }
        if names.run {
            let (id, name) = self.scope.run.ok_or_else(|| RenderError("`run` is not defined here".into()))?;
            entries.push(("run", Jinja::from_pairs([("id", Jinja::from(id)), ("name", Jinja::from(name))])));
        }
        Ok(Variables(entries))
    }
}

fn number(index: u64) -> Value {
    i64::try_from(index).map_or_else(|_| Value::BigInt(index.to_string()), Value::Int)
}

fn named(entries: &[(String, Value)], name: Option<&str>) -> Option<Value> {
    match name {
        None => Some(Value::Map(entries.to_vec())),
        Some(name) => entries.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()),
    }
}

fn cell((table, row): (&Table, usize), name: Option<&str>) -> Option<Value> {
    match name {
        None => Some(Value::Map(table.row(row))),
        Some(name) => match table.column(name)?.value(row) {
            Value::Absent => None,
            value => Some(value),
        },
    }
}

/// The variables of an expression.
#[derive(Debug)]
struct Variables(Vec<(&'static str, Jinja)>);

impl Object for Variables {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Jinja> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone())
    }
}

/// A row whose cells are looked up as they are asked for.
#[derive(Debug)]
struct RowObject {
    table: Arc<Table>,
    row: usize,
}

impl Object for RowObject {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Jinja> {
        match self.table.column(key)?.value(self.row) {
            Value::Absent => None,
            value => Some(to_jinja(&value)),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.table.row(self.row).into_iter().map(|(name, _)| Jinja::from(name)).collect())
    }
}
