//! minijinja, set up for bpp-flow: its parser without statements and comments, its filters, its limits.
//!
//! An expression has at most [`MAX_SIGNS`] signs, so that none exhausts the stack, and what a filter makes by number
//! has at most [`MAX_COUNT`] parts, as `range` has it.
//!
//! Sources are interned for the life of the process: a compiled expression borrows its text, and a workflow has few.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{LazyLock, Mutex, PoisonError};

use minijinja::machinery::{self, Span, Token, ast};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, StringInput, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, filters};

use super::{TemplateError, values};

/// Operators, brackets, dots and filters of one expression. Each may be a level of it, and whoever parses, compiles
/// or drops it goes down level by level.
const MAX_SIGNS: usize = 250;

/// What `batch`, `slice` and `indent` may be asked for.
const MAX_COUNT: usize = 100_000;

/// A template's text and expressions, in order.
pub(super) struct Parsed {
    /// The whole source, to which all spans refer.
    pub source: &'static str,
    root: ast::Stmt<'static>,
}

/// A part of a template.
pub(super) enum Part<'p> {
    Text(&'static str),
    /// An expression, and the bytes from `{{` to `}}`.
    Value {
        expr: &'p ast::Expr<'static>,
        at: Range<usize>,
    },
}

/// Functions that expressions may call.
pub(super) const FUNCTIONS: &[&str] = &["range", "dict"];

/// Filters that expressions may use (and `raw`, in `shell`).
pub(super) const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "zip",
];

/// Tests that expressions may use (`x is number`).
pub(super) const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "safe",
    "sameas",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

/// Statement words of Jinja, for which there is a message.
const STATEMENTS: &[&str] = &["if", "elif", "else", "endif", "for", "endfor", "set", "macro", "with", "raw", "include"];

#[expect(clippy::disallowed_methods, reason = "this room is minijinja's")]
pub(super) static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_debug(false);
    environment.add_filter("tojson", to_json);
    environment.add_filter("batch", |state: &State, value: Jinja, count: usize, fill: Option<Jinja>| {
        filters::batch(state, value, bounded(count)?, fill)
    });
    environment.add_filter("slice", |state: &State, value: Jinja, count: usize, fill: Option<Jinja>| {
        filters::slice(state, value, bounded(count)?, fill)
    });
    environment.add_filter("indent", indent);
    environment
});

static SYNTAX: LazyLock<SyntaxConfig> = LazyLock::new(|| {
    SyntaxConfig::builder()
        .block_delimiters("\u{f8f0}\u{f8f1}%", "%\u{f8f1}\u{f8f0}")
        .comment_delimiters("\u{f8f0}\u{f8f1}#", "#\u{f8f1}\u{f8f0}")
        .keep_trailing_newline(true)
        .build()
        .expect("distinct delimiters")
});

/// JSON without minijinja's HTML escapes, and of our own values.
fn to_json(value: &Jinja, indent: Option<usize>, kwargs: Kwargs) -> Result<String, Error> {
    let indent = indent.or(kwargs.get::<Option<usize>>("indent")?).unwrap_or(0);
    kwargs.assert_all_used()?;
    let json = values::from_jinja(value).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.0))?.to_json();
    let text = if indent == 0 { serde_json::to_string(&json) } else { serde_json::to_string_pretty(&json) };
    text.map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

fn indent(
    text: StringInput,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<Jinja, Error> {
    bounded(width.or(kwargs.peek("width")?).unwrap_or(0))?;
    filters::indent(text, width, first, blank, kwargs)
}

fn bounded(count: usize) -> Result<usize, Error> {
    if count <= MAX_COUNT {
        return Ok(count);
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("{count} is more than {MAX_COUNT}")))
}

fn intern(text: &str) -> &'static str {
    static TEXTS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let texts = texts.get_or_insert_default();
    if let Some(known) = texts.get(text) {
        return known;
    }
    let leaked: &'static str = Box::leak(text.into());
    texts.insert(leaked);
    leaked
}

/// Parses a template.
pub(super) fn parse_template(source: &str) -> Result<Parsed, TemplateError> {
    refuse_statements(source)?;
    refuse_depth(source, false)?;
    let source = intern(source);
    let root = machinery::parse(source, "", SYNTAX.clone()).map_err(|e| syntax_error(source, &e))?;
    Ok(Parsed { source, root })
}

impl Parsed {
    /// Its parts.
    pub(super) fn parts<'p>(&'p self) -> Vec<Part<'p>> {
        let ast::Stmt::Template(template) = &self.root else {
            return Vec::new();
        };
        let part = |child: &'p ast::Stmt<'static>| match child {
            ast::Stmt::EmitRaw(raw) => Some(Part::Text(raw.raw)),
            ast::Stmt::EmitExpr(emit) => {
                let (start, inner) = (emit.span().start_offset as usize, emit.span().end_offset as usize);
                let end = self.source[inner..].find("}}").map_or(inner, |i| inner + i + 2);
                Some(Part::Value { expr: &emit.expr, at: start..end })
            }
            _ => None,
        };
        template.children.iter().filter_map(part).collect()
    }
}

/// Parses a bare expression; returns it with its source, to which all spans refer.
pub(super) fn parse_expression(source: &str) -> Result<(ast::Expr<'static>, &'static str), TemplateError> {
    if let Some(at) = source.find("{{") {
        let message = "an expression stands without {{ }}".to_string();
        return Err(TemplateError { message, help: Some("drop the braces".into()), at: at..at + 2 });
    }
    refuse_depth(source, true)?;
    let text = intern(source);
    let expr = machinery::parse_expr(text).map_err(|e| syntax_error(text, &e))?;
    Ok((expr, text))
}

/// The bytes of a span.
pub(super) fn range(span: Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

fn refuse_statements(source: &str) -> Result<(), TemplateError> {
    for (at, _) in source.match_indices("{%") {
        let rest = source[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let word = rest.split(|c: char| !c.is_alphabetic()).next().unwrap_or("");
        if STATEMENTS.contains(&word) {
            return Err(TemplateError {
                message: format!("templates have no statements such as {{% {word} %}}"),
                help: Some(
                    "choose with {{ a if condition else b }}, repeat with a list or a filter such as `join`".into(),
                ),
                at: at..at + 2,
            });
        }
    }
    Ok(())
}

/// Refuses expressions that could be too deep; what is no token is the parser's to tell.
fn refuse_depth(source: &str, bare: bool) -> Result<(), TemplateError> {
    let mut signs = 0;
    for (token, span) in machinery::tokenize(source, bare, SYNTAX.clone()).map_while(Result::ok) {
        signs = match token {
            Token::VariableStart => 0,
            Token::Ident("not" | "and" | "or" | "if" | "is" | "in") => signs + 1,
            Token::Ident(_) | Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) => signs,
            Token::Float(_) | Token::Comma | Token::Colon | Token::TemplateData(_) => signs,
            _ => signs + 1,
        };
        if signs > MAX_SIGNS {
            return Err(TemplateError {
                message: format!("an expression of more than {MAX_SIGNS} operators and brackets"),
                help: Some("compute it in steps, or in a Python function".into()),
                at: range(span),
            });
        }
    }
    Ok(())
}

fn syntax_error(source: &str, error: &Error) -> TemplateError {
    let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    let open = source.rfind("{{");
    let closed = open.is_none_or(|at| source[at..].contains("}}"));
    if let (false, Some(at)) = (closed, open) {
        return TemplateError {
            message: "this {{ is never closed".into(),
            help: Some("close it with }}".into()),
            at: at..at + 2,
        };
    }
    let at = error.range().filter(|r| r.end <= source.len() && r.start < r.end).unwrap_or(0..source.len());
    let boundary = |i: &usize| source.is_char_boundary(*i);
    let start = (0..=at.start).rev().find(boundary).unwrap_or(0);
    let at = start..(at.end..source.len()).find(boundary).unwrap_or(source.len());
    TemplateError { message: format!("not a valid expression: {}", plain_words(&message)), help: None, at }
}

/// minijinja's names of its own tokens, in words.
fn plain_words(message: &str) -> String {
    message.replace("end of variable block", "`}}`").replace("end of block", "`%}`")
}
