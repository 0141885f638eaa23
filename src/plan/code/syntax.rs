//! Python source as a tree that may be walked and dropped: not deeper than the stack can be made.

use ruff_python_ast::ModModule;
use ruff_python_ast::token::TokenKind;
use ruff_python_parser::{Mode, lexer, parse_module};

/// Code deeper than this is not parsed; Python itself refuses it.
const DEEPEST: usize = 10_000;
/// What dropping one level of a tree may take of the stack.
const FRAME: usize = 2 << 10;
/// What of the stack must be left for one more level of a walk.
const RED_ZONE: usize = 128 << 10;
const MORE_STACK: usize = 4 << 20;

/// Runs `f`, on a new piece of stack if little is left of this one. Walks do so at every level.
pub(super) fn with_stack<T>(f: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(RED_ZONE, MORE_STACK, f)
}

/// What `look` makes of the tree of a module; `None` if it is no Python.
pub(super) fn parse<T>(source: &str, look: impl FnOnce(&ModModule) -> T) -> Option<T> {
    let depth = depth(source);
    if depth > DEEPEST {
        return None;
    }
    stacker::maybe_grow(depth * FRAME + RED_ZONE, depth * FRAME + MORE_STACK, || {
        let module = parse_module(source).ok()?.into_syntax();
        Some(look(&module))
    })
}

/// A bound of how deep code is nested, found without nesting: brackets, indents, and how many words stand side by
/// side without a comma.
fn depth(source: &str) -> usize {
    let mut lexer = lexer::lex(source, Mode::Module);
    let mut outer: Vec<usize> = Vec::new();
    let (mut indents, mut below, mut beside, mut deepest) = (0_usize, 0_usize, 0_usize, 0);
    loop {
        match lexer.next_token() {
            TokenKind::EndOfFile => return deepest,
            TokenKind::Indent => indents += 1,
            TokenKind::Dedent => indents = indents.saturating_sub(1),
            TokenKind::Newline | TokenKind::Semi | TokenKind::Comma => beside = 0,
            TokenKind::String | TokenKind::Comment | TokenKind::NonLogicalNewline => {}
            TokenKind::Lpar | TokenKind::Lsqb | TokenKind::Lbrace => {
                below += beside + 1;
                outer.push(beside);
                beside = 0;
            }
            TokenKind::Rpar | TokenKind::Rsqb | TokenKind::Rbrace => {
                beside = outer.pop().unwrap_or(0) + 1;
                below = below.saturating_sub(beside);
            }
            _ => beside += 1,
        }
        deepest = deepest.max(indents + below + beside);
    }
}
