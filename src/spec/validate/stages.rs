//! Stages: one verb, one action, and whether they fit.

use super::references::{Place, Rows};
use super::settings::Choices;
use super::sources::columns_of;
use super::{Builder, names_of, texts_of};
use crate::data::Value;
use crate::diagnostic::Diagnostic;
use crate::spec::grammar::{ACTIONS, Key, STAGE, Shape, VERBS};
use crate::spec::model::{
    Action, Call, ChunkFormat, CommandAction, CommandLine, Input, PythonAction, Settings, Shared, Source, Stage,
    Stdout, Verb,
};
use crate::spec::nearest::nearest;
use crate::spec::shape::meant_key;
use crate::spec::units;
use crate::spec::yaml::Node;

/// Options that belong to some actions only.
const ACTION_OPTIONS: [(&str, &[&str]); 7] = [
    ("call", &["python"]),
    ("chunk_format", &["python"]),
    ("args", &["python"]),
    ("returns", &["python"]),
    ("stdin", &["command", "shell"]),
    ("stdout", &["command", "shell"]),
    ("ok_codes", &["command", "shell"]),
];

/// How often names are compared with one another.
const PLENTY: usize = 100_000;

/// Options that belong to a reduce only.
const REDUCE_OPTIONS: [&str; 3] = ["group_by", "needs", "ordered"];

impl<'a> Builder<'a> {
    pub(super) fn stage(&mut self, key: &'a Node, node: &'a Node, sources: &[Option<Source>]) -> Option<Stage> {
        let name = key.key_text();
        node.entries()?;
        let what = format!("stage `{name}`");
        let verb_key = self.only_one(node, VERBS, &what, "verbs", "make two stages of it");
        let action_key = self.only_one(node, ACTIONS, &what, "actions", "make two stages of it, one after the other");
        let (at, _) = *self.stages.get(name)?;
        let inputs = verb_key.and_then(|(key, value)| self.inputs(key, value, at));
        let after = self.after(node, at);
        let verb = self.verb(verb_key.map(|(key, _)| key.key_text()), node, &what);
        let Some((action_key, action_node)) = action_key else {
            if !misspelt(node, &STAGE, ACTIONS) {
                let actions: Vec<&str> = ACTIONS.iter().map(|a| a.name).collect();
                let help = format!("give it one of {}", actions.join(", "));
                self.mistake(key.span, format!("{what} has no action"), help);
            }
            return None;
        };
        let fits =
            self.options_fit(node, action_key.key_text(), &verb, &what) & self.action_fits(action_key, &verb, &what);
        let uses = match node.get("use") {
            Some(columns) => Some(self.distinct(columns, "`use`")?),
            None => None,
        };
        let columns = inputs.as_deref().and_then(|inputs| known_columns(inputs, sources));
        self.columns_exist(node, columns.as_deref());
        let group = match &verb {
            Verb::Reduce { group_by, .. } => group_by.clone(),
            _ => Vec::new(),
        };
        let rows = match &verb {
            Verb::Map | Verb::FlatMap | Verb::Filter => {
                Rows::Item { columns: columns.as_deref(), uses: uses.as_deref() }
            }
            Verb::Reduce { .. } => Rows::Group(&group),
            Verb::Once => Rows::None("a stage without a verb runs once, without rows: give it `map: INPUT`"),
        };
        let choices = Choices::new(self.root.get("defaults"), node);
        let makes = choices.files(action_key.key_text(), &verb);
        let names: Vec<String> =
            makes.and_then(Node::entries).unwrap_or_default().iter().map(|(k, _)| k.key_text().to_string()).collect();
        let place = Place { what: &what, rows, run: false, files: Some(&names) };
        let files = self.files(makes, node, columns.as_deref(), place);
        let action = self.action(action_key, action_node, node, &verb, place);
        let share = self.shares(&choices, node, at, place);
        let settings = self.settings(&choices, action_key.key_text(), share, place);
        let keep = match node.get("keep") {
            Some(columns) => Some(self.distinct(columns, "`keep`")?),
            None => None,
        };
        let inputs = match (&verb, inputs) {
            (Verb::Once, _) => Vec::new(),
            (_, inputs) => inputs?,
        };
        let (action, settings, mut after) = (action?, settings?, after?);
        let settings = Settings { files: files?, ..settings };
        after.extend(settings.share.iter().filter_map(|share| match share.from {
            Shared::Stage(stage) => Some(stage),
            Shared::File { .. } => None,
        }));
        fits.then(|| Stage {
            name: name.to_string(),
            verb,
            inputs,
            action,
            after,
            uses,
            keep,
            settings,
            span: key.span,
        })
    }

    /// The first entry whose key is among `keys`, of which there may be one.
    fn only_one<'n>(
        &mut self,
        node: &'n Node,
        keys: &[Key],
        what: &str,
        plural: &str,
        help: &str,
    ) -> Option<(&'n Node, &'n Node)> {
        let found = |(k, _): &&(Node, Node)| keys.iter().any(|known| known.name == k.key_text());
        let mut entries = node.entries().unwrap_or_default().iter().filter(found);
        let (first, value) = entries.next()?;
        if let Some((second, _)) = entries.next() {
            let message = format!("{what} has two {plural}, `{}` and `{}`", first.key_text(), second.key_text());
            self.mistakes.push(Diagnostic::new(second.span, message).related(first.span, "the first").help(help));
        }
        Some((first, value))
    }

    fn inputs(&mut self, key: &Node, value: &Node, stage: usize) -> Option<Vec<Input>> {
        let mut inputs = Some(Vec::new());
        for (node, name) in texts_of(value) {
            let input = match (self.sources.get(name), self.stages.get(name)) {
                (Some(&(at, _)), _) => Some(Input::Source(at)),
                (None, Some(&(at, _))) => {
                    self.edges.push((at, stage, node.span));
                    Some(Input::Stage(at))
                }
                (None, None) => {
                    let known = self.sources.keys().chain(self.stages.keys()).copied();
                    let help = self.suggestion(name, known, "declare it under `sources` or `stages`");
                    self.mistake(node.span, format!("there is no source or stage `{name}`"), help);
                    None
                }
            };
            inputs = inputs.zip(input).map(|(mut all, one)| {
                all.push(one);
                all
            });
        }
        if value.elements().is_some_and(<[Node]>::is_empty) {
            self.mistake(value.span, format!("`{}` has no input", key.key_text()), "name a source or a stage");
            return None;
        }
        inputs.filter(|all| !all.is_empty())
    }

    fn after(&mut self, node: &Node, stage: usize) -> Option<Vec<usize>> {
        let mut after = Some(Vec::new());
        for (node, name) in node.get("after").map(texts_of).unwrap_or_default() {
            match self.stages.get(name) {
                Some(&(at, _)) => {
                    self.edges.push((at, stage, node.span));
                    after.iter_mut().for_each(|all: &mut Vec<usize>| all.push(at));
                }
                None => {
                    let help = match self.sources.contains_key(name) {
                        true => format!("`{name}` is a source, which nothing has to wait for"),
                        false => self.suggestion(name, self.stages.keys().copied(), "`after` names stages"),
                    };
                    self.mistake(node.span, format!("there is no stage `{name}`"), help);
                    after = None;
                }
            }
        }
        after
    }

    /// A way out at a name that is not there. After many mistakes nobody reads it, and looking among many names takes
    /// its time.
    pub(super) fn suggestion<'n>(&self, name: &str, known: impl Iterator<Item = &'n str>, otherwise: &str) -> String {
        if self.mistakes.len() * (self.sources.len() + self.stages.len()) > PLENTY {
            return otherwise.to_string();
        }
        let mut known: Vec<&str> = known.collect();
        known.sort_unstable();
        match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() || known.len() > 12 => otherwise.to_string(),
            None => format!("there are {}", known.join(", ")),
        }
    }

    fn verb(&mut self, verb: Option<&str>, node: &Node, what: &str) -> Verb {
        for option in REDUCE_OPTIONS {
            if let Some((key, _)) = node.entry(option).filter(|_| verb != Some("reduce")) {
                let message = format!("`{option}` belongs to a reduce, and {what} is {}", verb_name(verb));
                self.mistake(key.span, message, "write `reduce: INPUT`, or drop it");
            }
        }
        match verb {
            Some("map") => Verb::Map,
            Some("flat_map") => Verb::FlatMap,
            Some("filter") => Verb::Filter,
            Some(_) => Verb::Reduce {
                group_by: node.get("group_by").and_then(|n| self.distinct(n, "`group_by`")).unwrap_or_default(),
                needs_all: node.get("needs").is_some(),
                ordered: !node
                    .get("ordered")
                    .and_then(Node::scalar)
                    .is_some_and(|s| matches!(s.value, Value::Bool(false))),
            },
            None => Verb::Once,
        }
    }

    /// Options that mean nothing to the action.
    fn options_fit(&mut self, node: &Node, action: &str, verb: &Verb, what: &str) -> bool {
        let before = self.mistakes.len();
        for (option, actions) in ACTION_OPTIONS {
            if let Some((key, _)) = node.entry(option).filter(|_| !actions.contains(&action)) {
                let message = format!("`{option}` belongs to `{}`, and {what} has `{action}`", actions.join("` or `"));
                self.mistake(key.span, message, "drop it");
            }
        }
        for option in ["init", "interpreter", "share", "packages"] {
            if let Some((key, _)) = node.entry(option).filter(|_| action != "python") {
                self.mistake(key.span, format!("`{option}` belongs to `python`, and {what} has `{action}`"), "drop it");
            }
        }
        self.files_fit(node, action, verb, what);
        if let Some((key, _)) = node.entry("use").filter(|_| matches!(verb, Verb::Once)) {
            self.mistake(
                key.span,
                format!("`use` names columns, and {what} runs once, without rows"),
                "drop it, or give the stage `map: INPUT`",
            );
        }
        if let Some((key, _)) = node.entry("stdin").filter(|_| matches!(verb, Verb::Reduce { .. })) {
            self.mistake(key.span, "a reduce command gets its rows on standard input", "drop `stdin`");
        }
        self.mistakes.len() == before
    }

    fn action_fits(&mut self, action: &Node, verb: &Verb, what: &str) -> bool {
        let help = match (verb, action.key_text()) {
            (Verb::Filter, "python" | "where") => return true,
            (Verb::Filter, _) => {
                "a filter takes `where: \"expression\"`, or a `python` function that gives a truth value"
            }
            (_, "where") => "`where` is the condition of a filter: write `filter: INPUT`",
            (Verb::Map, _) | (_, "python" | "command" | "shell") => return true,
            (Verb::Once, _) => "`assign` needs rows: write `map: INPUT`",
            _ => "`assign` adds columns to each row: write `map: INPUT`, or use `python`",
        };
        self.mistake(action.span, format!("{what} is {}, which takes no `{}`", verb_of(verb), action.key_text()), help);
        false
    }

    /// `use` and `group_by` name columns of the input, where these are known.
    fn columns_exist(&mut self, node: &Node, columns: Option<&[String]>) {
        let Some(columns) = columns else { return };
        for option in ["use", "group_by"] {
            for (node, name) in node.get(option).map(texts_of).unwrap_or_default() {
                if !columns.iter().any(|c| c == name) {
                    let help = self.suggestion(name, columns.iter().map(String::as_str), "it is not there");
                    self.mistake(node.span, format!("the input has no column `{name}`"), help);
                }
            }
        }
    }

    fn action(&mut self, key: &Node, value: &Node, stage: &Node, verb: &Verb, place: Place) -> Option<Action> {
        match key.key_text() {
            "python" => self.python(value, stage, verb, place).map(Action::Python),
            "command" | "shell" => self.command(key.key_text(), value, stage, verb, place).map(Action::Command),
            "where" => self.expression(value, place).map(Action::Where),
            _ => {
                let entries = value.entries()?;
                if entries.is_empty() {
                    self.mistake(key.span, "`assign` names no column", "write `assign: {name: \"expression\"}`");
                }
                let named = |(k, v): &(Node, Node)| Some((k.key_text().to_string(), self.expression(v, place)?));
                let columns: Vec<_> = entries.iter().map(named).collect();
                columns.into_iter().collect::<Option<_>>().map(Action::Assign)
            }
        }
    }

    fn python(&mut self, value: &Node, stage: &Node, verb: &Verb, place: Place) -> Option<PythonAction> {
        let args = self.arguments(stage.get("args"), place);
        let call = self.call(stage, verb, place.what);
        let returns = match stage.get("returns") {
            Some(names) => Some(self.distinct(names, "`returns`")?),
            None => None,
        };
        let (module, function) = units::function(value.text()?).ok()?;
        Some(PythonAction { module, function, call: call?, returns, args: args? })
    }

    /// Keyword arguments, whose names Python must be able to have.
    pub(super) fn arguments(
        &mut self,
        node: Option<&Node>,
        place: Place,
    ) -> Option<Vec<(String, crate::spec::template::TemplateTree)>> {
        let mut args = Some(Vec::new());
        for (key, value) in node.and_then(Node::entries).unwrap_or_default() {
            if !units::is_identifier(key.key_text()) {
                let message = format!("`{}` cannot be the name of a keyword argument", key.key_text());
                self.mistake(key.span, message, "use letters, digits and underscores");
                args = None;
            }
            let tree = self.tree(value, place);
            args = args.zip(tree).map(|(mut all, tree)| {
                all.push((key.key_text().to_string(), tree));
                all
            });
        }
        args
    }

    fn call(&mut self, stage: &Node, verb: &Verb, what: &str) -> Option<Call> {
        let name = stage.get("call").and_then(Node::text).unwrap_or("row");
        let format = stage.entry("chunk_format");
        if let Some((key, _)) = format.filter(|_| name != "chunk") {
            self.mistake(key.span, "`chunk_format` belongs to `call: chunk`", "add `call: chunk`, or drop it");
        }
        let call = match name {
            "row" => Call::Row,
            "kwargs" => Call::Kwargs,
            "value" => Call::Value,
            "chunk" => Call::Chunk(match format.and_then(|(_, f)| f.text()) {
                Some("arrow") => ChunkFormat::Arrow,
                Some("rows") => ChunkFormat::Rows,
                _ => ChunkFormat::Pandas,
            }),
            _ => return None,
        };
        let help = match (verb, call) {
            (Verb::Once, Call::Row)
            | (Verb::Map | Verb::Filter, _)
            | (Verb::Reduce { .. }, Call::Row | Call::Chunk(_)) => "",
            (Verb::Once, _) => "it gets nothing but `args`: drop `call`",
            (Verb::FlatMap, Call::Chunk(_)) => "a chunk gives as many rows as it has: use `map`, or `call: row`",
            (Verb::FlatMap, _) => "",
            (Verb::Reduce { .. }, _) => "a reduce gets an iterator of rows (`call: row`) or a table (`call: chunk`)",
        };
        let uses = stage.get("use").map(names_of).unwrap_or_default();
        if let Some(node) = stage.get("call").filter(|_| !help.is_empty()) {
            self.mistake(node.span, format!("{what} is {}, which takes no `call: {name}`", verb_of(verb)), help);
        } else if let Some(node) = stage.get("use").filter(|_| call == Call::Value && uses.len() > 1) {
            self.mistake(node.span, "`call: value` takes one column", "name one in `use`, or take `call: kwargs`");
        }
        Some(call)
    }

    fn command(
        &mut self,
        action: &str,
        value: &Node,
        stage: &Node,
        verb: &Verb,
        place: Place,
    ) -> Option<CommandAction> {
        let line = match action {
            "shell" => self.template(value, true, place).map(CommandLine::Shell),
            _ => self.argv(value, place),
        };
        let stdin = match stage.get("stdin") {
            Some(node) => Some(self.template(node, false, place)?),
            None => None,
        };
        let stdout = match stage.get("stdout").map(|n| n.text().unwrap_or("")) {
            None | Some("text") => Stdout::Text { column: "stdout".into() },
            Some("json") => Stdout::Json,
            Some("jsonl") => Stdout::Jsonl,
            Some("ignore") => Stdout::Ignore,
            Some(_) => return None,
        };
        if let Some(node) = stage.get("stdout").filter(|_| stdout == Stdout::Jsonl && *verb == Verb::Map) {
            let help = "use `flat_map`, or `stdout: json` for one object";
            self.mistake(node.span, "`stdout: jsonl` gives any number of rows, a map one row per item", help);
        }
        let ok_codes = self.ok_codes(stage)?;
        Some(CommandAction { line: line?, stdin, stdout, ok_codes })
    }

    fn argv(&mut self, value: &Node, place: Place) -> Option<CommandLine> {
        let elements = value.elements()?;
        if elements.is_empty() {
            self.mistake(value.span, "`command` names no program", "write [program, argument, …]");
            return None;
        }
        let words: Vec<_> = elements.iter().map(|n| self.template(n, false, place)).collect();
        words.into_iter().collect::<Option<_>>().map(CommandLine::Argv)
    }

    fn ok_codes(&mut self, stage: &Node) -> Option<Vec<i32>> {
        let Some(node) = stage.get("ok_codes") else {
            return Some(vec![0]);
        };
        let elements = node.elements().unwrap_or(std::slice::from_ref(node));
        let mut codes = Vec::new();
        for element in elements {
            match element.scalar()?.value {
                Value::Int(code @ 0..=255) => codes.push(code as i32),
                Value::Int(_) => self.mistake(
                    element.span,
                    "an exit code is a number from 0 to 255",
                    "list the codes that mean success",
                ),
                _ => return None,
            }
        }
        Some(codes)
    }
}

/// Whether a key that the language does not have was meant to be one of `keys`: that is told already.
pub(super) fn misspelt(node: &Node, shape: &'static Shape, keys: &[Key]) -> bool {
    let unknown =
        node.entries().unwrap_or_default().iter().map(|(k, _)| k.key_text()).filter(|k| shape.key(k).is_none());
    unknown.filter_map(|k| meant_key(shape, k)).any(|meant| keys.iter().any(|k| k.name == meant))
}

/// The columns that all inputs' rows have together, where the file says them.
fn known_columns(inputs: &[Input], sources: &[Option<Source>]) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    for input in inputs {
        match input {
            Input::Source(at) => columns.extend(columns_of(&sources.get(*at)?.as_ref()?.reader)?),
            Input::Stage(_) => return None,
        }
    }
    Some(columns)
}

fn verb_name(verb: Option<&str>) -> &'static str {
    match verb {
        Some("map") => "a map",
        Some("flat_map") => "a flat_map",
        Some("filter") => "a filter",
        Some(_) => "a reduce",
        None => "a stage that runs once",
    }
}

fn verb_of(verb: &Verb) -> &'static str {
    match verb {
        Verb::Map => "a map",
        Verb::FlatMap => "a flat_map",
        Verb::Filter => "a filter",
        Verb::Reduce { .. } => "a reduce",
        Verb::Once => "a stage that runs once",
    }
}
