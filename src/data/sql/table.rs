//! Names of tables and columns.

use std::fmt;

/// The bytes of a name that PostgreSQL keeps. It cuts longer ones, and two that begin alike become one.
pub const LONGEST_NAME: usize = 63;

/// A table of a database, perhaps in a schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    pub schema: Option<String>,
    pub name: String,
}

impl TableName {
    /// Reads `name` or `schema.name`; a part with a dot in it stands in double quotes, as in SQL.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<TableName, String> {
        let mut parts = vec![String::new()];
        let mut rest = text.chars().peekable();
        let mut quoted = false;
        while let Some(c) = rest.next() {
            match c {
                '"' if quoted && rest.next_if_eq(&'"').is_some() => parts.last_mut().expect("one").push('"'),
                '"' => quoted = !quoted,
                '.' if !quoted => parts.push(String::new()),
                '\0' => return Err("a table's name cannot contain NUL".into()),
                c => parts.last_mut().expect("one").push(c),
            }
        }
        if quoted {
            return Err("a quote in the table's name is never closed".into());
        }
        if parts.iter().any(String::is_empty) {
            return Err("a part of the table's name is empty".into());
        }
        let name = parts.pop().unwrap_or_default();
        match parts.len() {
            0 => Ok(TableName { schema: None, name }),
            1 => Ok(TableName { schema: parts.pop(), name }),
            _ => Err("a table is `name` or `schema.name`; a name with a dot in it stands in double quotes".into()),
        }
    }

    /// The part that PostgreSQL would cut.
    pub fn too_long(&self) -> Option<&str> {
        let parts = self.schema.iter().chain([&self.name]);
        parts.map(String::as_str).find(|part| part.len() > LONGEST_NAME)
    }

    /// The name as SQL has it, whatever is in it.
    pub fn quoted(&self) -> String {
        let schema = self.schema.as_ref().map_or(String::new(), |schema| quoted(schema) + ".");
        schema + &quoted(&self.name)
    }

    /// Another table in the same schema.
    pub fn beside(&self, name: String) -> TableName {
        TableName { schema: self.schema.clone(), name }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A name as SQL has it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_dots_outside_of_quotes() {
        let quoted = |text: &str| TableName::parse(text).map(|name| name.quoted());
        assert_eq!(quoted("ratio").as_deref(), Ok("\"ratio\""));
        assert_eq!(quoted("lab.Order by").as_deref(), Ok("\"lab\".\"Order by\""));
        assert_eq!(quoted("\"a.b\".\"c\"\"d\"").as_deref(), Ok("\"a.b\".\"c\"\"d\""));
        for wrong in ["", "a.", ".a", "a.b.c", "\"a", "a\0"] {
            assert!(TableName::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
