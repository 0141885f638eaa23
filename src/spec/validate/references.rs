//! Names in templates and expressions: whether what they name is known where they stand.

use super::Builder;
use crate::data::Value;
use crate::diagnostic::Span;
use crate::spec::nearest::nearest;
use crate::spec::template::{Expression, Reference, Root, Template, TemplateError, TemplateTree};
use crate::spec::template_mistake;
use crate::spec::yaml::{self, Node};

/// What is known where a template stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// What runs: `stage \`measure\``.
    pub what: &'a str,
    pub rows: Rows<'a>,
    /// Whether `run` is known (`env`, `cwd`, output paths).
    pub run: bool,
    /// The files that an item makes, where they are known (the action and `env`).
    pub files: Option<&'a [String]>,
}

/// What a template knows of rows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    /// There is an `item`; with its columns, where they are known.
    Item { columns: Option<&'a [String]>, uses: Option<&'a [String]> },
    /// There is a `group`, perhaps without columns.
    Group(&'a [String]),
    /// There is none, because …
    None(&'static str),
}

impl Builder<'_> {
    /// A template, its names checked.
    pub(super) fn template(&mut self, node: &Node, shell: bool, place: Place) -> Option<Template> {
        self.parsed(node, place, |source| Template::parse(source, shell))
    }

    /// The template of a query, its names checked.
    pub(super) fn query(&mut self, node: &Node, sqlite: bool, place: Place) -> Option<Template> {
        self.parsed(node, place, |source| Template::parse_query(source, sqlite))
    }

    fn parsed(
        &mut self,
        node: &Node,
        place: Place,
        parse: impl FnOnce(&str) -> Result<Template, TemplateError>,
    ) -> Option<Template> {
        let source = super::text_of(node)?;
        match parse(&source) {
            Ok(template) => self.references(node, template.references(), place).then_some(template),
            Err(error) => {
                self.mistakes.push(template_mistake(node, self.text, error));
                None
            }
        }
    }

    /// An expression, its names checked.
    pub(super) fn expression(&mut self, node: &Node, place: Place) -> Option<Expression> {
        let source = super::text_of(node)?;
        match Expression::parse(&source) {
            Ok(expression) => self.references(node, expression.references(), place).then_some(expression),
            Err(error) => {
                self.mistakes.push(template_mistake(node, self.text, error));
                None
            }
        }
    }

    /// A value with templates anywhere in it.
    pub(super) fn tree(&mut self, node: &Node, place: Place) -> Option<TemplateTree> {
        match &node.kind {
            yaml::Kind::Scalar(scalar) => match &scalar.value {
                Value::Text(text) if text.contains("{{") || text.contains("{%") => {
                    self.template(node, false, place).map(TemplateTree::Template)
                }
                value => Some(TemplateTree::Value(value.clone())),
            },
            yaml::Kind::List(elements) => {
                let elements: Vec<_> = elements.iter().map(|n| self.tree(n, place)).collect();
                elements.into_iter().collect::<Option<_>>().map(TemplateTree::List)
            }
            yaml::Kind::Map(entries) => {
                let named = |(k, v): &(Node, Node)| Some((k.key_text().to_string(), self.tree(v, place)?));
                let entries: Vec<_> = entries.iter().map(named).collect();
                entries.into_iter().collect::<Option<_>>().map(TemplateTree::Map)
            }
        }
    }

    fn references(&mut self, node: &Node, references: &[Reference], place: Place) -> bool {
        let before = self.mistakes.len();
        for reference in references {
            let at = node.span_of(self.text, reference.at.clone());
            let name = reference.name.as_deref();
            match reference.root {
                Root::Params => self.param(name, at),
                Root::Env => {}
                Root::Files => self.file(name.unwrap_or_default(), at, place),
                Root::Run if place.run => {}
                Root::Run => {
                    let help = "it is known in `env`, `cwd` and output paths only: results do not depend on the run";
                    self.mistake(at, "`run` is not known here", help);
                }
                Root::Item | Root::Key | Root::Index | Root::Group => self.row(reference.root, name, at, place),
            }
        }
        self.mistakes.len() == before
    }

    fn param(&mut self, name: Option<&str>, at: Span) {
        let params = self.params;
        let Some(name) = name.filter(|name| !params.iter().any(|(n, _)| n == name)) else {
            return;
        };
        let names: Vec<&str> = params.iter().map(|(n, _)| n.as_str()).collect();
        let help = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `params.{near}`?"),
            None if names.is_empty() => format!("declare it: `params: {{{name}: …}}`"),
            None => format!("there are {}", names.join(", ")),
        };
        self.mistake(at, format!("`params.{name}` is not defined"), help);
    }

    fn file(&mut self, name: &str, at: Span, place: Place) {
        let Some(files) = place.files else {
            let help = "the files that an item makes are known in its action and in `env` only";
            return self.mistake(at, "`files` is not known here", help);
        };
        if files.iter().any(|file| file == name) {
            return;
        }
        let help = match nearest(name, files.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `files.{near}`?"),
            None if files.is_empty() => format!("declare it: `files: {{{name}: \"out/{{{{ key }}}}\"}}`"),
            None => format!("there are {}", files.join(", ")),
        };
        self.mistake(at, format!("`files.{name}` is not defined"), help);
    }

    fn row(&mut self, root: Root, name: Option<&str>, at: Span, place: Place) {
        let what = place.what;
        let root_name = root.name();
        match (place.rows, root, name) {
            (Rows::Item { columns, uses }, Root::Item, Some(name)) => self.column(name, columns, uses, at),
            (Rows::Item { .. }, Root::Item | Root::Key | Root::Index, _) => {}
            (Rows::Item { .. }, _, _) => {
                self.mistake(
                    at,
                    format!("`group` is not known in {what}"),
                    "only a `reduce` with `group_by` has groups",
                );
            }
            (Rows::Group([]), Root::Group, _) => {
                self.mistake(at, format!("`group` is not known in {what}"), "add `group_by: [columns]`");
            }
            (Rows::Group(columns), Root::Group, Some(name)) if !columns.iter().any(|c| c == name) => {
                let help = match nearest(name, columns.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `group.{near}`?"),
                    None => format!("a group has the columns of `group_by`: {}", columns.join(", ")),
                };
                self.mistake(at, format!("`group.{name}` is not defined"), help);
            }
            (Rows::Group([_, ..]), Root::Group | Root::Key, _) => {}
            (Rows::Group(_), _, _) => {
                let help = "it sees all its rows at once; `group.NAME` is a column of `group_by`";
                self.mistake(at, format!("`{root_name}` is not known in {what}, a reduce"), help);
            }
            (Rows::None(why), _, _) => self.mistake(at, format!("`{root_name}` is not known in {what}"), why),
        }
    }

    fn column(&mut self, name: &str, columns: Option<&[String]>, uses: Option<&[String]>, at: Span) {
        if let Some(columns) = columns.filter(|all| !all.iter().any(|c| c == name)) {
            let help = match nearest(name, columns.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `item.{near}`?"),
                None => format!("its columns are {}", columns.join(", ")),
            };
            return self.mistake(at, format!("`item.{name}` is not defined"), help);
        }
        if let Some(uses) = uses.filter(|uses| !uses.iter().any(|c| c == name)) {
            let help = format!("add it to `use`, which has {}", uses.join(", "));
            self.mistake(at, format!("`item.{name}` is not among the columns that `use` names"), help);
        }
    }
}
