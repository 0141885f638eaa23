//! `share`: objects that workers load once, from files or from a finished stage.

use super::references::{Place, Rows};
use super::settings::Choices;
use super::{Builder, text_of};
use crate::diagnostic::Diagnostic;
use crate::spec::model::{Share, Shared, SharedFormat};
use crate::spec::nearest::nearest;
use crate::spec::units;
use crate::spec::yaml::Node;

impl Builder<'_> {
    /// What the stage at `index` shares. Stages among it come before this one.
    pub(super) fn shares(&mut self, from: &Choices, stage: &Node, index: usize, place: Place) -> Option<Vec<Share>> {
        let entries = from.get("share").filter(|_| stage.get("python").is_some()).and_then(Node::entries);
        let mut shares = Some(Vec::new());
        for (key, value) in entries.unwrap_or_default() {
            let name = key.key_text();
            let fits = self.share_name(key, stage, place);
            let shared = match value.entries() {
                Some(_) => value.get("stage").and_then(|node| self.shared_stage(node, index)),
                None => self.shared_file(value),
            };
            shares = shares.zip(shared.filter(|_| fits)).map(|(mut all, from)| {
                all.push(Share { name: name.to_string(), from });
                all
            });
        }
        shares
    }

    /// A keyword of its own, that neither an argument nor a column has.
    fn share_name(&mut self, key: &Node, stage: &Node, place: Place) -> bool {
        let name = key.key_text();
        if !units::is_identifier(name) {
            let message = format!("`{name}` cannot be the name of a keyword argument");
            self.mistake(key.span, message, "use letters, digits and underscores");
            return false;
        }
        if let Some((arg, _)) = stage.get("args").and_then(|args| args.entry(name)) {
            let message = format!("`{name}` is both shared and an argument");
            let mistake = Diagnostic::new(key.span, message).related(arg.span, "the argument");
            self.mistakes.push(mistake.help("rename one of them: both are keywords of the function"));
            return false;
        }
        let is_column = |names: &[String]| names.iter().any(|column| column == name);
        let as_keywords = stage.get("call").and_then(Node::text) == Some("kwargs");
        if let Rows::Item { columns, uses } = place.rows
            && as_keywords
            && (columns.is_some_and(is_column) || uses.is_some_and(is_column))
        {
            let message = format!("`{name}` is both shared and a column");
            self.mistake(key.span, message, "rename it: with `call: kwargs` columns are keywords of the function too");
            return false;
        }
        true
    }

    fn shared_stage(&mut self, node: &Node, index: usize) -> Option<Shared> {
        let name = text_of(node)?;
        if let Some(&(at, _)) = self.stages.get(name.as_str()) {
            self.edges.push((at, index, node.span));
            return Some(Shared::Stage(at));
        }
        let help = match self.sources.contains_key(name.as_str()) {
            true => format!("`{name}` is a source; share its file, or a stage `map: {name}`"),
            false => self.suggestion(&name, self.stages.keys().copied(), "`share` names a stage or a file"),
        };
        self.mistake(node.span, format!("there is no stage `{name}`"), help);
        None
    }

    fn shared_file(&mut self, node: &Node) -> Option<Shared> {
        let path = text_of(node)?;
        let ending = path.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map_or("", |(_, ending)| ending);
        let found = SharedFormat::ENDINGS.iter().find(|(known, _)| *known == ending.to_lowercase());
        if let Some((_, format)) = found {
            return Some(Shared::File { path, format: *format });
        }
        if path.contains("{{") {
            return None;
        }
        let endings = SharedFormat::ENDINGS.map(|(known, _)| known);
        let help = match nearest(ending, endings) {
            Some(near) => format!("did you mean `.{near}`?"),
            None => {
                let known = endings.map(|known| format!(".{known}")).join(", ");
                format!(
                    "there are {known}; a function may read other files itself: pass the path in `args`, name it in `deps`"
                )
            }
        };
        let message = match ending {
            "" => "the ending of a shared file says how it is loaded, and there is none".to_string(),
            _ => format!("a file `.{ending}` cannot be shared"),
        };
        self.mistake(node.span, message, help);
        None
    }
}
