//! The parameter names of a Python function, read from its source without running it.

use ruff_python_ast::Stmt;

use super::syntax::parse;

/// What a function's signature takes by keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// These names.
    Names(Vec<String>),
    /// Anything (`**kwargs`), or not to be seen from the source (decorated, imported, nested).
    Any,
}

/// The signature of `def function(…)` at the top level of `source`; the last definition counts.
pub fn signature(source: &str, function: &str) -> Signature {
    let found = parse(source, |module| {
        let last = module.body.iter().rev().find_map(|stmt| match stmt {
            Stmt::FunctionDef(def) if &*def.name == function => Some(def),
            _ => None,
        })?;
        if !last.decorator_list.is_empty() || last.parameters.kwarg.is_some() {
            return None;
        }
        let names = last.parameters.iter_non_variadic_params();
        Some(names.map(|p| p.parameter.name.to_string()).collect())
    });
    found.flatten().map_or(Signature::Any, Signature::Names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Signature {
        signature(source, "f")
    }

    fn some(list: &[&str]) -> Signature {
        Signature::Names(list.iter().map(|n| n.to_string()).collect())
    }

    #[test]
    fn plain_annotated_and_default_parameters() {
        assert_eq!(names("def f(a, b):\n    pass\n"), some(&["a", "b"]));
        assert_eq!(names("def f(a: dict[str, int], b=(1, 2), *, c: int = 3) -> None: ..."), some(&["a", "b", "c"]));
        assert_eq!(names("def f(\n    a,  # one, two)\n    b=',)',\n):\n    pass"), some(&["a", "b"]));
        assert_eq!(names("async def f(a, /, b): pass"), some(&["a", "b"]));
        assert_eq!(names("def f(): pass"), some(&[]));
    }

    #[test]
    fn what_cannot_be_seen_takes_anything() {
        assert_eq!(names("def f(a, **rest): pass"), Signature::Any);
        assert_eq!(names("@wraps\ndef f(a): pass"), Signature::Any);
        assert_eq!(names("from x import f"), Signature::Any);
        assert_eq!(names("def f(a, b"), Signature::Any);
        assert_eq!(names("def ff(a): pass"), Signature::Any);
    }

    #[test]
    fn a_decorator_belongs_to_its_own_function() {
        assert_eq!(names("@cache\ndef g(x): pass\n\ndef f(a): pass"), some(&["a"]));
    }
}
