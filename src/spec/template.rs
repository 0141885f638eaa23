//! Templates and expressions: the only room that knows minijinja.

use crate::data::{Table, Value};

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
    /// Names under `env.`.
    pub env: Vec<String>,
}

impl Names {
    /// Whether the value differs from item to item (item, key, index or group).
    pub fn per_item(&self) -> bool {
        self.whole_item || !self.columns.is_empty() || self.key || self.index || self.group
    }
}

/// What a template or expression may look at.
#[derive(Clone, Copy, Default)]
pub struct Scope<'a> {
    pub params: &'a [(String, Value)],
    /// The process's environment.
    pub env: Option<&'a (dyn Fn(&str) -> Option<String> + Sync)>,
    /// A row of a table.
    pub item: Option<(&'a Table, usize)>,
    pub key: Option<&'a str>,
    pub index: Option<u64>,
    /// The group's columns: a row of a table.
    pub group: Option<(&'a Table, usize)>,
    /// (id, name) of the run.
    pub run: Option<(&'a str, &'a str)>,
}

/// A value could not be rendered; says which name and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RenderError(pub String);

/// Text with `{{ … }}` in it.
#[derive(Debug, Clone)]
pub struct Template;

/// An expression, as in `assign` and `where`.
#[derive(Debug, Clone)]
pub struct Expression;

/// A YAML value with templates anywhere in it.
#[derive(Debug, Clone)]
pub enum TemplateTree {
    Value(Value),
    Template(Template),
    List(Vec<TemplateTree>),
    Map(Vec<(String, TemplateTree)>),
}
