//! The parameter names of a Python function, read from its source without running it.

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
    let Some(start) = definition(source, function) else { return Signature::Any };
    let Some(parameters) = split_parameters(&source[start..]) else { return Signature::Any };
    let mut names = Vec::new();
    for parameter in parameters {
        let name: String = parameter.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        match parameter.as_str() {
            p if p.starts_with("**") => return Signature::Any,
            p if p.starts_with('*') || p == "/" || p.is_empty() => {}
            _ => names.push(name),
        }
    }
    Signature::Names(names)
}

/// The offset just behind the opening parenthesis of an undecorated top-level definition.
fn definition(source: &str, function: &str) -> Option<usize> {
    let mut found = None;
    let mut decorated = false;
    let mut offset = 0;
    for line in source.split_inclusive('\n') {
        let head = line.strip_prefix("async ").map(str::trim_start).unwrap_or(line);
        let rest = head.strip_prefix("def ").map(str::trim_start).and_then(|r| r.strip_prefix(function));
        if let Some(rest) = rest.filter(|r| r.trim_start().starts_with('(')) {
            let open = offset + line.len() - rest.len() + rest.find('(').expect("starts with it") + 1;
            found = (!decorated).then_some(open);
        }
        if line.starts_with('@') {
            decorated = true;
        } else if !line.trim().is_empty() && !line.starts_with([' ', '\t', '#', ')']) {
            decorated = false;
        }
        offset += line.len();
    }
    found
}

/// The parameters up to the closing parenthesis, without annotations' inner commas, comments or strings.
fn split_parameters(text: &str) -> Option<Vec<String>> {
    let mut parameters = vec![String::new()];
    let mut depth = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ')' if depth == 0 => {
                return Some(parameters.iter().map(|p| p.trim().to_string()).filter(|p| !p.is_empty()).collect());
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '#' => {
                chars.by_ref().find(|c| *c == '\n');
                continue;
            }
            '"' | '\'' => {
                let mut escaped = false;
                chars.by_ref().find(|d| {
                    let end = *d == c && !escaped;
                    escaped = *d == '\\' && !escaped;
                    end
                })?;
                continue;
            }
            ',' if depth == 0 => {
                parameters.push(String::new());
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            parameters.last_mut()?.push(c);
        }
    }
    None
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
