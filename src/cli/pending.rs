//! Stand-ins for rooms that are being built; to be replaced by the rooms themselves.

use std::path::PathBuf;

use crate::diagnostic::Diagnostic;
use crate::spec::model::Workflow;

/// `spec::load`.
pub struct LoadOptions<'a> {
    pub stem: &'a str,
    pub dir: PathBuf,
    pub params: &'a [(String, String)],
}

pub fn load(_text: &str, options: &LoadOptions<'_>) -> Result<Workflow, Vec<Diagnostic>> {
    Ok(Workflow {
        name: options.stem.to_string(),
        description: None,
        dir: options.dir.clone(),
        params: Vec::new(),
        sources: Vec::new(),
        stages: Vec::new(),
        outputs: Vec::new(),
        state: None,
    })
}

pub fn json_schema() -> serde_json::Value {
    serde_json::json!({})
}

/// `data::export`.
pub mod export {
    use std::io::{self, Write};
    use std::path::Path;

    use crate::data::Table;
    use crate::spec::model::Format;

    #[derive(Default)]
    pub struct Schema;

    impl Schema {
        pub fn observe(&mut self, _table: &Table) {}
        pub fn finish(self) -> io::Result<Schema> {
            Ok(self)
        }
    }

    pub struct Writer<W>(W);

    impl<W: Write> Writer<W> {
        pub fn new(_format: Format, _schema: &Schema, sink: W) -> io::Result<Writer<W>> {
            Ok(Writer(sink))
        }
        pub fn write(&mut self, _table: &Table) -> io::Result<()> {
            Ok(())
        }
        pub fn finish(self) -> io::Result<W> {
            Ok(self.0)
        }
    }

    pub struct WholeFile(std::fs::File);

    impl WholeFile {
        pub fn create(path: &Path) -> io::Result<WholeFile> {
            std::fs::File::create(path).map(WholeFile)
        }
        pub fn commit(self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Write for WholeFile {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
}
