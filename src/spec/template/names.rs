//! Which names an expression uses, found in its syntax tree; and what is wrong with it before any value is known.

use std::ops::Range;

use minijinja::machinery::ast::{CallArg, Expr};

use super::TemplateError;
use super::engine::{FILTERS, FUNCTIONS, TESTS, range};
use crate::spec::nearest::nearest;

/// What a template names; decides when it can be rendered and what its result depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Columns of `item` that are named (`item.x`, `item["x"]`), sorted.
    pub columns: Vec<String>,
    /// `item` as a whole (`item`, `item[expr]`): depends on all columns.
    pub whole_item: bool,
    /// `key` is named.
    pub key: bool,
    /// `index` is named: the stage keeps order.
    pub index: bool,
    /// `group` is named.
    pub group: bool,
    /// `run` is named.
    pub run: bool,
    /// Names under `env.`, sorted.
    pub env: Vec<String>,
    /// Names under `params.`, sorted.
    pub params: Vec<String>,
    /// `params` as a whole.
    pub whole_params: bool,
    /// Names under `files.`, sorted.
    pub files: Vec<String>,
}

impl Names {
    /// Whether the value differs from item to item (item, key, index, group or files).
    pub fn per_item(&self) -> bool {
        self.whole_item || !self.columns.is_empty() || self.key || self.index || self.group || !self.files.is_empty()
    }

    /// Adds what `other` names.
    pub fn unite(&mut self, other: &Names) {
        other.columns.iter().for_each(|n| add(&mut self.columns, n));
        other.env.iter().for_each(|n| add(&mut self.env, n));
        other.params.iter().for_each(|n| add(&mut self.params, n));
        other.files.iter().for_each(|n| add(&mut self.files, n));
        self.whole_item |= other.whole_item;
        self.whole_params |= other.whole_params;
        self.key |= other.key;
        self.index |= other.index;
        self.group |= other.group;
        self.run |= other.run;
    }
}

fn add(names: &mut Vec<String>, name: &str) {
    if let Err(at) = names.binary_search_by(|n| n.as_str().cmp(name)) {
        names.insert(at, name.to_string());
    }
}

/// What a template may begin a name with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    Params,
    Env,
    Item,
    Key,
    Index,
    Group,
    Run,
    Files,
}

impl Root {
    const ALL: [(&'static str, Root); 8] = [
        ("params", Root::Params),
        ("env", Root::Env),
        ("item", Root::Item),
        ("key", Root::Key),
        ("index", Root::Index),
        ("group", Root::Group),
        ("run", Root::Run),
        ("files", Root::Files),
    ];

    /// The root of that name.
    pub(super) fn named(name: &str) -> Option<Root> {
        Root::ALL.iter().find(|(n, _)| *n == name).map(|(_, root)| *root)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Root::ALL.iter().find(|(_, root)| *root == self).map_or("", |(name, _)| name)
    }
}

/// A name that a template uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub root: Root,
    /// The name after the dot; `None`: the root as a whole.
    pub name: Option<String>,
    /// Where in the template's source.
    pub at: Range<usize>,
}

/// `root` or `root.name`, if the expression is that.
pub(super) fn root_and_name<'a>(expr: &'a Expr) -> Option<(Root, Option<&'a str>)> {
    let root = |e: &Expr| match e {
        Expr::Var(var) => Root::named(var.id),
        _ => None,
    };
    match expr {
        Expr::Var(_) => Some((root(expr)?, None)),
        Expr::GetAttr(attr) => Some((root(&attr.expr)?, Some(attr.name))),
        Expr::GetItem(item) => match &item.subscript_expr {
            Expr::Const(name) => Some((root(&item.expr)?, Some(name.value.as_str()?))),
            _ => None,
        },
        _ => None,
    }
}

/// Takes `| raw` off an expression. It may only come last, and only where values are quoted.
pub(super) fn take_raw<'a>(expr: &'a Expr<'static>, quoted: bool) -> Result<(&'a Expr<'static>, bool), TemplateError> {
    match expr {
        Expr::Filter(filter) if filter.name == "raw" => match (&filter.expr, quoted) {
            (Some(inner), true) if filter.args.is_empty() => Ok((inner, true)),
            (_, true) => Err(error("`raw` takes nothing", "write {{ value | raw }}", range(filter.span()))),
            _ => Err(error(
                "`raw` belongs in `shell` and in queries only: nothing is quoted here",
                "drop `| raw`",
                range(filter.span()),
            )),
        },
        _ => Ok((expr, false)),
    }
}

fn error(message: impl Into<String>, help: impl Into<String>, at: Range<usize>) -> TemplateError {
    TemplateError { message: message.into(), help: Some(help.into()), at }
}

/// What the expressions of a template name, so far.
#[derive(Default)]
pub(super) struct Found {
    references: Vec<Reference>,
}

impl Found {
    /// The names and where they are.
    pub(super) fn finish(self) -> (Names, Vec<Reference>) {
        let mut names = Names::default();
        for reference in &self.references {
            match (reference.root, reference.name.as_deref()) {
                (Root::Item, Some(name)) => add(&mut names.columns, name),
                (Root::Item, None) => names.whole_item = true,
                (Root::Params, Some(name)) => add(&mut names.params, name),
                (Root::Params, None) => names.whole_params = true,
                (Root::Env, Some(name)) => add(&mut names.env, name),
                (Root::Key, _) => names.key = true,
                (Root::Index, _) => names.index = true,
                (Root::Group, _) => names.group = true,
                (Root::Run, _) => names.run = true,
                (Root::Files, Some(name)) => add(&mut names.files, name),
                (Root::Env | Root::Files, None) => {}
            }
        }
        (names, self.references)
    }

    /// Walks an expression; fails at the first thing that can never work.
    pub(super) fn expression(&mut self, expr: &Expr) -> Result<(), TemplateError> {
        if let Some((root, name)) = root_and_name(expr) {
            return self.reference(root, name, range(expr.span()));
        }
        match expr {
            Expr::Var(var) => Err(unknown_name(var.id, range(var.span()))),
            Expr::Const(_) => Ok(()),
            Expr::Slice(slice) => {
                self.expression(&slice.expr)?;
                self.all([&slice.start, &slice.stop, &slice.step].into_iter().flatten())
            }
            Expr::UnaryOp(op) => self.expression(&op.expr),
            Expr::BinOp(op) => self.all([&op.left, &op.right]),
            Expr::Compare(compare) => {
                self.expression(&compare.expr)?;
                self.all(compare.ops.iter().map(|op| &op.expr))
            }
            Expr::IfExpr(choice) => {
                self.all([&choice.test_expr, &choice.true_expr])?;
                self.all(choice.false_expr.iter())
            }
            Expr::Filter(filter) => {
                if filter.name == "raw" {
                    let help = "make it the last filter: {{ value | raw }}";
                    return Err(error("`raw` must come last", help, range(filter.span())));
                }
                known("filter", filter.name, FILTERS, range(filter.span()))?;
                self.all(filter.expr.iter())?;
                self.arguments(&filter.args)
            }
            Expr::Test(test) => {
                known("test", test.name, TESTS, range(test.span()))?;
                self.expression(&test.expr)?;
                self.arguments(&test.args)
            }
            Expr::GetAttr(attr) => self.expression(&attr.expr),
            Expr::GetItem(item) => self.all([&item.expr, &item.subscript_expr]),
            Expr::Call(call) => {
                self.callee(&call.expr)?;
                self.arguments(&call.args)
            }
            Expr::List(list) => self.all(&list.items),
            Expr::Tuple(tuple) => self.all(&tuple.items),
            Expr::Map(map) => self.all(map.keys.iter().chain(&map.values)),
        }
    }

    fn all<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr<'e>>) -> Result<(), TemplateError> {
        exprs.into_iter().try_for_each(|e| self.expression(e))
    }

    fn arguments(&mut self, args: &[CallArg]) -> Result<(), TemplateError> {
        args.iter().try_for_each(|arg| match arg {
            CallArg::Pos(e) | CallArg::Kwarg(_, e) | CallArg::PosSplat(e) | CallArg::KwargSplat(e) => {
                self.expression(e)
            }
        })
    }

    fn callee(&mut self, expr: &Expr) -> Result<(), TemplateError> {
        match expr {
            Expr::Var(var) if FILTERS.contains(&var.id) && !FUNCTIONS.contains(&var.id) => {
                let help = format!("`{0}` is a filter: write `value | {0}`", var.id);
                Err(error(format!("there is no function `{}`", var.id), help, range(var.span())))
            }
            Expr::Var(var) => known("function", var.id, FUNCTIONS, range(var.span())),
            Expr::GetAttr(attr) => Err(error(
                format!("values have no methods such as `.{}()`", attr.name),
                format!(
                    "use a filter, as in `value | {}`",
                    nearest(attr.name, FILTERS.iter().copied()).unwrap_or("replace(\"a\", \"b\")")
                ),
                range(attr.span()),
            )),
            other => {
                Err(error("this is not a function", "call `range` or `dict`, or use a filter", range(other.span())))
            }
        }
    }

    fn reference(&mut self, root: Root, name: Option<&str>, at: Range<usize>) -> Result<(), TemplateError> {
        match (root, name) {
            (Root::Env, None) => return Err(error("`env` needs a name", "write `env.HOME`", at)),
            (Root::Run, None) => return Err(error("`run` needs a name", "write `run.id` or `run.name`", at)),
            (Root::Run, Some(name)) if !["id", "name"].contains(&name) => {
                return Err(error(format!("`run.{name}` is not defined"), "there are `run.id` and `run.name`", at));
            }
            (Root::Key | Root::Index, Some(_)) => {
                let message = format!("`{}` has no parts", root.name());
                return Err(error(message, format!("write `{}` alone", root.name()), at));
            }
            (Root::Files, None) => return Err(error("`files` needs a name", "write `files.NAME`", at)),
            _ => {}
        }
        self.references.push(Reference { root, name: name.map(str::to_string), at });
        Ok(())
    }
}

fn known(what: &str, name: &str, all: &[&'static str], at: Range<usize>) -> Result<(), TemplateError> {
    if all.contains(&name) {
        return Ok(());
    }
    let help = match nearest(name, all.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", all.join(", ")),
    };
    Err(error(format!("there is no {what} `{name}`"), help, at))
}

fn unknown_name(name: &str, at: Range<usize>) -> TemplateError {
    let help = match nearest(name, Root::ALL.iter().map(|(n, _)| *n)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("a column is `item.{name}`, a parameter `params.{name}`, text is in quotes: '{name}'"),
    };
    error(format!("`{name}` is not defined"), help, at)
}
